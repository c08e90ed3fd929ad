"""Flap damping: who is held down, for how long, and when that is forgiven."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pillion_registry.flaps import FIRST_HOLD_S, LONGEST_HOLD_S, Flaps


def flap(it: Flaps, times: int, now: float, pause_s: float = 1.0) -> float:
    """Let an instance that is up go down and come back; return the time after it."""
    for _ in range(times):
        it.fell("a", now)
        assert it.hold("a", now + pause_s) == (0.0, False)
        it.rose("a", now + pause_s)
        now += 2 * pause_s
    return now


def test_six_changes_within_a_minute_are_borne_and_the_seventh_is_not() -> None:
    it = Flaps()
    now = flap(it, 3, 1.0)
    it.fell("a", now)  # the seventh
    assert it.hold("a", now + 1) == (FIRST_HOLD_S, True)


def test_six_changes_within_more_than_a_minute_are_borne() -> None:
    it = Flaps()
    flap(it, 20, 1.0, pause_s=13.0)
    assert it.holds == 0


def test_a_hold_is_told_once_and_then_counts_down() -> None:
    it = Flaps()
    it.fell("a", flap(it, 3, 1.0))
    assert it.hold("a", 10.0) == (5.0, True)
    assert it.hold("a", 12.0) == (3.0, False)
    assert (it.held(12.0), it.held(15.0), it.holds) == (1, 0, 1)
    assert it.hold("a", 15.0) == (0.0, False)


def held_again(it: Flaps, now: float) -> float:
    """Let an instance up after a hold, fall soon after and come back; return for how long it is held."""
    assert it.hold("a", now) == (0.0, False)
    it.rose("a", now)
    it.fell("a", now + 1)
    return it.hold("a", now + 2)[0]


def test_who_falls_again_soon_is_held_twice_as_long_up_to_five_minutes() -> None:
    it = Flaps()
    it.fell("a", flap(it, 3, 1.0))
    delay_s, now = it.hold("a", 10.0)[0], 10.0
    delays = [delay_s]
    for _ in range(8):
        now += delays[-1]
        delays.append(held_again(it, now))
        now += 2
    assert delays == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_each_minute_that_it_stays_up_takes_a_doubling_back() -> None:
    it = Flaps()
    it.fell("a", flap(it, 3, 1.0))
    it.hold("a", 10.0)
    assert held_again(it, 15.0) == 10.0
    assert held_again(it, 27.0) == 20.0
    it.rose("a", 100.0)
    it.fell("a", 221.0)  # three doublings less two
    assert it.hold("a", 222.0) == (0.0, False)
    it.rose("a", 222.0)
    it.fell("a", 223.0)
    assert it.hold("a", 224.0) == (10.0, True)


def test_who_falls_later_than_twenty_seconds_after_a_hold_is_not_held_for_that() -> None:
    it = Flaps()
    it.fell("a", flap(it, 3, 1.0))
    assert it.hold("a", 10.0)[0] == 5.0
    it.rose("a", 15.0)
    it.fell("a", 36.0)
    assert it.hold("a", 37.0) == (0.0, False)


def test_none_is_held_where_any_number_of_changes_is_borne() -> None:
    it = Flaps(0)
    it.fell("a", flap(it, 30, 1.0))
    assert it.hold("a", 70.0) == (0.0, False)
    assert (it.holds, it._pasts) == (0, {})


def test_it_forgets_who_is_well_or_away() -> None:
    it = Flaps()
    flap(it, 1, 0.0)
    it.tidy(60.0)
    assert it._pasts
    it.tidy(62.0)
    assert not it._pasts
    it.fell("a", flap(it, 3, 1.0))
    it.hold("a", 10.0)
    it.tidy(310.0)
    assert it._pasts
    it.tidy(320.0)
    assert not it._pasts


def test_who_only_came_up_costs_no_memory() -> None:
    it = Flaps()
    it.rose("a", 0.0)
    assert not it._pasts


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 100.0)), max_size=200))
def test_whatever_happens_a_hold_has_its_bounds_and_ends(steps: list[tuple[bool, float]]) -> None:
    it, now, up = Flaps(), 0.0, False
    began: float | None = None
    for wants_up, wait_s in steps:
        now += wait_s
        if wants_up and not up:
            left_s, begins = it.hold("a", now)
            assert 0.0 <= left_s <= LONGEST_HOLD_S
            began = now if begins else began
            if left_s:
                assert began is not None
                assert now - began < LONGEST_HOLD_S
            else:
                it.rose("a", now)
                up, began = True, None
        elif not wants_up and up:
            it.fell("a", now)
            up = False
    it.tidy(now + 700.0)
    assert not it._pasts
