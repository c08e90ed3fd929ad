"""Who requires whom: what is missing, circles, who is hurt, and which name may have been meant."""

from __future__ import annotations

import pytest

from pillion_common.models import Registration, State
from pillion_registry.catalog import Instance, Record
from pillion_registry.graph import graph
from pillion_registry.similar import similar, slips
from pillion_registry.wire import GraphView


def drawn(*services: str, name: str | None = None) -> GraphView:
    """Return the graph of lines such as "Shop: Db:2 Cache?", "Db", "Db down"."""
    instances = []
    for number, line in enumerate(services):
        head, _, tail = line.partition(": ")
        service, _, state = head.partition(" ")
        needs = {}
        for part in tail.split():
            other, _, count = part.removesuffix("?").partition(":")
            needs[other] = 0 if part.endswith("?") else int(count or 1)
        url = f"http://10.0.0.7:{6000 + number}"
        given = Registration(service, url, tuple(needs), url, url, needs=needs)
        instances.append(Instance(Record(f"i{number}", number, "10.0.0.7", 0.0, given), State(state or "up"), 0.0))
    return graph(instances, 7, name)


def test_what_is_required_and_not_there_is_missing() -> None:
    told = drawn("Shop: Db:2 Cache? Mail", "Db", "Db down", "Mail down")
    assert [(one.name, one.needs, one.up, one.registered, one.required_by) for one in told.missing] == [
        ("Db", 2, 1, True, ("Shop",)),
        ("Mail", 1, 0, True, ("Shop",)),
    ]
    shop = next(one for one in told.services if one.name == "Shop")
    assert [(one.name, one.needs, one.up, one.met) for one in shop.requires] == [
        ("Db", 2, 1, False),
        ("Cache", 0, 0, True),
        ("Mail", 1, 0, False),
    ]
    assert [one.name for one in told.services] == ["Cache", "Db", "Mail", "Shop"]


def test_only_those_who_have_too_few_are_named_as_short() -> None:
    told = drawn("Shop: Db:3", "Portal: Db", "Db", "Db")
    assert [(one.name, one.needs, one.up, one.required_by) for one in told.missing] == [("Db", 3, 2, ("Shop",))]


def test_a_name_that_may_be_meant_is_told() -> None:
    told = drawn("Shop: GradingServce", "GradingService")
    assert [(one.name, one.similar) for one in told.missing] == [("GradingServce", "GradingService")]


def test_who_is_hurt_is_found_through_others_but_not_through_what_is_optional() -> None:
    services = ("Portal: Shop", "Shop: Db", "Report: Db?", "Audit: Report", "Db")
    impact = {one.name: one.impact for one in drawn(*services).services}
    assert impact == {"Db": ("Portal", "Shop"), "Shop": ("Portal",), "Report": ("Audit",), "Portal": (), "Audit": ()}
    assert [(one.name, one.impact, one.required_by) for one in drawn(*services, name="Db").services] == [
        ("Db", ("Portal", "Shop"), ("Report", "Shop")),
    ]


def test_circles_are_found_and_optional_ones_are_none() -> None:
    assert drawn("A: B", "B: C", "C: A", "D: A", "E: E", "F: G?", "G: F").cycles == (("A", "B", "C"), ("E",))
    assert drawn("A: B", "B: A", "C: D", "D: C B").cycles == (("A", "B"), ("C", "D"))
    assert drawn("A: B C", "B: D", "C: D", "D").cycles == ()


def test_long_chains_do_no_harm() -> None:
    chain = [f"S{number}: S{number + 1}" for number in range(1500)] + ["S1500: S0"]
    told = drawn(*chain)
    assert [len(one) for one in told.cycles] == [1501]
    assert told.services[0].impact is None  # too many to tell everybody's
    (one,) = drawn(*chain, name="S7").services
    assert len(one.impact or ()) == 1500


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("Db", "Db", 0), ("Grading", "Gradng", 1), ("Grading", "Grdaing", 1), ("Grading", "Grxding", 1), ("abcd", "badc", 2), ("a", "xyz", 3)],
)
def test_slips_are_counted(one: str, other: str, count: int) -> None:
    assert slips(one, other, 3) == count
    assert slips(one, other, 1) == min(count, 2)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gradingservice", "GradingService"),
        ("grading-service", "GradingService"),
        ("Grading", "GradingService"),
        ("GradingServcie", "GradingService"),
        ("GradingServices", "GradingService"),
        ("LogServce", "LogService"),
        ("Ui", None),
        ("DB", "Db"),
        ("Dba", "Db"),
        ("Mail", None),
        ("Db", None),
    ],
)
def test_the_name_that_may_be_meant_is_found(name: str, meant: str | None) -> None:
    assert similar(name, ["LogService", "GradingService", "Db", "Portald"]) == meant
