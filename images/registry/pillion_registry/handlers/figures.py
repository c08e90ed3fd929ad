"""`GET /metrics`."""

from __future__ import annotations

from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.metrics import METRICS_TYPE, exposition


class MetricsHandler(RegistryHandler):
    """`GET /metrics`."""

    def get(self) -> None:
        """Tell the registry's figures as Prometheus reads them."""
        self.set_header("Content-Type", METRICS_TYPE)
        self.write(exposition(self.registry))
