"""The watch over the engine: what is heard is acted on at once, what is not heard is found out, and a silent engine changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_engine import FakeEngine, container_id, fake_engine

from pillion_common.errors import PeerUnreachable
from pillion_sidecar.agent import watch as watch_module
from pillion_sidecar.agent.containers import Container, Listed
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.settings import EngineAddress
from pillion_sidecar.agent.watch import Watch

LABELS = {"pillion.dev/name": "Web", "pillion.dev/port": "80"}
LONG_S = 600.0
A, B, C = (container_id(number) for number in (1, 2, 3))


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF_BASE_S", 0.02)
    monkeypatch.setattr(watch_module, "BACKOFF_CAP_S", 0.05)


class Seen:
    """A watch and what it told."""

    def __init__(self, fake: FakeEngine, resync_s: float) -> None:
        self.pictures: list[dict[str, Container]] = []
        self.listed: Mapping[str, Listed] = {}
        self.dead: list[str] = []
        self.signals: list[tuple[str, int]] = []
        self.watch = Watch(
            Engine(EngineAddress(path=str(fake.path))),
            resync_s=resync_s,
            only=(),
            on_picture=self._picture,
            on_dead=self.dead.append,
            on_signal=lambda one, number: self.signals.append((one, number)),
        )

    def _picture(self, containers: Mapping[str, Container], listed: Mapping[str, Listed]) -> None:
        self.pictures.append(dict(containers))
        self.listed = dict(listed)

    @property
    def names(self) -> list[str]:
        return sorted(container.name for container in self.pictures[-1].values()) if self.pictures else []


@asynccontextmanager
async def watching(fake: FakeEngine, resync_s: float = LONG_S) -> AsyncIterator[Seen]:
    seen = Seen(fake, resync_s)
    tasks = [asyncio.create_task(seen.watch.follow()), asyncio.create_task(seen.watch.look())]
    try:
        await until(lambda: seen.pictures and fake.streams and not seen.watch.fault)
        if resync_s == LONG_S:
            await _quiet(fake)
        yield seen
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def _quiet(fake: FakeEngine) -> None:
    """Wait until the look that follows the opening of the stream is over."""
    before = -1
    while len(fake.asked) != before:
        before = len(fake.asked)
        await asyncio.sleep(0.1)


async def until(look: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)


async def test_what_runs_already_is_seen(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    fake.run(2, "plain", labels={"x": "y"}, networks={"n": "10.0.0.2"})
    async with watching(fake) as seen:
        assert seen.names == ["web"]
        assert seen.listed[B].addresses == {"n": "10.0.0.2"}


async def test_starts_and_changes_are_seen_as_they_are_told(fake: FakeEngine) -> None:
    async with watching(fake) as seen:
        fake.run(1, "web", labels=LABELS, health="starting")
        await until(lambda: seen.names == ["web"])
        fake.change(A, "health_status: healthy", Health={"Status": "healthy"})
        await until(lambda: seen.pictures[-1][A].health == "healthy")
        fake.change(A, "pause", Paused=True)
        await until(lambda: seen.pictures[-1][A].paused)


async def test_one_event_costs_one_inspection_and_no_list(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    fake.run(2, "other", labels=LABELS)
    async with watching(fake) as seen:
        fake.asked.clear()
        fake.change(A, "pause", Paused=True)
        await until(lambda: seen.pictures[-1][A].paused)
        await asyncio.sleep(0.05)
        assert fake.asked == [f"/containers/{A}/json"]


async def test_a_death_is_told_before_anything_is_asked(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        fake.delays_s[f"/containers/{A}/json"] = 0.3
        fake.end(A)
        await until(lambda: seen.dead, within_s=0.25)
        await until(lambda: seen.names == [])
        assert seen.listed == {}
    assert seen.dead == [A]


async def test_the_signal_that_stops_a_container_is_told_at_once(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        fake.tell(A, "kill", signal="15")
        await until(lambda: seen.signals)
        assert seen.signals == [(A, 15)]
        fake.tell(A, "kill", signal="x")
        fake.tell(A, "kill")
        fake.tell(B, "kill", signal="9")
        await until(lambda: len(seen.signals) == 2)
        assert seen.signals[1] == (B, 9)


async def test_what_was_seen_before_it_died_does_not_bring_it_back(fake: FakeEngine) -> None:
    async with watching(fake) as seen:
        fake.delays_s[f"/containers/{A}/json"] = 0.1  # the look for its start is under way as it dies
        shown = fake.run(1, "web", labels=LABELS)
        await until(lambda: f"/containers/{A}/json" in fake.asked)
        fake.forced[f"/containers/{A}/json"] = (200, json.dumps(fake.containers[shown]).encode())
        fake.tell(A, "die")
        await until(lambda: seen.dead)
        del fake.forced[f"/containers/{A}/json"]
        fake.end(A)
        await asyncio.sleep(0.3)
        assert all(A not in picture for picture in seen.pictures)


async def test_events_that_were_lost_are_made_up_for_by_the_next_look_at_everything(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake, resync_s=0.1) as seen:
        fake.run(2, "late", labels=LABELS, event=False)
        await until(lambda: seen.names == ["late", "web"])
        fake.end(A, event=False)
        await until(lambda: seen.names == ["late"])


async def test_what_happened_while_no_events_came_is_found_out_as_they_come_again(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        fake.end(A, event=False)
        fake.run(2, "late", labels=LABELS, event=False)
        fake.cut()
        await until(lambda: seen.names == ["late"])
        assert seen.watch.streams_opened == 2
        assert seen.watch.fault == ""


async def test_an_event_that_cannot_be_read_makes_it_look_at_everything(fake: FakeEngine) -> None:
    async with watching(fake) as seen:
        fake.run(1, "web", labels=LABELS, event=False)
        fake.send(b'{"Action":"die","Type":"container","Actor":7}\n')
        await until(lambda: seen.names == ["web"])
        fake.end(A, event=False)
        fake.send(b"garbage\n")
        await until(lambda: seen.names == [])


async def test_a_container_that_joins_a_network_is_looked_at(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        fake.containers[A]["NetworkSettings"]["Networks"] = {"n": {"IPAddress": "10.0.0.9"}}
        event = {"Type": "network", "Action": "connect", "Actor": {"ID": "n", "Attributes": {"container": A}}}
        fake.send(json.dumps(event).encode() + b"\n")
        await until(lambda: seen.pictures[-1][A].addresses == {"n": "10.0.0.9"})


async def test_an_engine_that_goes_leaves_everything_as_it_was_and_is_found_again(
    fake: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        before = len(seen.pictures)
        fake.down()
        await until(lambda: seen.watch.fault)
        assert "is not there" in seen.watch.fault
        await asyncio.sleep(0.2)
        assert len(seen.pictures) == before
        assert seen.dead == []
        fake.run(2, "late", labels=LABELS, event=False)
        fake.up()
        await until(lambda: seen.names == ["late", "web"] and not seen.watch.fault)
    assert [record.message for record in caplog.records if "no events from the engine" in record.message][1:] == []


async def test_an_engine_that_gives_no_events_is_looked_at_more_often(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BLIND_RESYNC_S", 0.05)
    async with watching(fake) as seen:
        fake.forced["/events"] = (403, b"")
        fake.cut()
        await until(lambda: seen.watch.fault)
        assert "GET /events is forbidden" in seen.watch.fault
        fake.run(1, "web", labels=LABELS, event=False)
        await until(lambda: seen.names == ["web"])


async def test_an_engine_that_shows_rubbish_leaves_everything_as_it_was(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake, resync_s=0.05) as seen:
        fake.forced["/containers/json"] = (200, b"rubbish")
        await until(lambda: "is not JSON" in seen.watch.fault)
        assert seen.names == ["web"]
        del fake.forced["/containers/json"]
        await until(lambda: not seen.watch.fault)
        assert seen.names == ["web"]


async def test_one_inspection_that_fails_is_made_up_for(fake: FakeEngine) -> None:
    fake.run(1, "web", labels=LABELS)
    async with watching(fake) as seen:
        path = f"/containers/{A}/json"
        fake.forced[path] = (500, b"busy")
        fake.change(A, "pause", Paused=True)
        await until(lambda: "answered 500" in seen.watch.fault)
        assert not seen.pictures[-1][A].paused
        del fake.forced[path]
        await until(lambda: seen.pictures[-1][A].paused)


async def test_containers_that_say_nothing_are_inspected_once(fake: FakeEngine) -> None:
    fake.run(1, "plain", labels={"x": "y"})
    fake.run(2, "web", labels={}, environ={"SERVICE_NAME": "web"})
    async with watching(fake, resync_s=0.05) as seen:
        await until(lambda: fake.asked.count("/containers/json") >= 5)
        assert seen.names == ["web"]
        assert fake.asked.count(f"/containers/{A}/json") <= 2  # a look may be under way as its event comes
        assert fake.asked.count(f"/containers/{B}/json") >= 4


async def test_a_storm_of_events_is_looked_at_together(fake: FakeEngine) -> None:
    async with watching(fake) as seen:
        fake.asked.clear()
        for number in range(1, 201):
            fake.run(number, f"web-{number:03}", labels=LABELS)
        await until(lambda: len(seen.names) == 200)
        assert len(fake.asked) <= 250
        assert len(seen.pictures) < 100


async def test_hints_without_number_become_one_look_at_everything(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MAX_HINTS", 3)
    async with watching(fake) as seen:
        fake.asked.clear()
        fake.run(1, "web", labels=LABELS, event=False)
        for number in range(10, 20):
            fake.tell(container_id(number), "start")
        await until(lambda: seen.names == ["web"])
        assert "/containers/json" in fake.asked


async def test_looking_once_says_what_keeps_it_from_looking(tmp_path: Path) -> None:
    seen = Seen(FakeEngine(tmp_path / "none.sock"), LONG_S)
    with pytest.raises(PeerUnreachable):
        await seen.watch.look_once()
    assert seen.pictures == []
