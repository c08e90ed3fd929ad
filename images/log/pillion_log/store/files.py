"""The store for one machine: JSON lines in files, one writer thread, group commit.

The writer takes everything that waits, writes it at once, and answers all of it after the one fdatasync: so an append waits for the disk at
most twice, and a thousand at once cost hardly more than one. The files themselves are the Folder's.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import Entry
from pillion_log.store.base import Appended, Block
from pillion_log.store.folder import Folder
from pillion_log.store.sources import Sources

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_GROUP_BYTES = 8 * 1024 * 1024
PROBE_EVERY_S = 1.0
RETRY_AFTER_S = 5

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = EventLog("store")


class _Job(NamedTuple):
    entries: Sequence[Entry]
    size: int
    done: asyncio.Future[Appended]


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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._fault: str | None = None
        self._thread: threading.Thread | None = None

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
        self._thread = threading.Thread(target=self._write_forever, name="log-writer", args=(asyncio.get_running_loop(),), daemon=True)
        self._thread.start()

    async def append(self, entries: Sequence[Entry]) -> Appended:
        """Keep the entries; returns after the fdatasync of their group."""
        size = sum([len(entry.line) for entry in entries])
        if self._thread is None or (self._waiting_bytes and self._waiting_bytes + size > MAX_WAITING_BYTES):
            raise Unavailable("the log's store has too much waiting; try again soon", code="store_busy")
        self._waiting_bytes += size
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(entries, size, done))
        # What is queued will be written: a caller that gives up must not leave its future to be resolved twice.
        return await asyncio.shield(done)

    def blocks(self) -> AbstractContextManager[Iterator[Block]]:
        """Return the durable entries in blocks, newest first."""
        return self._folder.blocks()

    def fault(self) -> str | None:
        """Return why nothing can be written now."""
        return self._fault

    async def close(self) -> None:
        """Write what waits, then close the files."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _open(self) -> int:
        self._folder.open()
        with self._folder.blocks() as blocks:
            return sum(self._sources.learn(block.lines()) for block in reversed(list(blocks)))

    def _resolve(self, group: list[_Job], outcome: list[Appended] | Unavailable) -> None:
        self._waiting_bytes -= sum(job.size for job in group)
        for index, job in enumerate(group):
            if job.done.done():
                continue
            if isinstance(outcome, Unavailable):
                job.done.set_exception(outcome)
                job.done.exception()  # a caller that was cancelled will not fetch it
            else:
                job.done.set_result(outcome[index])

    # In the writer's thread.

    def _write_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        going = True
        while going:
            group, going = self._next_group()
            if group:
                outcome = self._write(group)
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._resolve, group, outcome)
            elif going:
                self._probe()
        self._folder.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Return all that waits, and whether there will be more. Without a fault this waits; with one, an empty group asks for a probe."""
        group: list[_Job] = []
        size = 0
        try:
            job = self._jobs.get(timeout=self._probe_every_s if self._fault else None)
            while job is not None:
                group.append(job)
                size += job.size
                if size >= MAX_GROUP_BYTES:
                    return group, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _write(self, group: list[_Job]) -> list[Appended] | Unavailable:
        staged: dict[str, int] = {}
        fresh = [self._sources.fresh(job.entries, staged) for job in group]
        data = b"".join([line for lines in fresh for line in lines])
        try:
            if data:
                self._folder.append(data)
        except OSError as exc:
            return self._failed(exc)
        self._sources.keep(staged)
        if data:
            self._works()
        return [Appended(len(lines), len(job.entries) - len(lines)) for job, lines in zip(group, fresh, strict=True)]

    def _probe(self) -> None:
        try:
            self._folder.probe()
        except OSError as exc:
            self._failed(exc)
        else:
            self._works()

    def _failed(self, exc: OSError) -> Unavailable:
        what = f"the log's store {self._path} cannot write: {exc.strerror or exc}"
        if self._fault is None:
            _log.error("store_failed", f"{what}; nothing is acknowledged until it can")
        self._fault = what
        if exc.errno in _FULL:
            return StorageFull(f"{what}; make room", retry_after_s=RETRY_AFTER_S)
        return Unavailable(what, code="store_failed", retry_after_s=RETRY_AFTER_S)

    def _works(self) -> None:
        if self._fault is not None:
            _log.info("store_works", f"the log's store {self._path} can write again")
            self._fault = None
