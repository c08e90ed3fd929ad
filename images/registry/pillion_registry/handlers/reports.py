"""`GET /graph`: what follows from the catalogue."""

from __future__ import annotations

from pillion_common.models import encode
from pillion_registry.graph import graph
from pillion_registry.handlers.base import RegistryHandler


class GraphHandler(RegistryHandler):
    """`GET /graph`."""

    def get(self) -> None:
        """Tell who requires whom, and what is missing."""
        catalog = self.registry.catalog
        self.write_json(encode(graph(catalog, catalog.revision, self.text("name"))))
