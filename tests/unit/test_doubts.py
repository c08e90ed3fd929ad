"""What a registration is warned of, and how much searching that may take."""

from __future__ import annotations

import pytest

from pillion_common.models import Registration
from pillion_registry import doubts
from pillion_registry.catalog import Catalog
from pillion_registry.doubts import SEARCHES_A_SECOND, Doubts
from pillion_registry.similar import slips


def catalog(*names: str) -> Catalog:
    made = Catalog(max_instances=1000)
    for name in names:
        given = Registration(name, f"http://10.0.0.1/{name}", heartbeat_url="http://10.0.0.1/h")
        made.accept(made.decide(given, "10.0.0.1", 0.0))
    return made


def requiring(*names: str) -> Registration:
    return Registration("Portald", "http://10.0.0.2", required_services=names)


def test_a_name_that_may_be_meant_is_told() -> None:
    about = Doubts(catalog("GradingService")).about(requiring("GradingServce", "Db", "GradingService"))
    assert about == (
        "Portald requires GradingServce, which nobody has registered; did you mean GradingService?",
        "Portald requires Db, which nobody has registered yet",
    )


def test_a_fleet_that_comes_in_is_searched_for_a_bounded_number_of_names_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    now = [100.0]
    found = Doubts(catalog("Service1"), lambda: now[0])
    monkeypatch.setattr(doubts, "similar", lambda name, names: searched.append(name))
    for number in range(10, 10 + 3 * SEARCHES_A_SECOND):
        assert found.about(requiring(f"Service{number}")) == (f"Portald requires Service{number}, which nobody has registered yet",)
    assert len(searched) == SEARCHES_A_SECOND
    now[0] += 1.0
    found.about(requiring("Service99"))
    assert len(searched) == SEARCHES_A_SECOND + 1


SLIPS = [
    ("grading", "grading", 0), ("grading", "gradng", 1), ("grading", "gradnig", 1), ("service12", "service21", 1), ("s123", "s4567", 4),
    ("ab", "ba", 1), ("aab", "ab", 1), ("", "ab", 2), ("abcab", "ab", 3), ("abc", "ca", 3),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "count"), SLIPS)
def test_slips_are_counted_alike_whatever_both_begin_and_end_with(one: str, other: str, count: int) -> None:
    assert slips(one, other, 5) == slips(f"x{one}y", f"x{other}y", 5) == slips(other, one, 5) == count
