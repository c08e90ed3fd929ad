"""A store that forgets: for tests, and for those who want a log without a disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.base import Block, Done, Listeners, MemoryBlock, StoreStats, Wanted
from pillion_log.store.sources import Mark, Sources
from pillion_log.store.summaries import Tally, merge

MAX_ENTRIES = 100_000
MAX_BYTES = 256 * 1024 * 1024
BLOCK_BYTES = 256 * 1024

_log = EventLog("store")


class MemoryStore:
    """Keeps the last entries in this object: durable as long as it lives, not over a restart of the process."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._full: deque[tuple[MemoryBlock, int]] = deque()  # each with its number of entries
        self._lines: list[bytes] = []  # of the block that grows
        self._tally = Tally()
        self._start = 0
        self._size = 0
        self._entries = 0  # of the block that grows
        self._kept = self._kept_bytes = 0  # in all
        self._sources = Sources()
        self._lock = threading.Lock()  # readers come from other threads
        self._removed = self._removed_bytes = 0
        self._listeners = Listeners(lambda exc: _log.fault("listener_failed", f"who followed the store is told no more: {exc}", exc))

    async def load(self) -> None:
        """Do nothing: there is nothing to open."""

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries."""
        staged: dict[str, Mark] = {}
        kept, answer = self._sources.fresh(runs, staged)
        lines = b"".join([run.lines for run in kept])
        with self._lock:
            start = self._start + self._size
            if lines:
                self._lines.append(lines)
                self._tally.add_runs(kept)
                self._size += len(lines)
                self._kept_bytes += len(lines)
                self._entries += (length := sum([run.length for run in kept]))
                self._kept += length
                self._bound()
        self._sources.keep(staged)
        done(answer)
        if lines and self._listeners:
            self._listeners.tell(MemoryBlock(start, lines))

    @contextmanager
    def blocks(self, after: int = 0, newest_first: bool = True, wanted: Wanted | None = None) -> Iterator[Iterator[Block]]:
        """Return the entries in blocks."""
        with self._lock:
            there = [*(full for full, _ in self._full), self._growing()]
        found: list[Block] = [block for block in there if block.end > max(after, block.start)]
        found = [block for block in found if wanted is None or block.summary is None or wanted(block.summary)]
        yield iter(found[::-1] if newest_first else found)

    def follow(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Call the listener with each group."""
        return self._listeners.add(listener)

    def stats(self) -> StoreStats:
        """Return what there is."""
        with self._lock:
            total = merge([block.summary for block, _ in self._full] + [self._tally.summary()])
            return StoreStats(
                services=total.services if total else {},
                oldest=self._full[0][0].start if self._full else self._start,
                end=self._start + self._size,
                removed_segments=self._removed,
                removed_bytes=self._removed_bytes,
            )

    def fault(self) -> str | None:
        """Return None: memory does not fail."""
        return None

    async def close(self) -> None:
        """Do nothing: there is nothing to finish."""

    def _growing(self) -> MemoryBlock:
        self._lines = [b"".join(self._lines)]
        return MemoryBlock(self._start, self._lines[0], self._tally.summary())

    def _bound(self) -> None:
        if self._size >= BLOCK_BYTES or self._entries >= max(1, self._max_entries // 10):
            self._full.append((self._growing(), self._entries))
            self._start += self._size
            self._lines, self._tally, self._size, self._entries = [], Tally(), 0, 0
        while self._full and (self._kept - self._full[0][1] >= self._max_entries or self._kept_bytes > MAX_BYTES):
            block, entries = self._full.popleft()
            self._kept -= entries
            self._kept_bytes -= len(block.lines)
            self._removed += 1
            self._removed_bytes += len(block.lines)
