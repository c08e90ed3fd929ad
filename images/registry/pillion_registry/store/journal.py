"""The registry's SQLite file: its tables, how changes are appended to its journal, and how the journal is folded into the instances.

A record written to its own place in the table dirties a page of its own, which SQLite writes to its log and later to its file: about 40 us
of CPU. Appended to the journal a group at a time it costs 5, and folded later, many in the order of their ids, 13, once for all that
concerns one instance. No threads here, and no transaction but `fold`'s.

A journal row holds a group of commits as msgpack: a list of commits, each a list of changes `[kind, id, ...]`, for example
`[[[0, "Log-1f3a", 7, "10.0.0.9", 1753300000.5, <the registration's JSON>, "up", 1753300000.5, true]], [[3, "Db-77c1", 4]]]`.
"""

from __future__ import annotations

import math
import secrets
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pillion_common.models import ProviderEntry, Registration, State, decode, encode
from pillion_registry.catalog import Record
from pillion_registry.store.base import REVISION_GAP, Acknowledged, Change, Known, Put, Remove, SetState, Stored, StoredInstance

MAX_INTEGER = 2**63 - 1  # SQLite's
LOG_BYTES = 4 * 2**20  # to which SQLite's log grows before it is written from its start again
ROOM_BYTES = 16 * LOG_BYTES  # with less free, the disk is left to what must be kept

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (
    id TEXT PRIMARY KEY, generation INTEGER NOT NULL, registrant TEXT NOT NULL, registered_s REAL NOT NULL, registration BLOB NOT NULL,
    state TEXT NOT NULL, since_s REAL NOT NULL, reason TEXT, known BLOB, trusted INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, revision INTEGER NOT NULL, commits BLOB NOT NULL);
"""

_COLUMNS = "id, generation, registrant, registered_s, registration, state, since_s, reason, known, trusted"

_PUT, _DROP, _STATE, _REMOVE, _KNOWN = range(5)

# By kind; the parameters are a change's, in their order.
_STATEMENTS = (
    "INSERT OR REPLACE INTO instances (id, generation, registrant, registered_s, registration, state, since_s, trusted)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    "DELETE FROM instances WHERE id = ?",
    "UPDATE instances SET state = new.state, reason = new.reason, since_s = new.since_s"
    " FROM (SELECT ? AS id, ? AS generation, ? AS state, ? AS reason, ? AS since_s) AS new"
    " WHERE instances.id = new.id AND instances.generation = new.generation",
    "DELETE FROM instances WHERE id = ? AND generation = ?",
    "UPDATE instances SET known = new.known FROM (SELECT ? AS id, ? AS generation, ? AS known) AS new"
    " WHERE instances.id = new.id AND instances.generation = new.generation",
)

_Row = tuple[Any, ...]

_to_msgpack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode
_read_commits = msgspec.msgpack.Decoder(list[list[_Row]]).decode
_read_known = msgspec.json.Decoder(dict[str, tuple[ProviderEntry, ...]]).decode


class Prepared(NamedTuple):
    """One commit, ready to be appended."""

    changes: bytes
    revision: int  # the highest of its changes; 0 when none has one


def open_file(path: Path) -> tuple[sqlite3.Connection, Stored]:
    """Open or make the file, fold what its journal still holds, and return all that was kept.

    Raises:
        sqlite3.Error: it cannot be opened or written. LookupError, TypeError, ValueError, PillionError, MsgspecError: it is damaged.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
        fold(connection)
        _lengthen_log(connection, path)
        return connection, _load(connection)
    except BaseException:
        connection.close()
        raise


def prepare(changes: Sequence[Change]) -> Prepared:
    """Encode a commit.

    Raises:
        ValueError, OverflowError: a number or a text that the file could not hold.
    """
    rows: list[_Row] = []
    revision = 0
    for change in changes:
        rows += _rows(change)
        if not isinstance(change, Acknowledged) and change.revision > revision:
            revision = change.revision
    return Prepared(_to_msgpack(rows), revision)


def append(connection: sqlite3.Connection, group: Sequence[Prepared]) -> int:
    """Keep a group of commits: all or none, on disk when this returns.

    Returns:
        How many bytes the journal grew by.

    Raises:
        sqlite3.Error: nothing was kept.
    """
    commits = _to_msgpack([msgspec.Raw(one.changes) for one in group])
    # One statement is its own transaction: one step, for which the other threads are let go on, instead of three.
    connection.execute("INSERT INTO journal (revision, commits) VALUES (?, ?)", (max(one.revision for one in group), commits))
    return len(commits)


def fold(connection: sqlite3.Connection) -> None:
    """Apply the journal to the instances and empty it, in one transaction.

    Raises:
        As `open_file`; the file is as it was.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        pending: dict[str, list[_Row]] = {}
        revision = 0
        for up_to, commits in connection.execute("SELECT revision, commits FROM journal ORDER BY number"):
            revision = max(revision, up_to)
            for changes in _read_commits(commits):
                for row in changes:
                    if row[0] in (_PUT, _DROP):
                        pending[row[1]] = [row]  # whatever was before is void
                    else:
                        pending.setdefault(row[1], []).append(row)
        rows = (row for instance_id in sorted(pending) for row in pending[instance_id])
        for kind, alike in groupby(rows, itemgetter(0)):
            connection.executemany(_STATEMENTS[kind], (row[1:] for row in alike))
        if revision:
            _set_revision(connection, revision)
        connection.execute("DELETE FROM journal")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _lengthen_log(connection: sqlite3.Connection, path: Path) -> None:
    """Let SQLite's log have its full length from the start: an fsync that has no file to lengthen takes half the time."""
    log = Path(f"{path}-wal")
    if not log.exists() or log.stat().st_size >= LOG_BYTES or shutil.disk_usage(path.parent).free < ROOM_BYTES:
        return
    with suppress(sqlite3.Error):  # it is only for speed; what ails the disk, the first commit will tell
        connection.execute("CREATE TABLE IF NOT EXISTS filler (bytes BLOB NOT NULL)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (LOG_BYTES,))
        connection.execute("DROP TABLE filler")
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _rows(change: Change) -> Sequence[_Row]:
    if isinstance(change, Put):
        record, state, since_s, replaced, revision, *_ = change
        instance_id, generation, registered_s = record.instance_id, record.generation, record.registered_s
        _check(generation, revision, since_s, registered_s)
        registration = encode(record.registration)
        row = (_PUT, instance_id, generation, record.registrant, registered_s, registration, state, since_s, record.trusted)
        return [*((_DROP, other) for other in replaced), row] if replaced else (row,)
    if isinstance(change, SetState):
        _check(change.generation, change.revision, change.since_s)
        return ((_STATE, change.instance_id, change.generation, change.state, change.reason, change.since_s),)
    if isinstance(change, Remove):
        _check(change.generation, change.revision)
        return ((_REMOVE, change.instance_id, change.generation),)
    _check(change.generation)
    return ((_KNOWN, change.instance_id, change.generation, _to_json(change.known)),)


def _check(generation: int, revision: int = 0, since_s: float = 0.0, registered_s: float = 0.0) -> None:
    # What the journal takes but the table does not would come to light when it is folded, when it is too late to refuse it.
    if generation > MAX_INTEGER or revision > MAX_INTEGER:
        raise OverflowError(f"{max(generation, revision)} is more than {MAX_INTEGER}")
    if not (-math.inf < since_s < math.inf and -math.inf < registered_s < math.inf):
        raise ValueError("a time that is no number")


def _set_revision(connection: sqlite3.Connection, revision: int) -> None:
    connection.execute(
        "INSERT INTO meta VALUES ('revision', ?) ON CONFLICT (key) DO UPDATE SET value = MAX(CAST(value AS INTEGER), excluded.value)",
        (revision,),
    )


def _load(connection: sqlite3.Connection) -> Stored:
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    instances = tuple(_instance(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM instances ORDER BY generation"))
    revision = int(meta["revision"]) + REVISION_GAP if "revision" in meta else 0
    if revision:
        _set_revision(connection, revision)
    return Stored(meta["epoch"], revision, instances)


def _instance(row: _Row) -> StoredInstance:
    instance_id, generation, registrant, registered_s, registration, state, since_s, reason, known, trusted = row
    record = Record(instance_id, generation, registrant, registered_s, decode(registration, Registration), bool(trusted))
    kept: Known | None = _read_known(known) if known else None
    return StoredInstance(record, State(state), since_s, reason, kept)
