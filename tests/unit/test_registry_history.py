"""The journal on disk: what was, who was there, what is taken away, and what a fault of the disk costs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pillion_registry import history as history_module
from pillion_registry.events import Event
from pillion_registry.history import History
from pillion_registry.history_file import HistoryFile, Wanted


def event(
    number: int, kind: str = "up", name: str = "Db", instance: str = "db1", time_s: float | None = None, state: str | None = "up"
) -> Event:
    return Event(number, float(number) if time_s is None else time_s, number, kind, name, instance, f"http://10.0.0.7/{instance}", state)


class Lab:
    """A history whose clock stands where it was put, and whose instances are what it is told."""

    def __init__(self, path: Path | None, max_bytes: int = 2**20, max_age_s: float = 1000.0) -> None:
        self.now = 100.0
        self.present: list[Event] = []
        self.history = History(path, max_bytes, max_age_s, lambda: self.present, lambda: self.now)

    async def start(self) -> int:
        number = await self.history.load()
        self.history.begin()
        return number

    def keep(self, *events: Event) -> None:
        for one in events:
            self.history.keep(one)

    async def numbers(self, **wanted: object) -> list[int]:
        return [one.number for one in await self.history.select(Wanted(**wanted))]  # type: ignore[arg-type]

    async def states(self, name: str, time_s: float) -> dict[str, str | None] | None:
        found = await self.history.at(name, time_s)
        return None if found is None else {one.instance_id: one.state for one in found}


@pytest.fixture(params=["file", "memory"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path / "registry-events.db" if request.param == "file" else None)
    await lab.start()
    yield lab
    await lab.history.close()


async def test_the_newest_are_found_and_those_after_a_number_or_a_time_also_before_they_are_written(lab: Lab) -> None:
    lab.keep(*(event(n, name="Db" if n % 2 else "Shop") for n in range(1, 11)))
    for _ in range(2):
        assert await lab.numbers(limit=3) == [8, 9, 10]
        assert await lab.numbers(since_number=4, limit=3) == [5, 6, 7]
        assert await lab.numbers(since_s=9.0) == [9, 10]
        assert await lab.numbers(name="Shop", limit=2) == [8, 10]
        assert await lab.numbers(name="Shop", since_number=2, limit=2) == [4, 6]
        assert await lab.numbers(name="Nobody") == []
        await lab.history._flush()


async def test_who_was_there_is_answered_for_every_moment_since_the_start(lab: Lab) -> None:
    lab.keep(event(1, "started", name="", instance="", state=None))
    lab.now = 200.0
    lab.present = [event(0, "present", instance="old")]
    lab.history.begin()
    lab.keep(
        event(2, "registered", time_s=210.0, state="starting"),
        event(3, "up", time_s=211.0),
        event(4, "down", time_s=220.0, state="down"),
        event(5, "left", instance="old", time_s=230.0, state=None),
        event(6, "up", name="Shop", instance="shop", time_s=205.0),
    )
    assert await lab.states("Db", 99.0) is None
    assert await lab.states("Db", 150.0) == {}
    assert await lab.states("Db", 209.0) == {"old": "up"}
    assert await lab.states("Db", 210.5) == {"old": "up", "db1": "starting"}
    assert await lab.states("Db", 215.0) == {"old": "up", "db1": "up"}
    assert await lab.states("Db", 225.0) == {"old": "up", "db1": "down"}
    assert await lab.states("Db", 1e9) == {"db1": "down"}
    assert await lab.states("Shop", 204.0) == {}


async def test_questions_at_the_same_time_write_what_waits_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    append = HistoryFile.append
    monkeypatch.setattr(HistoryFile, "append", lambda self, events: [written.extend(e.number for e in events), append(self, events)][1])
    lab.present = [event(0, "present")]
    lab.keep(*(event(n) for n in range(1, 2501)))
    asking = [asyncio.create_task(lab.states("Db", 1e9)) for _ in range(5)]
    await asyncio.sleep(0)
    lab.keep(*(event(n) for n in range(2501, 3001)))
    assert await asyncio.gather(*asking) == [{"db1": "up"}] * 5
    await lab.history._flush()
    assert written == list(range(1, 3001))
    assert await lab.numbers(since_number=0, limit=5000) == list(range(1, 3001))


async def test_it_goes_on_after_a_restart_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "registry-events.db"
    first = Lab(path)
    assert await first.start() == 0
    first.keep(event(1), event(2))
    await first.history._flush()  # and no close: as after kill -9
    second = Lab(path)
    assert await second.start() == 2
    second.keep(event(3))
    assert await second.numbers() == [1, 2, 3]
    await second.history.close()
    await first.history.close()
    third = Lab(path)
    assert await third.start() == 3
    await third.history.close()


@pytest.mark.parametrize("cut", [1, 100, 4096, 5000])
async def test_a_file_that_was_torn_is_read_as_far_as_it_is_whole_or_put_aside(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "registry-events.db"
    lab = Lab(path)
    await lab.start()
    lab.keep(*(event(n) for n in range(1, 2001)))
    await lab.history._flush()
    log = Path(f"{path}-wal")
    torn = tmp_path / "torn.db"
    torn.write_bytes(path.read_bytes())
    Path(f"{torn}-wal").write_bytes(log.read_bytes()[:-cut])
    await lab.history.close()
    again = Lab(torn)
    newest = await again.start()
    assert 0 <= newest <= 2000
    assert await again.numbers(since_number=0, limit=5000) == list(range(1, newest + 1))
    again.keep(event(newest + 1))
    assert (await again.numbers(limit=1)) == [newest + 1]
    await again.history.close()


async def test_a_file_that_is_none_is_put_aside_and_the_registry_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "registry-events.db"
    path.write_bytes(b"not a database at all " * 500)
    lab = Lab(path)
    assert await lab.start() == 0
    lab.keep(event(1))
    assert await lab.numbers() == [1]
    await lab.history.close()
    assert (tmp_path / "registry-events.db.damaged-100").read_bytes().startswith(b"not a database")


async def test_where_no_file_can_be_made_events_are_kept_in_memory(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "no" / "folder" / "registry-events.db")
    assert await lab.start() == 0
    lab.keep(event(1))
    assert await lab.numbers() == [1]
    await lab.history.close()


async def test_what_is_too_old_goes_and_what_is_left_is_answered_rightly(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "registry-events.db", max_age_s=80.0)
    await lab.start()
    for number in range(1, 31):
        lab.now = 100.0 + 10 * number
        lab.present = [event(0, "present", instance="always")]
        lab.keep(event(number, time_s=lab.now))
        await lab.history._flush()
    numbers = await lab.numbers(since_number=0, limit=1000)
    assert numbers == list(range(numbers[0], 31))
    assert 20 <= numbers[0] <= 23  # 80 s of events at 10 s each, and at most a stretch more
    known_from = await lab.history.known_from()
    assert await lab.states("Db", known_from - 0.1) is None
    assert await lab.states("Db", known_from) == {"always": "up"}
    assert await lab.states("Db", lab.now) == {"always": "up"}  # the last event is in the snapshot after it
    await lab.history.close()


async def test_the_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "registry-events.db"
    lab = Lab(path, max_bytes=2**19, max_age_s=1e6)
    await lab.start()
    for number in range(1, 40_001):
        lab.keep(event(number))
        if number % 1000 == 0:
            await lab.history._flush()
    numbers = await lab.numbers(since_number=0, limit=100_000)
    assert numbers[-1] == 40_000
    assert 5_000 < len(numbers) < 12_000
    await lab.history.close()
    assert path.stat().st_size < 2 * 2**19


async def test_a_disk_that_fails_costs_nobody_anything_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_PENDING", 5)
    lab = Lab(None)
    await lab.start()
    works = HistoryFile.append

    def fails(self: HistoryFile, events: list[Event]) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(HistoryFile, "append", fails)
    lab.keep(*(event(n) for n in range(1, 9)))
    await lab.history._flush()
    monkeypatch.setattr(HistoryFile, "append", works)
    await lab.history._flush()
    kept = await lab.history.select(Wanted())
    assert [(one.number, one.kind) for one in kept] == [(1, "up"), (2, "up"), (3, "up"), (4, "up"), (5, "up"), (5, "lost")]
    assert kept[-1].reason == "3 events were not kept: the journal could not be written for too long"
    assert lab.history.dropped == 3
    await lab.history.close()


async def test_an_event_is_on_disk_a_moment_later_without_being_asked_for(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "registry-events.db")
    await lab.start()
    lab.keep(event(1))
    await asyncio.sleep(0.3)
    assert lab.history._pending == []
    await lab.history.close()


async def test_what_happens_after_the_end_is_passed_over_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A registry on NATS still hears of others while it finishes its writes."""
    lab = Lab(tmp_path / "registry-events.db")
    await lab.start()
    lab.keep(event(1))
    await lab.history.close()
    lab.keep(event(2))
    await asyncio.sleep(2 * history_module.GATHER_S)
    assert caplog.records == []
    again = Lab(tmp_path / "registry-events.db")
    assert await again.start() == 1
    await again.history.close()
