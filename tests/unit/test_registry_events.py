"""What is recorded of a transition, and who hears of it."""

from __future__ import annotations

import asyncio

from pillion_common.models import Registration, State
from pillion_registry import events
from pillion_registry.catalog import Catalog, Instance, Record, Transition
from pillion_registry.events import Event, Events


def transition(revision: int, before: State | None = None, after: State | None = State.UP, reason: str | None = None) -> Transition:
    url = "http://10.0.0.7:6000"
    record = Record("Db-1", 1, "10.0.0.7", 5.0, Registration("Db", url, heartbeat_url=url))
    return Transition(Instance(record, after or State.DOWN, 5.0), before, after, reason, revision)


def test_an_event_says_who_what_when_and_why_and_is_passed_on_at_once() -> None:
    heard: list[Event] = []
    all_events = Events(lambda: 12.5)
    all_events.begin(40, 7)
    all_events.listen(heard.append)
    all_events.record(transition(8, State.UP, State.DOWN, "connection refused"), events.DOWN, "ann at 10.0.0.9")
    assert heard == [
        Event(41, 12.5, 8, "down", "Db", "Db-1", "http://10.0.0.7:6000", "down", "up", "connection refused", "ann at 10.0.0.9"),
    ]


def test_a_registration_in_the_same_words_is_a_change_for_watchers_and_no_event() -> None:
    heard: list[Event] = []
    all_events = Events(lambda: 12.5)
    all_events.listen(heard.append)
    all_events.record(transition(1, State.UP, State.UP), events.RENEWED)
    assert heard == []
    assert [change[0].kind for change in all_events.changes_since(0) or []] == ["renewed"]


def test_changes_and_events_after_a_place_are_found_until_they_are_too_old() -> None:
    all_events = Events(lambda: 12.5)
    all_events.begin(100, 1000)
    for number in range(1, 2049):
        all_events.record(transition(1000 + number), events.UP)
    assert [change[0].revision for change in all_events.changes_since(3045) or []] == [3046, 3047, 3048]
    assert [event.number for event in all_events.events_since(2146) or []] == [2147, 2148]
    assert all_events.changes_since(3048) == []
    assert all_events.events_since(2148) == []
    assert len(all_events.changes_since(1000) or []) == 2048
    assert len(all_events.events_since(100) or []) == 2048
    all_events.record(transition(3049), events.UP)
    assert all_events.changes_since(1000) is None
    assert all_events.events_since(100) is None
    assert len(all_events.changes_since(1001) or []) == 2048


def test_what_happened_before_the_start_is_not_known() -> None:
    all_events = Events(lambda: 12.5)
    all_events.begin(100, 1000)
    assert all_events.changes_since(999) is None
    assert all_events.changes_since(1000) == []
    assert all_events.events_since(99) is None


async def test_the_bell_wakes_all_who_wait_and_leaves_nothing_of_those_who_gave_up() -> None:
    bell = events.Bell()
    assert await bell.wait(0.001) is False
    assert bell._waiting == {}
    waiting = [asyncio.create_task(bell.wait(5)) for _ in range(3)]
    await asyncio.sleep(0)
    bell.ring()
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_a_reader_who_leaves_wakes_nobody_else() -> None:
    bell, reader = events.Bell(), events.Reader()
    leaving, staying = asyncio.create_task(bell.wait(5, reader)), asyncio.create_task(bell.wait(0.05))
    await asyncio.sleep(0)
    reader.leave()
    assert await leaving is True
    assert reader.gone
    assert await staying is False
    assert bell._waiting == {}


def test_every_transition_of_the_catalogue_carries_its_own_revision() -> None:
    catalog = Catalog(10)
    url = "http://10.0.0.7:6000"
    for instance_id in ("a", "b"):
        given = Registration("Db", url, heartbeat_url=url, instance_id=instance_id)
        told = catalog.accept(catalog.decide(given, "10.0.0.7", 1.0))
    assert [(one.instance.record.instance_id, one.after, one.revision) for one in told] == [("a", None, 2), ("b", "starting", 3)]
