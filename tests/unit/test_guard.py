"""The guard: who is kept when many fall silent at once, for how long, and who never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_registry.guard import LEAST, WHOLE, Guard
from pillion_registry.offers import Offers

INTERVAL_S, TIMEOUT_S, TIME_S = 3.0, 2.0, 60.0
ROUND_S = TIMEOUT_S + 0.1
TINY = 1e-6  # what adding floats costs


def guard(share: float = 0.5, **offered: int) -> Guard:
    offers = Offers()
    for name, count in offered.items():
        offers.change(name, count)
    return Guard(offers, share, TIME_S, INTERVAL_S, TIMEOUT_S)


def silence(it: Guard, name: str, count: int, now: float, first: int = 0) -> list[str]:
    """Let instances miss a check; return the groups that turned on."""
    turns = [turn for number in range(first, first + count) for turn in it.missed(name, f"{name}{number}", now).turns]
    assert all(turn.on for turn in turns)
    return [turn.name for turn in turns]


@pytest.mark.parametrize(("silent", "on"), [(4, []), (5, ["A"])])
def test_half_of_a_services_instances_turn_it_on(silent: int, on: list[str]) -> None:
    assert silence(guard(A=10), "A", silent, 100.0) == on


def test_a_service_of_three_has_no_guard_of_its_own() -> None:
    assert silence(guard(A=3), "A", 3, 100.0) == []


def test_an_instance_that_is_kept_is_so_for_the_guards_time_with_the_reason() -> None:
    it = guard(A=10)
    silence(it, "A", 5, 100.0)
    keeping = it.keeps("A0", 104.0)
    assert keeping is not None
    assert (keeping.reason, keeping.left_s) == ("5 of 10 instances of A time out within 3 s", 56.0)
    assert it.keeps("A0", 159.9) is not None
    assert it.keeps("A0", 160.0) is None


def test_who_answered_or_refused_is_not_kept() -> None:
    it = guard(A=10)
    silence(it, "A", 5, 100.0)
    it.heard("A0")
    assert it.keeps("A0", 101.0) is None


def test_an_instance_that_took_another_name_is_silent_under_that_one() -> None:
    it = guard(A=4, B=4)
    it.missed("A", "x", 100.0)
    it.missed("B", "x", 101.0)
    assert it._by_name == {"B": {"x"}}


def test_when_the_time_is_over_it_goes_off_and_is_not_renewed_while_they_stay_silent() -> None:
    it = guard(A=10)
    silence(it, "A", 6, 100.0)
    assert it.tick(159.0) == []
    (turn,) = it.tick(160.0)
    assert (turn.name, turn.on, turn.reason) == ("A", False, "its 60 s are over; 6 of 10 instances still do not answer")
    assert silence(it, "A", 6, 161.0) == []
    assert it.tick(170.0) == []
    assert it.keeps("A0", 170.0) is None


def test_after_a_calm_interval_it_may_go_on_again() -> None:
    it = guard(A=10)
    silence(it, "A", 6, 100.0)
    it.tick(160.0)
    for number in range(6):
        it.heard(f"A{number}")
    it.tick(161.0)
    it.tick(164.0)
    assert silence(it, "A", 6, 165.0) == ["A"]


def test_it_goes_off_by_itself_when_most_answer_again() -> None:
    it = guard(A=10)
    silence(it, "A", 6, 100.0)
    for number in range(4):  # two of ten stay: less than half of the share
        it.heard(f"A{number}")
    assert it.tick(110.0) == []
    (turn,) = it.tick(113.0)
    assert (turn.on, turn.reason) == (False, "8 of 10 instances answer")
    assert it.keeps("A5", 113.0) is None


def test_the_first_silence_has_all_of_the_service_asked_once_an_interval() -> None:
    it = guard(A=10)
    assert it.missed("A", "A0", 100.0).rounds == ("A",)
    assert it.missed("A", "A0", 102.2).rounds == ()
    assert it.missed("A", "A1", 102.9).rounds == ()
    assert it.missed("A", "A2", 103.0).rounds == ("A",)


def test_nobody_is_withdrawn_before_a_round_that_its_silence_began_is_over() -> None:
    it = guard(A=10)
    it.missed("A", "A0", 100.0)
    waiting = it.keeps("A0", 100.0)
    assert waiting is not None
    assert (waiting.reason, round(waiting.left_s, 6)) == ("", ROUND_S)
    assert it.keeps("A0", 100.0 + ROUND_S) is None


def test_a_round_that_begins_later_keeps_nobody_longer() -> None:
    it = guard(A=100)
    it.missed("A", "A0", 100.0)
    it.missed("A", "A1", 103.0)
    assert it.keeps("A0", 104.0) is None


def test_silence_everywhere_is_the_registrys_own_network_and_keeps_single_instances_too() -> None:
    it = guard(**{f"S{number}": 1 for number in range(8)})
    on = [group for number in range(8) for group in silence(it, f"S{number}", 1, 100.0)]
    assert on == [WHOLE]
    keeping = it.keeps("S70", 102.0)
    assert keeping is not None
    assert keeping.reason == "4 of all 8 instances, of 4 services, time out within 3 s"


def test_one_large_service_that_falls_silent_is_not_the_registrys_own_network() -> None:
    it = guard(Large=100, B=1, C=1, D=1)
    assert silence(it, "Large", 100, 100.0) == ["Large"]
    silence(it, "B", 1, 101.0)
    assert it.on == ["Large", WHOLE] or WHOLE not in it.on  # half of four services are two
    other = guard(Large=100, B=1, C=1, D=1, E=1)
    silence(other, "Large", 100, 100.0)
    silence(other, "B", 1, 101.0)
    assert other.on == ["Large"]


def test_a_share_of_nothing_turns_it_off() -> None:
    it = guard(0.0, A=10)
    assert silence(it, "A", 10, 100.0) == []
    assert it.missed("A", "A0", 100.0) == ((), ())
    assert it.keeps("A0", 100.0) is None
    assert it.tick(200.0) == []


STEPS = st.lists(st.tuples(st.sampled_from("mmmht"), st.integers(0, 11), st.floats(0.0, 8.0)), max_size=120)


@given(STEPS, st.floats(0.05, 1.0), st.integers(0, 12), st.integers(0, 12))
def test_whatever_happens_its_promises_hold(steps: list[tuple[str, int, float]], share: float, of_a: int, of_b: int) -> None:
    it = guard(share, A=of_a, B=of_b)
    names = ["A"] * of_a + ["B"] * of_b
    offered = {"A": of_a, "B": of_b, WHOLE: of_a + of_b}
    now, kept_since, on_since = 0.0, {}, {}
    silent: dict[str, str] = {}
    for what, number, wait_s in steps:
        now += wait_s
        name, instance = names[number % len(names)] if names else "A", f"i{number % max(len(names), 1)}"
        turns = []
        if what == "m" and names:
            silent[instance] = name
            turns = list(it.missed(name, instance, now).turns)
            keeping = it.keeps(instance, now)
            if keeping and keeping.reason:
                assert now - kept_since.setdefault(instance, now) <= TIME_S + TINY
                assert 0 < keeping.left_s <= TIME_S + TINY
            elif keeping:
                assert keeping.left_s <= ROUND_S + TINY
        elif what == "h":
            it.heard(instance)
            silent.pop(instance, None)
            kept_since.pop(instance, None)
            assert it.keeps(instance, now) is None
        else:
            turns = it.tick(now)
            assert all(now - on_since[group] < TIME_S for group in it.on)  # a tick ends what has lasted long enough
        for turn in turns:
            assert turn.on == (turn.name not in on_since)
            count = len(silent) if turn.name == WHOLE else sum(one == turn.name for one in silent.values())
            if turn.on:
                assert offered[turn.name] >= LEAST
                assert count >= share * offered[turn.name]
                on_since[turn.name] = now
            else:
                del on_since[turn.name]
        assert set(it.on) == set(on_since)
    for instance in list(silent):
        it.heard(instance)
    for later in range(1, 4):
        it.tick(now + later * max(INTERVAL_S, TIME_S))
    assert it.on == []
    assert it._groups == {}
    assert it._silent == it._by_name == it._kept_at == {}
