"""What is read of the catalogue: lists with filters, encoded once for all who ask the same, and waits for the next change. Bounded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from pillion_common.errors import Unavailable
from pillion_common.models import InstanceList, encode
from pillion_registry.catalog import Catalog, Instance
from pillion_registry.events import Events, Reader
from pillion_registry.views import view

MAX_KEPT = 8
MAX_WAITING = 5_000
MAX_WAIT_S = 60.0


class Filters(NamedTuple):
    """Which instances are wanted; None is no matter."""

    name: str | None = None
    state: str | None = None
    tag: str | None = None
    zone: str | None = None

    def fit(self, instance: Instance) -> bool:
        """Return whether an instance is among them."""
        given = instance.record.registration
        return (
            self.name in (None, instance.name)
            and self.state in (None, instance.state.value)
            and self.zone in (None, given.zone)
            and (self.tag is None or self.tag in (given.tags or ()))
        )


class Reads:
    """Answers those who look."""

    def __init__(self, catalog: Catalog, events: Events) -> None:
        self._catalog = catalog
        self._events = events
        self._epoch = ""
        self._kept: dict[tuple[object, ...], bytes] = {}
        self._kept_at = (-1, -1)
        self.waiting = 0
        self.closed = False

    def begin(self, epoch: str) -> None:
        """Tell the registry's epoch from now on."""
        self._epoch = epoch

    @property
    def tag(self) -> str:
        """Return what is another as soon as any list may be."""
        return f'"{self._epoch}-{self._catalog.revision}-{self._catalog.touches}"'

    def list(self, filters: Filters, service: str | None = None, names: frozenset[str] | None = None) -> bytes:
        """Return the instances that fit, encoded.

        Args:
            service: only that one's, which has to be known.
            names: only these services', which need not.

        Raises:
            NotFound: the service was never registered.
        """
        now = (self._catalog.revision, self._catalog.touches)
        if self._kept_at != now:
            self._kept.clear()
            self._kept_at = now
        key = (filters, service, names)
        body = self._kept.get(key)
        if body is None:
            if service is not None:
                of: Iterable[Instance] = self._catalog.of_name(service)
            elif names is not None or filters.name is not None:
                of = [one for name in sorted(names or [filters.name or ""]) for one in self._catalog.named(name)]
            else:
                of = self._catalog
            body = encode(InstanceList(self._catalog.revision, self._epoch, tuple(view(one) for one in of if filters.fit(one))))
            if len(self._kept) < MAX_KEPT:
                self._kept[key] = body
        return body

    async def newer_than(self, revision: int, wait_s: float, reader: Reader) -> None:
        """Wait until the catalogue is newer than a revision; no longer than wait_s, or MAX_WAIT_S, or until the reader is gone.

        Raises:
            Unavailable: too many wait already.
        """
        ends = time.monotonic() + min(wait_s, MAX_WAIT_S)
        if self._catalog.revision > revision or self.closed:
            return
        if self.waiting >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} readers wait already; ask without wait", code="too_many_waiting", retry_after_s=5)
        self.waiting += 1
        try:
            while self._catalog.revision <= revision and not self.closed and not reader.gone:
                if not await self._events.bell.wait(ends - time.monotonic(), reader):
                    return
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Let all who wait go."""
        self.closed = True
        self._events.bell.ring()
