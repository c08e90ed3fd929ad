"""The store for one machine: JSON lines in segment files, one writer thread, group commit.

Puts the parts together: the Committer's thread decides what is new and has the Appender write it to the Folder's newest segment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.appender import Appender
from pillion_log.store.base import Block, Done, Listeners, MemoryBlock, StoreStats, Wanted
from pillion_log.store.committer import PROBE_EVERY_S, Committer, Group
from pillion_log.store.current import CurrentLog
from pillion_log.store.folder import Folder
from pillion_log.store.keeper import Keeper, Retention
from pillion_log.store.sources import Sources

MAX_WAITING_BYTES = 32 * 1024 * 1024
MIN_SEGMENT_BYTES = 64 * 1024
MIN_SEGMENTS = 8

_log = EventLog("store")


@dataclass(frozen=True)
class FileOptions:
    """How a file store keeps what it keeps."""

    rotate_bytes: int = 64 << 20
    rotate_s: float = 86400.0
    max_bytes: int = 10 << 30  # on the disk
    max_age_s: float = 30 * 86400.0
    sync: str = "always"  # or interval, or os
    sync_every_s: float = 1.0
    packs: bool = True
    current: bool = False  # keep current.log as well


class FileStore:
    """Keeps entries in the files of one folder.

    Args:
        path: the folder.
        options: how.
        probe_every_s: while nothing can be written, how often that is tried.
    """

    def __init__(self, path: Path, options: FileOptions, probe_every_s: float = PROBE_EVERY_S) -> None:
        self._path = path
        self._folder = Folder(path)
        self._sources = Sources()
        self._current = CurrentLog(path) if options.current else None
        retention = Retention(self._folder, options.max_bytes, options.max_age_s)
        self._keeper = Keeper(self._folder, retention, options.packs)
        self._retention, self._rotate_bytes = retention, options.rotate_bytes
        self._appender = Appender(self._folder, options.rotate_s, self._rotated, options.sync)
        sync_every_s = options.sync_every_s if options.sync == "interval" else None
        self._committer = Committer(
            self._appender, self._sources, self._settle, sync_every_s, probe_every_s, self._current.write if self._current else None
        )
        self._listeners = Listeners(lambda exc: _log.fault("listener_failed", f"who followed the store is told no more: {exc}", exc))
        self._bytes = 0  # of all that waits or is being written
        self._taking = False

    async def load(self) -> None:
        """Open the folder, learn which entries it has, and start the writer."""
        try:
            await asyncio.to_thread(self._open)
        except BlockingIOError as exc:
            raise Unavailable(f"another log service writes to {self._path}; give each its own folder") from exc
        except OSError as exc:
            raise Unavailable(f"the log's store {self._path} cannot be opened: {exc}; check the folder's owner and free space") from exc
        self._committer.start()
        self._keeper.start()
        self._taking = True

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries; tells `done` when their group is on the disk."""
        size = len(runs[0].lines) if len(runs) == 1 else sum([len(run.lines) for run in runs])
        waiting = self._bytes + size
        if (waiting > MAX_WAITING_BYTES and waiting > size) or not self._taking:
            done(Unavailable("the log's store has too much waiting; try again soon", code="store_busy"))
            return
        self._bytes = waiting
        committer = self._committer
        committer.waiting.append((runs, size, done))
        if committer.idle:
            committer.ring()

    def blocks(self, after: int = 0, newest_first: bool = True, wanted: Wanted | None = None) -> AbstractContextManager[Iterator[Block]]:
        """Return the durable entries in blocks."""
        return self._folder.blocks(after, newest_first, wanted)

    def follow(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Call the listener with each group that is on the disk."""
        return self._listeners.add(listener)

    def stats(self) -> StoreStats:
        """Return what there is."""
        return self._folder.stats()

    def fault(self) -> str | None:
        """Return why nothing can be written now."""
        return self._committer.fault

    async def close(self) -> None:
        """Write what waits, then close the files."""
        opened, self._taking = self._taking, False
        await self._committer.stop()
        await asyncio.to_thread(self._close, opened)

    def _open(self) -> None:
        self._folder.open(self._sources)
        # So small that a few segments are kept, however little room there is.
        size = min(self._rotate_bytes, max(MIN_SEGMENT_BYTES, self._retention.limit() // MIN_SEGMENTS))
        self._appender.rotate_bytes = self._retention.reserve_bytes = size

    def _settle(self, group: Group) -> None:
        self._bytes -= group.size
        failure = group.failure
        for done, answer in group.answers:
            try:
                done(failure or answer)
            except Exception as exc:  # a fault of ours with one answer must not keep the others waiting
                _log.fault("answer_failed", f"an answer was not given: {type(exc).__name__}: {exc}", exc)
        if group.lines and self._listeners:
            self._listeners.tell(MemoryBlock(group.start, group.lines))

    def _rotated(self) -> None:
        """Write down the sources, so that the next start need not read what has ended."""
        try:
            self._folder.remember(self._sources)
        except OSError as exc:
            _log.warn_seldom("snapshot_failed", f"{self._path}/sources.json cannot be written: {exc}; the next start takes longer")
        if self._current is not None:
            self._current.rotate()
        self._keeper.wake()

    def _close(self, opened: bool) -> None:
        self._keeper.stop()
        try:
            self._appender.close()
            if opened:
                self._folder.remember(self._sources, clean=True)
        except OSError as exc:
            _log.error("close_failed", f"the log's store {self._path} could not be closed cleanly: {exc}")
        finally:
            self._folder.close()
