"""What the end of a check makes of an instance, all rules together: guard, patience, warm-up, flap damping."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pillion_common import config
from pillion_common.models import Registration, State
from pillion_registry.catalog import Catalog, Instance, Record
from pillion_registry.events import Event, Events
from pillion_registry.health import Health
from pillion_registry.settings import PROGRAM, Settings
from pillion_registry.views import view

NOON = 1_700_000_000.0
SILENT = "did not answer within 2 s"


def config_of(**given: str) -> Settings:
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    return config.load(Settings, PROGRAM, ["--store", "memory:", *words], {}, "")


class Lab:
    """A catalogue with instances that are up, and clocks that stand where they were put."""

    def __init__(self, count: int, name: str = "A", restarted: bool = False, **settings: str) -> None:
        self.now = 1000.0
        self.catalog = Catalog(10_000)
        self.journal = Events(self.time)
        self.told: list[Event] = []
        self.journal.listen(self.told.append)
        self.asked: list[str] = []
        self.health = Health(self.catalog, config_of(**settings), self.journal, self.ask, self.time, lambda: self.now)
        records = [self.record(number, name) for number in range(count)]
        self.catalog.restore(((record, State.UP, NOON, None) for record in records), 1)
        if restarted:
            self.health.begin(1.0)
        else:
            for instance in self.catalog:
                self.health.passed(instance)

    def record(self, number: int, name: str) -> Record:
        url = f"http://10.0.0.{number % 250}:{number}"
        return Record(f"{name}{number}", number, "10.0.0.1", 1.0, Registration(name, url, heartbeat_url=url))

    def time(self) -> float:
        return NOON + self.now

    def ask(self, ids: Iterable[str]) -> None:
        self.asked += ids

    def miss(self, count: int, name: str = "A", first: int = 0) -> None:
        for number in range(first, first + count):
            self.health.missed(self.instance(f"{name}{number}"), SILENT)

    def instance(self, instance_id: str) -> Instance:
        found = self.catalog.get(instance_id)
        assert found is not None
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, as the registry's task sees it."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.health.tick()

    @property
    def down(self) -> int:
        return sum(instance.state is State.DOWN for instance in self.catalog)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.told]


@pytest.fixture
def lab() -> Lab:
    return Lab(10)


def silence_twice(lab: Lab, count: int) -> None:
    lab.miss(count)
    lab.now += 2.2
    lab.miss(count)


def test_few_that_fall_silent_are_withdrawn(lab: Lab) -> None:
    silence_twice(lab, 2)
    assert lab.down == 2
    assert lab.instance("A0").reason == f"{SILENT} (2 times in a row)"
    assert lab.kinds() == []


def test_many_that_fall_silent_at_once_are_kept_as_suspect_with_reason_and_end(lab: Lab) -> None:
    silence_twice(lab, 6)
    assert lab.down == 0
    assert len(lab.catalog.providers("A").entries) == 10
    shown = view(lab.instance("A5"))
    assert (shown.state, shown.reason) == (State.UP, None)
    assert shown.suspect == f"{SILENT}; kept by the guard: 5 of 10 instances of A time out within 3 s"
    assert shown.suspect_until == "2023-11-14T22:31:00.000Z"
    (event,) = lab.told
    assert (event.kind, event.service, event.instance_id) == ("guard on", "A", "")
    assert event.reason == "5 of 10 instances of A time out within 3 s: they are kept for 60 s at most"


def test_when_one_falls_silent_all_others_of_its_service_are_asked(lab: Lab) -> None:
    lab.miss(1)
    assert lab.asked == [f"A{number}" for number in range(1, 10)]


def test_even_if_one_miss_is_enough_a_single_one_waits_for_the_others() -> None:
    lab = Lab(10, heartbeat_misses="1")
    lab.miss(6)
    assert lab.down == 0
    assert lab.kinds() == ["guard on"]


def test_who_answers_again_is_no_suspect(lab: Lab) -> None:
    silence_twice(lab, 6)
    lab.health.passed(lab.instance("A0"))
    assert view(lab.instance("A0")).suspect is None
    assert lab.instance("A0").state is State.UP


def test_a_refused_connection_is_never_guarded(lab: Lab) -> None:
    silence_twice(lab, 6)
    lab.health.failed(lab.instance("A0"), "connection refused")
    assert lab.instance("A0").state is State.DOWN
    for number in range(1, 10):
        lab.health.failed(lab.instance(f"A{number}"), "connection refused")
    assert lab.down == 10


def test_after_the_guards_time_those_still_silent_are_withdrawn_and_the_reason_says_so(lab: Lab) -> None:
    silence_twice(lab, 6)
    for _ in range(28):
        lab.wait(2)
        lab.miss(6)
    assert lab.down == 0
    lab.wait(2)
    lab.miss(6)
    assert lab.down == 6
    gone = lab.instance("A0")
    assert gone.reason == f"{SILENT} (31 times in a row; the guard kept it for 58 s)"
    assert gone.outlasted_guard
    assert lab.kinds() == ["guard on", "guard off"]


def test_without_the_guard_many_are_withdrawn_as_few_are() -> None:
    lab = Lab(10, guard_share="0")
    silence_twice(lab, 6)
    assert lab.down == 6
    assert lab.asked == []


def test_when_all_services_fall_silent_single_instances_are_kept_too() -> None:
    lab = Lab(8, "A")
    others = [lab.record(100 + number, f"S{number}") for number in range(8)]
    lab.catalog.restore(((record, State.UP, NOON, None) for record in others), 1)
    for round_of in range(2):
        lab.now += 2.2 * round_of
        lab.miss(8)
        for record in others:
            lab.health.missed(lab.instance(record.instance_id), SILENT)
    assert lab.down == 0
    assert "" in lab.health.guard.on


def test_after_a_restart_nobody_is_withdrawn_for_silence_before_all_were_asked() -> None:
    lab = Lab(3, restarted=True)
    for _ in range(2):
        lab.miss(2)
    assert lab.down == 0
    suspect = view(lab.instance("A0")).suspect
    assert suspect is not None
    assert suspect.endswith("nobody is withdrawn for silence before each was asked once since the registry started")
    lab.health.passed(lab.instance("A2"))
    lab.miss(2)
    assert lab.down == 2


def test_after_a_restart_who_refuses_is_withdrawn_at_once() -> None:
    lab = Lab(3, restarted=True)
    lab.health.failed(lab.instance("A0"), "connection refused")
    assert lab.down == 1


def test_who_slips_often_raises_the_limit_for_all(lab: Lab) -> None:
    for number in range(3):
        lab.miss(1, first=number)
        lab.health.passed(lab.instance(f"A{number}"))
    lab.now += 10
    silence_twice(lab, 1)
    assert lab.down == 0


def flap(lab: Lab, times: int) -> None:
    one = lab.instance("A0")
    for _ in range(times):
        lab.health.failed(one, "connection refused")
        lab.now += 1
        lab.health.passed(one)
        lab.now += 1


def test_who_flaps_is_held_down_with_a_reason_until_it_is_over(lab: Lab) -> None:
    flap(lab, 4)
    one = lab.instance("A0")
    assert one.state is State.DOWN
    shown = view(one)
    assert shown.held_until is not None
    assert shown.reason == (
        "held down for flapping: more than 6 changes within a minute, or down again soon after a hold; "
        f"offered again from {shown.held_until} on, if it answers then"
    )
    (event,) = lab.told
    assert (event.kind, event.instance_id, event.reason) == ("held", "A0", shown.reason)
    lab.now += 2
    touches = lab.catalog.touches
    lab.health.passed(one)
    assert (one.state, view(one), lab.catalog.touches) == (State.DOWN, shown, touches)
    lab.now += 3
    lab.health.passed(one)
    assert one.state is State.UP
    assert view(one).held_until is None


def test_who_flaps_and_registers_anew_is_held_down_all_the_same(lab: Lab) -> None:
    flap(lab, 4)
    given = lab.instance("A0").record.registration
    lab.catalog.accept(lab.catalog.decide(given, "10.0.0.1", lab.time()))
    known = lab.catalog.at_url(given.service_url)[0]
    assert known.state is State.STARTING
