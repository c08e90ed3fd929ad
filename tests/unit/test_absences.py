"""Who is forgotten, and that a clock that jumps changes nothing. Who had not been asked yet after a restart."""

from __future__ import annotations

from pillion_common.models import Registration, State
from pillion_registry.absences import Absences
from pillion_registry.catalog import Instance, Record
from pillion_registry.warmup import Warmup

A = "http://10.0.0.1:80"
NOON = 1_700_000_000.0
LIMIT_S = 3600.0


def instance(state: State = State.DOWN, since_s: float = NOON, **more: bool) -> Instance:
    return Instance(Record("a", 1, "10.0.0.1", 1.0, Registration("A", A, heartbeat_url=A)), state, since_s, **more)


def test_what_is_down_for_long_is_over() -> None:
    it, gone = Absences([], NOON, 0.0), instance()
    assert it.over([gone], LIMIT_S, NOON, 0.0) == []
    assert it.over([gone], LIMIT_S, NOON + 3599, 3599.0) == []
    assert it.over([gone], LIMIT_S, NOON + 3600, 3600.0) == [gone]


def test_what_is_up_or_waits_for_its_first_check_after_a_restart_is_not() -> None:
    it = Absences([], NOON, 0.0)
    old = [instance(State.UP, 0.0), instance(State.STARTING, 0.0, retained=True), instance(State.DRAINING, 0.0)]
    assert it.over(old, LIMIT_S, NOON, 0.0) == []


def test_the_time_before_the_start_counts() -> None:
    gone = instance(since_s=NOON - 3599)
    it = Absences([gone], NOON, 0.0)
    assert it.over([gone], LIMIT_S, NOON + 0.5, 0.5) == []
    assert it.over([gone], LIMIT_S, NOON + 1, 1.0) == [gone]


def test_a_clock_that_jumps_makes_nobody_be_forgotten_early() -> None:
    it, gone = Absences([], NOON - 10, 0.0), instance()
    assert it.over([gone], LIMIT_S, NOON + 7200, 10.0) == []  # went down a moment before, then the clock went on two hours
    assert it.over([gone], LIMIT_S, NOON + 7210, 20.0) == []
    assert it.over([gone], LIMIT_S, NOON + 7210 + 3590, 3610.0) == [gone]


def test_a_clock_that_goes_back_delays_nothing() -> None:
    gone = instance()
    it = Absences([gone], NOON, 0.0)
    assert it.over([gone], LIMIT_S, NOON - 7200 + 3600, 3600.0) == [gone]


def test_who_comes_back_and_goes_again_begins_anew() -> None:
    it = Absences([instance()], NOON, 0.0)
    it.over([instance(State.UP)], LIMIT_S, NOON + 1800, 1800.0)
    assert it.over([instance(since_s=NOON + 1810)], LIMIT_S, NOON + 3610, 3610.0) == []


def test_it_warms_up_until_each_was_asked() -> None:
    it = Warmup(["a", "b"], 106.0)
    assert it.left_s(100.0) == 6.0
    it.asked("a")
    it.asked("a")
    assert it.left_s(101.0) == 5.0
    it.asked("b")
    assert it.left_s(102.0) == 0.0


def test_it_does_not_warm_up_for_ever() -> None:
    it = Warmup(["a"], 106.0)
    assert it.left_s(105.5) == 0.5
    assert it.left_s(106.0) == 0.0
