"""SQLite alone: what a disk can do to it, its journal, files of earlier versions. What all stores promise: test_registry_store."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pillion_common.errors import PillionError, StorageFull, Unavailable
from pillion_common.models import ProviderEntry, Registration, State
from pillion_registry.catalog import Record
from pillion_registry.store import journal, sqlite
from pillion_registry.store.base import Acknowledged, Change, Put, Remove, SetState
from pillion_registry.store.memory import MemoryStore
from pillion_registry.store.sqlite import SqliteStore

A = "http://10.0.0.1:80"
LOG = Registration("Log", A, ("Db",), A + "/services", A + "/heartbeat")
KNOWN = {"Db": (ProviderEntry("Db", "http://10.0.0.2:80", "d1", zone="west"),), "Empty": ()}


def a_record(instance_id: str = "i1", generation: int = 1, registration: Registration = LOG) -> Record:
    return Record(instance_id, generation, "10.0.0.9", 1000.5, registration, trusted=True)


def put(instance_id: str = "i1", generation: int = 1, replaced: tuple[str, ...] = (), revision: int = 1) -> Put:
    return Put(a_record(instance_id, generation), State.STARTING, 1000.5, replaced, revision)


async def test_after_close_a_commit_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    await store.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(store.commit([put()]), 5)


async def test_it_keeps_its_promise_to_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    assert store._connection is not None
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_its_log_has_its_full_length_from_the_start_and_is_written_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "r.db-wal"
    for generation in (1, 2):  # closed, SQLite removes it
        store = SqliteStore(tmp_path / "r.db")
        await store.load()
        length = log.stat().st_size
        assert length >= journal.LOG_BYTES
        await store.commit([put(f"i{generation}", generation)])
        assert log.stat().st_size == length  # else it was written on at its end
        await store.close()


async def test_on_a_disk_with_little_room_its_log_stays_as_short_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=64 * 2**20 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    assert (tmp_path / "r.db-wal").stat().st_size < 100_000
    await store.close()


async def test_what_a_crash_left_of_lengthening_the_log_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE filler (bytes BLOB NOT NULL)")
    connection.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
    connection.commit()
    connection.close()
    store = SqliteStore(path)
    assert (await store.load()).instances == ()
    assert store._connection is not None
    assert store._connection.execute("SELECT name FROM sqlite_master WHERE name = 'filler'").fetchall() == []
    await store.close()


async def refused(path: Path) -> str:
    store = SqliteStore(path)
    with pytest.raises(PillionError) as caught:
        await store.load()
    await store.close()
    return caught.value.message


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    message = await refused(tmp_path / "none" / "r.db")
    assert str(tmp_path / "none" / "r.db") in message
    assert "check the folder" in message


async def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"this is not a database" * 1000)
    assert "not a database" in await refused(path)
    assert path.read_bytes() == b"this is not a database" * 1000


def spoil(column: str, value: object) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"UPDATE instances SET {column} = ?", (value,))


@pytest.mark.parametrize(
    "damage",
    [
        spoil("registration", b"not json"),
        spoil("known", b"not json"),
        spoil("state", "asleep"),
        lambda connection: connection.execute("UPDATE meta SET value = 'x' WHERE key = 'revision'"),
    ],
    ids=["registration", "known", "state", "revision"],
)
async def test_a_damaged_row_is_told_with_the_name_of_the_file(tmp_path: Path, damage: Callable[[sqlite3.Connection], object]) -> None:
    path = tmp_path / "r.db"
    store = SqliteStore(path)
    await store.load()
    await store.commit([put()])
    await store.close()
    connection = sqlite3.connect(path)
    damage(connection)
    connection.commit()
    connection.close()
    assert str(path) in await refused(path)


async def test_a_failed_write_is_told_keeps_nothing_of_it_and_the_next_works(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    store = SqliteStore(path)
    await store.load()
    assert store._connection is not None
    await store.commit([put("before", 1)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = Registration("Log", A, metadata={str(n): "x" * 1000 for n in range(60)})
    many = [Put(a_record(f"big{n}", 3 + n, big), State.UP, 1.0, (), 3 + n) for n in range(100)]  # more than the file has pages to spare
    with pytest.raises(StorageFull) as caught:
        await store.commit([Put(a_record("half", 2), State.UP, 1.0, (), 2), *many])
    assert (caught.value.status, caught.value.retry_after_s) == (507, 5)
    store._connection.execute("PRAGMA max_page_count = 100000")
    await store.commit([put("after", 400)])
    await store.close()
    again = SqliteStore(path)
    assert [one.record.instance_id for one in (await again.load()).instances] == ["before", "after"]
    await again.close()


async def test_a_fault_of_the_writer_never_leaves_a_commit_waiting(tmp_path: Path) -> None:
    """A change that cannot be written at all (a number SQLite cannot hold) is refused, and the writer lives on."""
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    with pytest.raises(PillionError):
        await asyncio.wait_for(store.commit([put(generation=2**70)]), 3)
    await asyncio.wait_for(store.commit([put("good", 1)]), 3)
    await store.close()


@pytest.mark.parametrize(
    "bad",
    [
        put("bad", generation=2**70),
        put("bad", generation=2**63),
        put("bad", revision=2**63),
        Put(a_record("bad"), State.UP, math.nan, (), 1),
        SetState("i1", 1, State.DOWN, None, math.inf, 1),
        SetState("i1", 1, State.DOWN, "\ud800", 1.0, 1),
        Put(a_record("bad", registration=Registration("Log", A, zone="\ud800")), State.UP, 1.0, (), 1),
        Remove("i1", 2**63, 1),
        Acknowledged("i1", 2**63, {}),
    ],
)
async def test_a_change_that_cannot_be_kept_is_refused_alone(tmp_path: Path, bad: Change) -> None:
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    commits = [store.commit([put("i1", 1)]), store.commit([put("half", 2), bad]), store.commit([put("i3", 3)])]
    first, second, third = await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 5)
    assert (first, third) == (None, None)
    assert isinstance(second, Unavailable)
    assert second.code == "store_failed"
    await store.close()
    again = SqliteStore(tmp_path / "r.db")
    assert [(one.record.instance_id, one.state) for one in (await again.load()).instances] == [("i1", "starting"), ("i3", "starting")]
    await again.close()


async def test_when_too_much_waits_more_is_refused_and_later_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_WAITING", 2)
    store = SqliteStore(tmp_path / "r.db")
    await store.load()
    commits = [store.commit([put(f"i{n}", n)]) for n in (1, 2, 3)]
    first, second, third = await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 5)
    assert (first, second) == (None, None)
    assert isinstance(third, Unavailable)
    assert third.code == "store_busy"
    await asyncio.wait_for(store.commit([put("i3", 3)]), 5)
    await store.close()


def as_after_a_kill(path: Path, folder: Path) -> Path:
    """Copy the file as kill -9 would leave it."""
    for part in path.parent.glob(path.name + "*"):
        shutil.copy(part, folder / part.name)
    return folder / path.name


def count(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    (rows,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    connection.close()
    return int(rows)


def some_changes(chance: random.Random, length: int) -> list[Change]:
    """Return changes of five instances; some about generations that are past."""
    changes: list[Change] = []
    for number in range(1, length + 1):
        instance_id, other = chance.sample("abcde", 2)
        generation, state, reason = max(1, number - chance.randrange(12)), chance.choice(list(State)), chance.choice([None, "why"])
        match chance.randrange(6):
            case 0 | 1:
                changes.append(put(instance_id, number, chance.choice([(), (other,)]), number))
            case 2:
                changes.append(Remove(instance_id, generation, number))
            case 3:
                changes.append(Acknowledged(instance_id, generation, KNOWN))
            case _:
                changes.append(SetState(instance_id, generation, state, reason, number / 8, number))
    return changes


@pytest.mark.parametrize("fold_bytes", [1, 1500, 10**9], ids=["always", "now and then", "only when opened"])
async def test_after_a_kill_there_is_what_a_memory_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold_bytes: int) -> None:
    monkeypatch.setattr(sqlite, "FOLD_BYTES", fold_bytes)
    for seed in range(8):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        (folder / "copy").mkdir(parents=True)
        store, memory = SqliteStore(folder / "r.db"), MemoryStore()
        await store.load()
        changes = some_changes(chance, 40)
        while changes:
            size = chance.randrange(1, 6)
            await asyncio.gather(*(one.commit(changes[:size]) for one in (store, memory)))
            del changes[:size]
        killed = SqliteStore(as_after_a_kill(folder / "r.db", folder / "copy"))
        kept, expected = await killed.load(), await memory.load()
        assert {one.record.instance_id: one for one in kept.instances} == {one.record.instance_id: one for one in expected.instances}
        assert kept.revision == expected.revision
        await killed.close()
        await store.close()


async def test_the_journal_is_folded_when_it_has_grown_and_when_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.db"
    store = SqliteStore(path)
    await store.load()
    await store.commit([put("i1", 1)])
    assert (count(path, "journal"), count(path, "instances")) == (1, 0)
    monkeypatch.setattr(sqlite, "FOLD_BYTES", 500)
    await store.commit([put("i2", 2), put("i3", 3)])
    await store.commit([put("i4", 4)])  # written after the fold
    assert (count(path, "journal"), count(path, "instances")) == (1, 3)
    await store.close()
    assert (count(path, "journal"), count(path, "instances")) == (0, 4)


async def test_a_journal_that_cannot_be_folded_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    path = tmp_path / "r.db"
    store = SqliteStore(path)
    await store.load()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "FOLD_BYTES", 1)
        patched.setattr(journal, "fold", no_room)
        await store.commit([put("i1", 1)])
        await asyncio.wait_for(store.commit([put("i2", 2)]), 5)
        await store.close()
    assert (count(path, "journal"), count(path, "instances")) == (2, 0)
    again = SqliteStore(path)
    assert [one.record.instance_id for one in (await again.load()).instances] == ["i1", "i2"]
    assert (count(path, "journal"), count(path, "instances")) == (0, 2)
    await again.close()


async def test_a_fold_that_fails_midway_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection, _ = journal.open_file(path)
    journal.append(connection, [journal.prepare([put("i1", 1), put("i2", 2)])])
    connection.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON instances WHEN new.id = 'i2' BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.Error, match="full"):
        journal.fold(connection)
    assert (count(path, "journal"), count(path, "instances")) == (1, 0)
    connection.execute("DROP TRIGGER full")
    journal.fold(connection)
    assert (count(path, "journal"), count(path, "instances")) == (0, 2)
    connection.close()


@pytest.mark.parametrize("commits", [b"not msgpack", b"\x93\x01\x02\x03", b"\x91\x91\x92\x63\xa1x", b"\x91\x91\x90"])
async def test_a_damaged_journal_is_told_with_the_name_of_the_file(tmp_path: Path, commits: bytes) -> None:
    path = tmp_path / "r.db"
    connection, _ = journal.open_file(path)
    connection.execute("INSERT INTO journal (revision, commits) VALUES (1, ?)", (commits,))
    connection.close()
    message = await refused(path)
    assert f"{path} is damaged" in message
    assert count(path, "journal") == 1


async def test_a_file_of_the_time_before_the_journal_is_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        PRAGMA journal_mode=WAL;
        CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
        CREATE TABLE instances (
            id TEXT PRIMARY KEY, generation INTEGER NOT NULL, registrant TEXT NOT NULL, registered_s REAL NOT NULL,
            registration BLOB NOT NULL, state TEXT NOT NULL, since_s REAL NOT NULL, reason TEXT, known BLOB, trusted INTEGER NOT NULL
        ) WITHOUT ROWID;
        INSERT INTO meta VALUES ('epoch', '00112233aabbccdd'), ('revision', 41);
        INSERT INTO instances VALUES
            ('i1', 7, '10.0.0.9', 1000.5, CAST('{"ServiceName":"Log","ServiceURL":"http://10.0.0.1:80","Zone":"ost"}' AS BLOB),
             'down', 2000.25, 'refused', CAST('{"Db":[{"Name":"Db","URL":"http://10.0.0.2:80"}]}' AS BLOB), 1);
        """
    )
    connection.close()
    store = SqliteStore(path)
    stored = await store.load()
    assert (stored.epoch, stored.revision) == ("00112233aabbccdd", 10_041)
    (one,) = stored.instances
    assert one.record == Record("i1", 7, "10.0.0.9", 1000.5, Registration("Log", A, zone="ost"), trusted=True)
    assert (one.state, one.since_s, one.reason) == (State.DOWN, 2000.25, "refused")
    assert one.known == {"Db": (ProviderEntry("Db", "http://10.0.0.2:80"),)}
    await store.commit([SetState("i1", 7, State.UP, None, 3000.0, 10_042), put("i2", 8, revision=10_043)])
    await store.close()
    again = SqliteStore(path)
    stored = await again.load()
    assert stored.revision == 20_043
    assert [(one.record.instance_id, one.state) for one in stored.instances] == [("i1", "up"), ("i2", "starting")]
    await again.close()
