"""What looks wrong about a registration that is taken in all the same: it requires what nobody has registered, perhaps by a slip."""

from __future__ import annotations

from pillion_common.logs import EventLog
from pillion_common.models import Registration
from pillion_registry.catalog import Catalog
from pillion_registry.similar import similar

MAX_LOGGED = 10_000
MAX_KEPT = 1_000

_log = EventLog("registry")


class Doubts:
    """Finds them; each is logged once, for an instance may register often."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._logged: set[tuple[str, str]] = set()
        self._similar: dict[str, str | None] = {}
        self._similar_at = -1

    def about(self, given: Registration) -> tuple[str, ...]:
        """Return a sentence for each requirement that has no instance. What one can do without is only named if it may be a slip."""
        if not given.required_services:
            return ()
        missing = [name for name in given.requires if not self._catalog.has(name)]
        return tuple(text for name in missing if (text := self._doubt(given.service_name, name, given.need(name))))

    def _doubt(self, consumer: str, name: str, need: int) -> str | None:
        meant = self._meant(name)
        if meant is None and not need:
            return None
        text = f"{consumer} requires {name}, which nobody has registered" + (f"; did you mean {meant}?" if meant else " yet")
        if (consumer, name) not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add((consumer, name))
            _log.warning("requirement_missing", text, service=consumer, required=name, **({"similar": meant} if meant else {}))
        return text

    def _meant(self, name: str) -> str | None:
        if self._similar_at != self._catalog.names_version or len(self._similar) >= MAX_KEPT:
            self._similar.clear()
            self._similar_at = self._catalog.names_version
        if name not in self._similar:
            self._similar[name] = similar(name, self._catalog.names())
        return self._similar[name]
