"""What looks wrong about a registration that is taken in all the same: it requires what nobody has registered, perhaps by a slip."""

from __future__ import annotations

import time
from collections.abc import Callable

from pillion_common.logs import EventLog
from pillion_common.models import Registration
from pillion_registry.catalog import Catalog
from pillion_registry.similar import similar

MAX_LOGGED = 10_000
MAX_KEPT = 1_000
SEARCHES_A_SECOND = 20  # among all names: a whole fleet that comes in misses each other's names all at once

_log = EventLog("registry")


class Doubts:
    """Finds them; each is logged once, for an instance may register often.

    Args:
        clock: seconds; only differences count.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        self._second = 0  # in which the searches were made that are counted
        self._searches = 0
        self._logged: set[tuple[str, str]] = set()
        self._similar: dict[str, str] = {}
        self._similar_at = -1

    def about(self, given: Registration) -> tuple[str, ...]:
        """Return a sentence for each requirement that has no instance. What one can do without is only named if it may be a slip."""
        if not given.required_services:
            return ()
        missing = [name for name in given.requires if not self._catalog.has(name)]
        return tuple(text for name in missing if (text := self._doubt(given.service_name, name, given.need(name))))

    def _doubt(self, consumer: str, name: str, need: int) -> str | None:
        meant = self._meant(name)
        if not meant and not need:
            return None
        text = f"{consumer} requires {name}, which nobody has registered" + (f"; did you mean {meant}?" if meant else " yet")
        if (consumer, name) not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add((consumer, name))
            _log.warning("requirement_missing", text, service=consumer, required=name, **({"similar": meant} if meant else {}))
        return text

    def _meant(self, name: str) -> str | None:
        """Return the name that may be meant; nothing if there is none, None if too many were searched for to say it now."""
        if self._similar_at != self._catalog.names_version or len(self._similar) >= MAX_KEPT:
            self._similar.clear()
            self._similar_at = self._catalog.names_version
        if name not in self._similar:
            second = int(self._clock())
            if second != self._second:
                self._second, self._searches = second, 0
            if self._searches >= SEARCHES_A_SECOND:
                return None
            self._searches += 1
            self._similar[name] = similar(name, self._catalog.names()) or ""
        return self._similar[name]
