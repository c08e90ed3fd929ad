"""Keeps what has to be kept in the store, and remembers how the last write ended."""

from __future__ import annotations

from collections.abc import Callable

from pillion_common.errors import PillionError
from pillion_common.logs import EventLog
from pillion_registry.dependent import Dependent
from pillion_registry.store.base import Acknowledged, Change, Known, Store

_log = EventLog("registry")


class Keeping:
    """A store's writes, counted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes = self.failed = 0
        self.fault: str | None = None  # why the last write failed

    async def commit(self, *changes: Change) -> None:
        """Keep the changes; returns when they are durable.

        Raises:
            Conflict, Unavailable, StorageFull.
        """
        try:
            await self._store.commit(changes)
        except PillionError as exc:
            self.note(exc)
            raise
        self.note(None)

    def submit(self, change: Change) -> None:
        """Keep a change, and go on. A state that was not kept is found out again by the first check after a restart."""
        self._store.submit((change,), self.note)

    def acknowledged(self, dependent: Dependent, known: Known, then: Callable[[], None]) -> None:
        """Keep what a classic dependent knows; calls `then` when that is done."""

        def kept(fault: PillionError | None) -> None:
            self.note(fault)
            then()

        self._store.submit((Acknowledged(dependent.instance_id, dependent.generation, known),), kept)

    def note(self, fault: PillionError | None) -> None:
        """Note how a write ended."""
        self.writes += 1
        self.failed += fault is not None
        self.fault = fault.message if fault else None
        if fault:
            _log.warn_seldom("store_failed", fault.message)
