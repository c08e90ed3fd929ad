"""Patience: how many time-outs in a row withdraw an instance, and what raises that."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pillion_registry.patience import MOST, Patience


def busy(it: Patience, checks: int, now: float = 0.0) -> None:
    for _ in range(checks):
        it.heard(0, now)


def test_where_nothing_is_lost_the_setting_is_the_limit() -> None:
    it = Patience(2)
    busy(it, 1000)
    it.missed(1.0)
    it.missed(1.0)
    assert it.limit(1.0) == 2


def test_time_outs_of_who_never_answers_again_raise_nothing() -> None:
    it = Patience(2)
    for _ in range(500):
        it.missed(1.0)
    assert it.limit(1.0) == 2


def test_one_slip_costs_one_more_time_out_at_most_and_is_forgotten() -> None:
    it = Patience(2)
    busy(it, 200)
    it.missed(1.0)
    it.heard(1, 1.0)
    assert it.limit(1.0) == 3
    assert it.limit(65.0) == 2
    busy(it, 1100, 2.0)
    assert it.limit(2.0) == 2


def test_it_stays_at_the_setting_when_it_is_off() -> None:
    it = Patience(2, adapts=False)
    for _ in range(20):
        it.missed(1.0)
        it.heard(1, 1.0)
    assert it.limit(1.0) == 2


def test_where_a_third_of_the_packets_is_lost_a_living_instance_is_withdrawn_less_than_once_in_ten_thousand_checks() -> None:
    chance = random.Random(7)
    it = Patience(2)
    wrong, checks, now = 0, 60_000, 0.0
    for _ in range(checks):
        now += 0.015  # 200 instances, each 3 s
        misses = 0
        while chance.random() < (0.3 if misses else 0.02):
            misses += 1
            it.missed(now)
        wrong += misses >= it.limit(now)
        it.heard(misses, now)
    assert 4 <= it.limit(now) <= MOST
    assert wrong <= checks / 10_000


@given(
    st.integers(1, 10),
    st.lists(st.tuples(st.integers(0, 40), st.floats(0.0, 50.0)), max_size=200),
)
def test_it_is_never_less_than_the_setting_nor_more_than_the_most(least: int, ended: list[tuple[int, float]]) -> None:
    it = Patience(least)
    now = 0.0
    for misses, wait_s in ended:
        now += wait_s
        for _ in range(misses):
            it.missed(now)
        it.heard(misses, now)
        assert least <= it.limit(now) <= max(least, MOST)
    assert it.limit(now + 120.0) == least
