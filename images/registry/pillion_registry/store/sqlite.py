"""The store for one machine: SQLite with a write-ahead log, synchronous FULL, one writer thread, group commit.

The writer takes everything that waits, writes it in one transaction, and answers all of it after the one fsync: so a commit waits for
the disk at most twice, and a thousand at once cost hardly more than one.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pillion_common.errors import PillionError, StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_common.models import ProviderEntry, Registration, State, decode, encode
from pillion_registry.catalog import Record
from pillion_registry.store.base import REVISION_GAP, Acknowledged, Change, Known, Put, Remove, SetState, Stored, StoredInstance

_log = EventLog("store")

MAX_WAITING = 10_000
MAX_GROUP = 2_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (
    id TEXT PRIMARY KEY, generation INTEGER NOT NULL, registrant TEXT NOT NULL, registered_s REAL NOT NULL, registration BLOB NOT NULL,
    state TEXT NOT NULL, since_s REAL NOT NULL, reason TEXT, known BLOB, trusted INTEGER NOT NULL
) WITHOUT ROWID;
"""

_COLUMNS = "id, generation, registrant, registered_s, registration, state, since_s, reason, known, trusted"

_known_decoder = msgspec.json.Decoder(dict[str, tuple[ProviderEntry, ...]])


class _Job(NamedTuple):
    changes: Sequence[Change]
    done: asyncio.Future[None]


class SqliteStore:
    """Keeps the catalogue in one SQLite file.

    Args:
        path: the file; `:memory:` for tests. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    async def load(self) -> Stored:
        """Open the file, start the writer, and return all that was kept."""
        try:
            stored = await asyncio.to_thread(self._open)
        except sqlite3.Error as exc:
            raise Unavailable(f"the store {self._path} cannot be opened: {exc}; check the folder's owner and free space") from exc
        except (ValueError, TypeError, PillionError, msgspec.MsgspecError) as exc:
            raise Unavailable(f"the store {self._path} is damaged: {exc}; restore it from a copy, or move it away to start empty") from exc
        self._thread = threading.Thread(target=self._write_forever, name="sqlite-writer", args=(asyncio.get_running_loop(),), daemon=True)
        self._thread.start()
        return stored

    async def commit(self, changes: Sequence[Change]) -> None:
        """Keep the changes; returns after the fsync of their group."""
        if self._thread is None or self._waiting >= MAX_WAITING:
            raise Unavailable("the store has too much waiting; try again soon", code="store_busy")
        self._waiting += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(changes, done))
        try:
            # What is queued will be written: a caller that gives up must not leave its future to be resolved twice.
            await asyncio.shield(done)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Write what waits, then close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _open(self) -> Stored:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        rows = connection.execute(f"SELECT {_COLUMNS} FROM instances ORDER BY generation")
        instances = tuple(_read(row) for row in rows)
        revision = int(meta["revision"]) + REVISION_GAP if "revision" in meta else 0
        if revision:
            _set_revision(connection, revision)
        self._connection = connection
        return Stored(meta["epoch"], revision, instances)

    # In the writer's thread.

    def _write_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        connection = self._connection
        assert connection is not None
        going = True
        while going:
            group: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                if len(group) >= MAX_GROUP or self._jobs.empty():
                    break
                job = self._jobs.get()
            going = job is not None
            error = self._write(connection, group)
            if group and not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, group, error)
        connection.close()

    def _write(self, connection: sqlite3.Connection, group: list[_Job]) -> PillionError | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                for change in job.changes:
                    _apply(connection, change)
            connection.execute("COMMIT")
        except Exception as exc:  # whatever it is: those who wait must be told, and the writer must live on
            _roll_back(connection)
            full = getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            what = f"the registry's store {self._path} cannot write: {exc}"
            return StorageFull(what, retry_after_s=5) if full else Unavailable(what, code="store_failed", retry_after_s=5)
        return None


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error as exc:
        _log.warn_seldom("roll_back_failed", f"the registry's store could not roll back: {exc}")


def _resolve(group: list[_Job], error: PillionError | None) -> None:
    for job in group:
        if job.done.done():
            continue
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)
            job.done.exception()  # a caller that was cancelled will not fetch it


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    match change:
        case Put(record, state, since_s, replaced, revision):
            connection.executemany("DELETE FROM instances WHERE id = ?", [(instance_id,) for instance_id in replaced])
            connection.execute(
                f"INSERT OR REPLACE INTO instances ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?)",
                (
                    record.instance_id,
                    record.generation,
                    record.registrant,
                    record.registered_s,
                    encode(record.registration),
                    state,
                    since_s,
                    record.trusted,
                ),
            )
            _set_revision(connection, revision)
        case Remove(instance_id, generation, revision):
            connection.execute("DELETE FROM instances WHERE id = ? AND generation = ?", (instance_id, generation))
            _set_revision(connection, revision)
        case SetState(instance_id, generation, state, reason, since_s, revision):
            _set_revision(connection, revision)
            connection.execute(
                "UPDATE instances SET state = ?, reason = ?, since_s = ? WHERE id = ? AND generation = ?",
                (state, reason, since_s, instance_id, generation),
            )
        case Acknowledged(instance_id, generation, known):
            connection.execute(
                "UPDATE instances SET known = ? WHERE id = ? AND generation = ?", (msgspec.json.encode(known), instance_id, generation)
            )


def _set_revision(connection: sqlite3.Connection, revision: int) -> None:
    connection.execute(
        "INSERT INTO meta VALUES ('revision', ?) ON CONFLICT (key) DO UPDATE SET value = MAX(CAST(value AS INTEGER), excluded.value)",
        (revision,),
    )


def _read(row: tuple[Any, ...]) -> StoredInstance:
    instance_id, generation, registrant, registered_s, registration, state, since_s, reason, known, trusted = row
    record = Record(instance_id, generation, registrant, registered_s, decode(registration, Registration), bool(trusted))
    kept: Known | None = _known_decoder.decode(known) if known else None
    return StoredInstance(record, State(state), since_s, reason, kept)
