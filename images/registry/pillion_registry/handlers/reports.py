"""`GET /graph` and `GET /why`: what follows from the catalogue."""

from __future__ import annotations

from dataclasses import replace

from pillion_common.errors import InvalidInput
from pillion_common.models import encode
from pillion_registry.events import STATELESS
from pillion_registry.graph import graph
from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.history_file import Wanted
from pillion_registry.why import FINE, Evidence, explain

PAST_EVENTS = 10  # among which one tells what became of the last instance


class GraphHandler(RegistryHandler):
    """`GET /graph`."""

    def get(self) -> None:
        """Tell who requires whom, and what is missing."""
        catalog = self.registry.catalog
        self.set_header("Cache-Control", "no-store")
        self.write_json(encode(graph(catalog, catalog.revision, self.text("name"))))


class WhyHandler(RegistryHandler):
    """`GET /why`."""

    async def get(self) -> None:
        """Tell why a consumer does or does not see a service."""
        consumer, service = self._name("consumer"), self._name("service")
        registry = self.registry
        past = [] if registry.catalog.has(service) else await registry.history.select(Wanted(name=service, limit=PAST_EVENTS))
        last = [event for event in past if event.kind not in STATELESS]
        refusals = {name: found for name in (consumer, service) if (found := registry.refusals.of(name))}
        evidence = Evidence(await registry.standings(consumer), refusals, last[-1] if last else None)
        told = explain(consumer, service, registry.catalog, evidence)
        if told.findings[0].code == FINE:  # else there is a better reason, and a sidecar that hangs would only delay it
            evidence = replace(evidence, unreached=await registry.reach.unreached(consumer, service))
            told = explain(consumer, service, registry.catalog, evidence)
        self.set_header("Cache-Control", "no-store")
        self.write_json(encode(told))

    def _name(self, parameter: str) -> str:
        name = self.text(parameter)
        if not name:
            message = f"{parameter} is missing; ask like /why?consumer=Portald&service=GradingService"
            raise InvalidInput(message, code="invalid_query", field=parameter)
        return name
