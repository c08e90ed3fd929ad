"""The store for one machine: SQLite with a write-ahead log, synchronous FULL, one writer thread, group commit.

What is submitted in one turn of the loop goes to the writer together. The writer takes everything that waits, appends it to the journal
(`journal.py`) in one statement, and answers all of it after the one fsync: so a commit waits for the disk at most twice, and a thousand at
once cost hardly more than one.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from pillion_common.errors import PillionError, StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_registry.store import journal
from pillion_registry.store.base import Change, OnDone, Store, Stored

_log = EventLog("store")

MAX_WAITING = 10_000
MAX_GROUP = 2_000
FOLD_BYTES = 8 * 2**20  # the journal is folded when it has grown by so much: about 16,000 registrations

_RETRY_AFTER_S = 5


class _Job(NamedTuple):
    prepared: journal.Prepared
    on_done: OnDone


class SqliteStore(Store):
    """Keeps the catalogue in one SQLite file.

    Args:
        path: the file; `:memory:` for tests. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gathered: list[_Job] = []  # submitted in this turn of the loop
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    async def load(self) -> Stored:
        """Open the file, start the writer, and return all that was kept."""
        try:
            self._connection, stored = await asyncio.to_thread(journal.open_file, self._path)
        except sqlite3.Error as exc:
            raise Unavailable(f"the store {self._path} cannot be opened: {exc}; check the folder's owner and free space") from exc
        except (LookupError, ValueError, TypeError, PillionError, msgspec.MsgspecError) as exc:
            raise Unavailable(f"the store {self._path} is damaged: {exc}; restore it from a copy, or move it away to start empty") from exc
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_forever, name="sqlite-writer", args=(self._connection,), daemon=True)
        self._thread.start()
        return stored

    def submit(self, changes: Sequence[Change], on_done: OnDone) -> None:
        """Keep the changes; `on_done` is called after the fsync of their group."""
        if self._thread is None or self._waiting >= MAX_WAITING:
            busy = Unavailable("the store has too much waiting; try again soon", code="store_busy")
            asyncio.get_running_loop().call_soon(on_done, busy)
            return
        try:
            prepared = journal.prepare(changes)
        except (ValueError, OverflowError, TypeError, msgspec.MsgspecError) as exc:  # refused alone, before it can spoil a group
            self._loop.call_soon(on_done, self._failed(exc))
            return
        self._waiting += 1
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Job(prepared, on_done))

    async def close(self) -> None:
        """Write what waits, fold the journal, then close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _answer(self, group: list[_Job], error: PillionError | None) -> None:
        self._waiting -= len(group)
        for job in group:
            try:
                job.on_done(error)
            except Exception as exc:  # a fault of one caller is not the others'
                self._loop.call_exception_handler({"message": "a caller of the store failed", "exception": exc})

    def _failed(self, exc: Exception) -> PillionError:
        what = f"the registry's store {self._path} cannot write: {exc}"
        if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return StorageFull(what, retry_after_s=_RETRY_AFTER_S)
        return Unavailable(what, code="store_failed", retry_after_s=_RETRY_AFTER_S)

    # In the writer's thread.

    def _write_forever(self, connection: sqlite3.Connection) -> None:
        unfolded = 0
        going = True
        while going:
            group: list[_Job] = []
            jobs = self._queue.get()
            while jobs is not None:
                group += jobs
                if len(group) >= MAX_GROUP or self._queue.empty():
                    break
                jobs = self._queue.get()
            going = jobs is not None
            if group:
                unfolded += self._write(connection, group)
            if unfolded >= FOLD_BYTES or not going:
                self._fold(connection)
                unfolded = 0
        connection.close()

    def _write(self, connection: sqlite3.Connection, group: list[_Job]) -> int:
        """Append the group, have its callers told, and return how many bytes it took."""
        written, error = 0, None
        try:
            written = journal.append(connection, [job.prepared for job in group])
        except Exception as exc:  # whatever it is: those who wait must be told, and the writer must live on
            error = self._failed(exc)
        with suppress(RuntimeError):  # the loop was closed without us: there is nobody to tell
            self._loop.call_soon_threadsafe(self._answer, group, error)
        return written

    def _fold(self, connection: sqlite3.Connection) -> None:
        try:
            journal.fold(connection)
        except Exception as exc:  # nothing is lost: what is in the journal is kept, and folded the next time
            _log.warn_seldom("fold_failed", f"the registry's store {self._path} could not fold its journal: {exc}")
