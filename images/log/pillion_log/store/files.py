"""The store for one machine: JSON lines in files, one writer thread, group commit.

As soon as the writer is done with what it had it is given all that waits, writes it at once, and all of it is answered when that is on the
disk: so an append waits for the disk at most twice, and a thousand at once cost hardly more than one. What is a duplicate is decided in the
loop's thread, group by group, when all earlier ones are durable or have failed. The files themselves are the Folder's.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.base import Appended, Block, Done
from pillion_log.store.folder import Folder
from pillion_log.store.sources import Sources
from pillion_log.store.writer import Writer

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_GROUP_BYTES = 8 * 1024 * 1024
PROBE_EVERY_S = 1.0
RETRY_AFTER_S = 5

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = EventLog("store")


class _Group:
    """What is written at once, and what to tell those who wait for it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0  # of all that was given, duplicates too
        self.staged: dict[str, int] = {}
        self.answers: list[tuple[Done, Appended]] = []


class FileStore:
    """Keeps entries in the files of one folder.

    Args:
        path: the folder.
        rotate_bytes: how large a file may grow.
        keep: how many files are kept.
        probe_every_s: while nothing can be written, how often that is tried.
    """

    def __init__(self, path: Path, rotate_bytes: int, keep: int, probe_every_s: float = PROBE_EVERY_S) -> None:
        self._path = path
        self._folder = Folder(path, rotate_bytes, keep)
        self._sources = Sources()
        self._probe_every_s = probe_every_s
        self._waiting: deque[tuple[Sequence[Run], int, Done]] = deque()
        self._bytes = 0  # of all that waits or is being written
        self._idle = asyncio.Event()  # the writer has no work, and is not about to be given some
        self._idle.set()
        self._fault: str | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._writer = Writer("log-writer")
        self._taking = False

    async def load(self) -> None:
        """Open the folder, learn which entries it has, and start the writer."""
        try:
            damaged = await asyncio.to_thread(self._open)
        except BlockingIOError as exc:
            raise Unavailable(f"another log service writes to {self._path}; give each its own folder") from exc
        except OSError as exc:
            raise Unavailable(f"the log's store {self._path} cannot be opened: {exc}; check the folder's owner and free space") from exc
        if damaged:
            _log.warning("damaged_lines", f"{damaged} lines in {self._path} are no entries; they are passed over", lines=damaged)
        self._writer.start()
        self._taking = True

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries; tells `done` when their group is on the disk."""
        size = sum([len(run.lines) for run in runs])
        if not self._taking or (self._bytes and self._bytes + size > MAX_WAITING_BYTES):
            done(Unavailable("the log's store has too much waiting; try again soon", code="store_busy"))
            return
        self._bytes += size
        self._waiting.append((runs, size, done))
        if self._idle.is_set():
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._go_on)  # then all requests that came in at this moment are there

    def blocks(self) -> AbstractContextManager[Iterator[Block]]:
        """Return the durable entries in blocks, newest first."""
        return self._folder.blocks()

    def fault(self) -> str | None:
        """Return why nothing can be written now."""
        return self._fault

    async def close(self) -> None:
        """Write what waits, then close the files."""
        self._taking = False
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        await self._idle.wait()
        await self._writer.stop()
        self._folder.close()

    def _open(self) -> int:
        self._folder.open()
        with self._folder.blocks() as blocks:
            return sum(self._sources.learn(block.lines()) for block in reversed(list(blocks)))

    def _go_on(self) -> None:
        """Give the writer all that waits, if there is something."""
        if not self._waiting:
            self._idle.set()
            return
        group = self._next_group()
        if data := b"".join(group.lines):
            self._writer.do(partial(self._folder.append, data), partial(self._written, group))
        else:
            asyncio.get_running_loop().call_soon(self._settle, group, None)

    def _next_group(self) -> _Group:
        group = _Group()
        while self._waiting and group.size < MAX_GROUP_BYTES:
            runs, size, done = self._waiting.popleft()
            lines, answer = self._sources.fresh(runs, group.staged)
            group.size += size
            group.lines += lines
            group.answers.append((done, answer))
        return group

    def _written(self, group: _Group, error: OSError | None) -> None:
        if error is None:
            self._sources.keep(group.staged)
            self._works()
        self._settle(group, self._failed(error) if error else None)

    def _settle(self, group: _Group, failure: Unavailable | None) -> None:
        self._bytes -= group.size
        self._go_on()  # first, so that the disk works while the answers go out
        for done, answer in group.answers:
            try:
                done(failure or answer)
            except Exception as exc:  # a fault of ours with one answer must not keep the others waiting
                _log.fault("answer_failed", f"an answer was not given: {type(exc).__name__}: {exc}", exc)

    def _probe(self) -> None:
        self._probe_timer = None
        if self._idle.is_set():  # else what is being written will tell
            self._idle.clear()
            self._writer.do(self._folder.probe, self._probed)

    def _probed(self, error: OSError | None) -> None:
        if error is None:
            self._works()
        else:
            self._failed(error)
        self._go_on()

    def _failed(self, exc: OSError) -> Unavailable:
        what = f"the log's store {self._path} cannot write: {exc.strerror or exc}"
        if self._fault is None:
            _log.error("store_failed", f"{what}; nothing is acknowledged until it can")
        self._fault = what
        if self._probe_timer is None and self._taking:
            self._probe_timer = asyncio.get_running_loop().call_later(self._probe_every_s, self._probe)
        if exc.errno in _FULL:
            return StorageFull(f"{what}; make room", retry_after_s=RETRY_AFTER_S)
        return Unavailable(what, code="store_failed", retry_after_s=RETRY_AFTER_S)

    def _works(self) -> None:
        if self._fault is not None:
            _log.info("store_works", f"the log's store {self._path} can write again")
            self._fault = None
