"""The journal's SQLite file. One row holds a batch of events, so that appending costs little; now and then a snapshot of all instances goes
between, so that the catalogue of any moment is the snapshot before it and the events since. Retention takes whole stretches away, each from
one snapshot to the next, oldest first. Used by one thread at a time; every method may raise sqlite3.Error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pillion_common.logs import EventLog
from pillion_registry.events import STATELESS, Event

_log = EventLog("history")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, to_s REAL NOT NULL, events BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshots (number INTEGER PRIMARY KEY, time_s REAL NOT NULL, instances BLOB NOT NULL);
"""
_SNAPSHOTS = "SELECT number, time_s, LENGTH(instances) FROM snapshots ORDER BY number"
_SIZE = "SELECT (SELECT TOTAL(LENGTH(events)) FROM batches) + (SELECT TOTAL(LENGTH(instances)) FROM snapshots)"
_NEWEST = "SELECT MAX((SELECT IFNULL(MAX(last), 0) FROM batches), (SELECT IFNULL(MAX(number), 0) FROM snapshots))"
# SQLite looks for the name in a batch's bytes: most need not be read any further. All hold an empty one.
_BATCHES = "SELECT events FROM batches WHERE last > ? AND first <= ? AND to_s >= ? AND instr(events, ?) > 0 ORDER BY last "
_NO_END = 2**63 - 1

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Event]).decode


class Wanted(NamedTuple):
    """What a reader asks for; None is no matter. Without a `since` it is the newest, else the first after it."""

    since_number: int | None = None
    since_s: float | None = None
    name: str | None = None
    limit: int = 100

    @property
    def newest(self) -> bool:
        """Return whether the newest are wanted."""
        return self.since_number is None and self.since_s is None

    def fits(self, event: Event) -> bool:
        """Return whether an event is among it."""
        return (
            self.name in (None, event.service)
            and (self.since_number is None or event.number > self.since_number)
            and (self.since_s is None or event.time_s >= self.since_s)
        )

    def cut(self, events: list[Event]) -> list[Event]:
        """Return no more than the limit."""
        return events[-self.limit :] if self.newest else events[: self.limit]


class HistoryFile:
    """Events and snapshots in a file.

    Args:
        path: None keeps them in memory.
        max_bytes: most that is kept, about.
        max_age_s: how long it is kept, at least.
    """

    def __init__(self, path: Path | None, max_bytes: int, max_age_s: float) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._connection: sqlite3.Connection | None = None

    def open(self, now_s: float) -> int:
        """Open the file, and return the number of its newest event.

        One that cannot be read is put aside, one that cannot be made is done without: a registry does not fail for its journal.
        """
        try:
            return self._open(self._path)
        except sqlite3.Error as exc:
            aside = f"{self._path}.damaged-{now_s:.0f}"
            _log.warning("journal_damaged", f"the journal of events {self._path} cannot be read: {exc}; it is put aside as {aside}")
            for tail in ("", "-wal", "-shm"):
                with suppress(OSError):
                    Path(f"{self._path}{tail}").rename(f"{aside}{tail}")
        try:
            return self._open(self._path)
        except sqlite3.Error as exc:
            _log.warning("journal_failed", f"the journal of events {self._path} cannot be made: {exc}; events are kept in memory alone")
            return self._open(None)

    def append(self, events: list[Event]) -> int:
        """Keep events that come after all others; return how many bytes they took."""
        data = encode(events)
        self._run("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", events[-1].number, events[0].number, events[-1].time_s, data)
        return len(data)

    def keep_snapshot(self, number: int, time_s: float, data: bytes) -> None:
        """Keep a snapshot of all instances after an event, and take away what is over."""
        self._run("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", number, time_s, data)
        self._retain(time_s - self._max_age_s)

    def select(self, wanted: Wanted) -> list[Event]:
        """Return events in the order they happened."""
        found: list[Event] = []
        for batch in self._batches(wanted.since_number or 0, _NO_END, wanted.since_s or 0.0, wanted.name, newest_first=wanted.newest):
            fitting = [event for event in batch if wanted.fits(event)]
            found = fitting + found if wanted.newest else found + fitting
            if len(found) >= wanted.limit:
                break
        return wanted.cut(found)

    def known_from(self) -> float | None:
        """Return the time from which on the past is known; None before the first snapshot."""
        rows = self._run("SELECT time_s FROM snapshots ORDER BY number LIMIT 1")
        return float(rows[0][0]) if rows else None

    def at(self, name: str, time_s: float) -> list[Event] | None:
        """Return the last event of each instance of a service that was there at a moment; None if that is too long ago."""
        rows = self._run("SELECT number, instances FROM snapshots WHERE time_s <= ? ORDER BY number DESC LIMIT 1", time_s)
        if not rows:
            return None
        number, instances = rows[0]
        (end,) = self._run("SELECT IFNULL(MIN(number), ?) FROM snapshots WHERE number > ?", _NO_END, number)[0]
        there = {event.instance_id: event for event in _decode(instances) if event.service == name}
        for batch in self._batches(number, end, 0.0, name):
            _follow(there, (e for e in batch if number < e.number <= end and e.time_s <= time_s and e.service == name))
        return list(there.values())

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self, path: Path | None) -> int:
        connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            (newest,) = connection.execute(_NEWEST).fetchone()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return int(newest)

    def _retain(self, before_s: float) -> None:
        """Take away the stretches that ended before a time, and the oldest while there is too much."""
        size = self._run(_SIZE)[0][0]
        for (number, _, length), (end, end_s, _) in pairwise(
            self._run("SELECT number, time_s, LENGTH(instances) FROM snapshots ORDER BY number")
        ):
            if end_s > before_s and size <= self._max_bytes:
                return
            size -= length + self._run("SELECT TOTAL(LENGTH(events)) FROM batches WHERE last <= ?", end)[0][0]
            self._run("DELETE FROM batches WHERE last <= ?", end)
            self._run("DELETE FROM snapshots WHERE number = ?", number)

    def _batches(self, after: int, up_to: int, since_s: float, name: str | None, newest_first: bool = False) -> Iterator[list[Event]]:
        rows = self._cursor(_BATCHES + ("DESC" if newest_first else "ASC"), after, up_to, since_s, (name or "").encode())
        return (_decode(events) for (events,) in rows)

    def _run(self, statement: str, *parameters: Any) -> list[Any]:
        return self._cursor(statement, *parameters).fetchall()

    def _cursor(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if self._connection is None:
            raise sqlite3.OperationalError("it is closed")
        return self._connection.execute(statement, parameters)


def _follow(there: dict[str, Event], events: Iterable[Event]) -> None:
    for event in events:
        if event.kind in STATELESS:
            continue
        if event.state is None:
            there.pop(event.instance_id, None)
        else:
            there[event.instance_id] = event
