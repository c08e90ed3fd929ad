"""The journal: what happened, kept for a while, and who was there when. Nothing waits for its disk: a batch is written a moment after it
happened, by a thread of its own and without an fsync. A kill of the process loses at most the last tenth of a second, a power cut what the
system had not written yet; SQLite's log makes sure that what is read back is whole. All of SQLite is in `history_file.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_registry.events import LOST, Event
from pillion_registry.history_file import HistoryFile, Wanted, encode

_log = EventLog("history")

GATHER_S = 0.1
RETRY_S = 1.0
MAX_PENDING = 50_000
MAX_BATCH = 1_000
MAX_READERS = 16
STRETCHES = 8  # about so many snapshots are kept, by size and by age
LEAST_STRETCH = 64 * 1024

T = TypeVar("T")


class History:
    """Keeps events and answers questions about the past.

    Args:
        path: the file; None keeps everything in memory.
        max_bytes: most that is kept, about.
        max_age_s: how long it is kept, at least.
        snapshot: returns all instances, as events of the kind `present`; called in the loop's thread.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        path: Path | None,
        max_bytes: int,
        max_age_s: float,
        snapshot: Callable[[], list[Event]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._stretch_most_bytes = max(LEAST_STRETCH, max_bytes // STRETCHES)
        self._stretch_most_s = max_age_s / STRETCHES
        self._snapshot = snapshot
        self._clock = clock
        self._file = HistoryFile(path, max_bytes, max_age_s)
        self._thread = ThreadPoolExecutor(1, "history")
        self._pending: list[Event] = []
        self._newest = 0
        self._lost = 0
        self._writing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failing = self._closed = False
        self._readers = 0
        self._stretch_bytes = 0
        self._stretch_from_s = 0.0
        self.dropped = 0  # events that were lost since the start

    async def load(self) -> int:
        """Open the file; return the number of its newest event."""
        self._newest = await self._do(partial(self._file.open, self._clock()))
        return self._newest

    def begin(self) -> None:
        """Keep a snapshot: the catalogue is whole now."""
        self._begin_stretch()

    def keep(self, event: Event) -> None:
        """Keep an event, soon. What comes faster than it can be written for long is lost, and counted. After the end nothing is kept."""
        if self._closed:
            return
        if len(self._pending) >= MAX_PENDING:
            self._lost += 1
            self.dropped += 1
            return
        self._newest = event.number
        self._pending.append(event)
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._write_soon)

    async def select(self, wanted: Wanted) -> list[Event]:
        """Return events in the order they happened.

        Raises:
            Unavailable: too many read already, or the file cannot be read.
        """
        pending = list(self._pending)
        found = await self._read(partial(self._file.select, wanted))
        newest = found[-1].number if found else 0
        return wanted.cut(found + [event for event in pending if event.number > newest and wanted.fits(event)])

    async def known_from(self) -> float:
        """Return the time from which on the past is known, in seconds since 1970.

        Raises:
            As `select`.
        """
        return await self._read(self._file.known_from) or self._clock()

    async def at(self, name: str, time_s: float) -> list[Event] | None:
        """Return the last event of each instance of a service that was there at a moment; None if that is too long ago.

        Raises:
            As `select`.
        """
        await self._flush()
        return await self._read(partial(self._file.at, name, time_s))

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self._flush()
        self._closed = True
        self._stop_timer()
        await self._do(self._file.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _read(self, work: Callable[[], T]) -> T:
        if self._readers >= MAX_READERS:
            raise Unavailable(f"{MAX_READERS} others are reading the journal; try again soon", code="journal_busy")
        self._readers += 1
        try:
            return await self._do(work)
        except sqlite3.Error as exc:
            raise Unavailable(f"the journal {self._path} cannot be read: {exc}", code="journal_failed") from exc
        finally:
            self._readers -= 1

    def _write_soon(self) -> None:
        self._timer = None
        self._writing = asyncio.ensure_future(self._write_pending())
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        if (fault := writing.exception()) is not None:
            _log.fault("journal_failed", f"the journal of events could not be written: {fault}", fault)
        if self._pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._write_soon)

    async def _flush(self) -> None:
        """Write what waits now, unless that fails."""
        last = self._newest
        while self._pending and self._pending[0].number <= last:
            if self._writing is None:
                self._stop_timer()
                self._write_soon()
            writing = self._writing
            assert writing is not None
            await asyncio.wait([writing])
            if writing.cancelled() or writing.exception() or self._failing:
                return

    async def _write_pending(self) -> None:
        self._failing = False
        while self._pending:
            batch = self._pending[:MAX_BATCH]
            told = [*batch, self._loss(batch[-1])] if self._lost and len(batch) == len(self._pending) else batch
            try:
                self._stretch_bytes += await self._do(partial(self._file.append, told))
            except sqlite3.Error as exc:
                self._failing = True
                _log.warn_seldom("journal_failed", f"the journal of events {self._path} cannot be written: {exc}")
                return
            del self._pending[: len(batch)]
            self._lost = 0 if told is not batch else self._lost
            if self._stretch_bytes >= self._stretch_most_bytes or self._clock() - self._stretch_from_s >= self._stretch_most_s:
                self._begin_stretch()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _loss(self, last: Event) -> Event:
        text = f"{self._lost} events were not kept: the journal could not be written for too long"
        return Event(last.number, last.time_s, last.revision, LOST, reason=text)

    def _begin_stretch(self) -> None:
        """Keep a snapshot of this moment, after all that was recorded."""
        now = self._clock()
        self._stretch_bytes, self._stretch_from_s = 0, now
        self._thread.submit(self._file.keep_snapshot, self._newest, now, encode(self._snapshot())).add_done_callback(_look_at)


def _look_at(done: Future[None]) -> None:
    if (exc := done.exception()) is not None:
        _log.warning("journal_failed", f"a snapshot for the journal of events was not kept: {exc}")
