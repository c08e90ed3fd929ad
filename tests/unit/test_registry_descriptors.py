"""Descriptors: how many are needed, and what an operator is told if there are fewer."""

from __future__ import annotations

from pillion_registry.descriptors import allow, needed, shortage


def test_each_instance_needs_two_and_others_come() -> None:
    assert needed(20_000, 1000) == 41_064


def test_enough_is_no_news() -> None:
    assert shortage(41_064, 20_000, 1000) is None


def test_too_few_are_told_with_what_is_needed_and_what_to_do() -> None:
    said = shortage(1024, 20_000, 1000)
    assert said is not None
    assert said.startswith(
        "this process may open 1024 files, and PILLION_MAX_INSTANCES=20000 needs 41064: there are enough for about 352 instances; "
    )
    assert "ulimit -n 41064" in said


def test_a_limit_that_is_high_enough_is_left_alone() -> None:
    assert allow(3) >= 3
