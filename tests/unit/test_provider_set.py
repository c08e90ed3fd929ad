"""The exact difference between two provider sets."""

from __future__ import annotations

from pillion_common.models import ProviderEntry
from pillion_registry.provider_set import EMPTY, ProviderSet, difference


def entry(url: str, zone: str | None = None) -> ProviderEntry:
    return ProviderEntry("LogService", url, zone=zone)


def a_set(*urls: str, kept: tuple[str, ...] = (), zone: str | None = None) -> ProviderSet:
    return ProviderSet({url: entry(url, zone) for url in urls}, frozenset(kept))


def urls(entries: tuple[ProviderEntry, ...]) -> list[str]:
    return [one.url for one in entries]


def test_nothing_changes_between_a_set_and_itself() -> None:
    truth = a_set("a", "b")
    assert difference(truth, truth, classic=True) == ((), (), truth)
    assert difference(EMPTY, EMPTY, classic=False) == ((), (), EMPTY)


def test_equal_sets_differ_in_nothing() -> None:
    step = difference(a_set("a", "b"), a_set("b", "a"), classic=False)
    assert (step.added, step.removed) == ((), ())


def test_what_came_and_what_went() -> None:
    step = difference(a_set("a", "b"), a_set("b", "c"), classic=True)
    assert (urls(step.added), urls(step.removed)) == (["c"], ["a"])
    assert list(step.result.entries) == ["b", "c"]


def test_a_changed_entry_is_sent_to_protocol_2_alone() -> None:
    known, truth = a_set("a"), a_set("a", zone="east")
    assert difference(known, truth, classic=True).added == ()
    assert difference(known, truth, classic=False).added == (entry("a", "east"),)
    assert difference(known, truth, classic=False).removed == ()


def test_what_is_kept_stays_with_those_who_know_it() -> None:
    step = difference(a_set("a", "b"), a_set("c", kept=("a",)), classic=True)
    assert (urls(step.added), urls(step.removed)) == (["c"], ["b"])
    assert sorted(step.result.entries) == ["a", "c"]


def test_what_is_kept_is_told_to_nobody_else() -> None:
    step = difference(EMPTY, a_set("c", kept=("a",)), classic=True)
    assert (urls(step.added), urls(step.removed)) == (["c"], [])
    assert list(step.result.entries) == ["c"]
    assert step.result.settled


def test_what_was_kept_and_comes_back_is_no_news_and_what_does_not_is_removed() -> None:
    known = difference(a_set("a", "b"), a_set(kept=("a", "b")), classic=True).result
    step = difference(known, a_set("a"), classic=True)
    assert (urls(step.added), urls(step.removed)) == ([], ["b"])


def test_only_a_set_without_kept_ones_is_settled() -> None:
    assert EMPTY.settled
    assert a_set("a").settled
    assert not a_set("a", kept=("b",)).settled
