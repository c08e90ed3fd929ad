"""The sidecar's provider table: patches of both kinds, lookups, and what is missing."""

from __future__ import annotations

from collections import Counter

import pytest

from pillion_common.errors import Conflict, NotFound
from pillion_common.models import Patch, ProviderEntry, decode
from pillion_sidecar.providers import ProviderTable

LOG_1 = ProviderEntry("LogService", "http://10.0.0.1:4000")
LOG_2 = ProviderEntry("LogService", "http://10.0.0.2:4000")
LOG_3 = ProviderEntry("LogService", "http://10.0.0.3:4000")
DB_1 = ProviderEntry("Db", "http://10.0.1.1:5432")
OTHER = ProviderEntry("Mail", "http://10.0.2.1:25")


def urls(table: ProviderTable, name: str) -> list[str]:
    return [entry.url for entry in table.all(name)]


def full(*entries: ProviderEntry, services: tuple[str, ...], revision: int = 5, epoch: str = "e1") -> Patch:
    return Patch(added=entries, removed=(), revision=revision, epoch=epoch, full=True, services=services)


def step(previous: int, revision: int, added: tuple[ProviderEntry, ...] = (), removed: tuple[ProviderEntry, ...] = ()) -> Patch:
    return Patch(added=added, removed=removed, previous=previous, revision=revision, epoch="e1")


def test_a_classic_patch_appends_and_removes() -> None:
    table = ProviderTable({"LogService": 1})
    assert table.apply(Patch(added=(LOG_1, LOG_2))) == ["LogService"]
    assert urls(table, "LogService") == [LOG_1.url, LOG_2.url]
    assert table.apply(Patch(removed=(LOG_1,))) == ["LogService"]
    assert urls(table, "LogService") == [LOG_2.url]
    assert (table.revision, table.epoch) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"Added":[{"Name":"LogService","URL":"http://10.0.0.1:4000"}],"Removed":null}',
        b'{"Added":[{"Name":"LogService","URL":"http://10.0.0.1:4000","Shiny":1}],"Removed":[],"New":{}}',
        b'{"Added":[{"Name":"LogService","URL":"http://10.0.0.1:4000"}]}',
    ],
)
def test_a_classic_patch_as_it_comes_over_the_wire(body: bytes) -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(decode(body, Patch))
    assert urls(table, "LogService") == [LOG_1.url]
    table.apply(decode(b'{"Added":null,"Removed":[{"Name":"LogService","URL":"http://10.0.0.1:4000"}]}', Patch))
    assert urls(table, "LogService") == []


def test_the_first_classic_patch_after_the_registry_forgot_us_is_the_whole_truth() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.apply(Patch(added=(LOG_1, DB_1)))
    table.expect_afresh()
    assert urls(table, "LogService") == [LOG_1.url]
    assert table.apply(Patch(added=(LOG_2,))) == ["LogService", "Db"]
    assert urls(table, "LogService") == [LOG_2.url]
    assert urls(table, "Db") == []
    table.apply(Patch(added=(LOG_3,)))
    assert urls(table, "LogService") == [LOG_2.url, LOG_3.url]


def test_an_url_that_is_added_twice_is_there_once() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(LOG_1, LOG_1)))
    table.apply(Patch(added=(LOG_1,)))
    assert urls(table, "LogService") == [LOG_1.url]


def test_a_removal_of_what_is_not_there_changes_nothing() -> None:
    table = ProviderTable({"LogService": 1})
    assert table.apply(Patch(removed=(LOG_1,))) == []


def test_an_url_that_is_removed_and_added_in_one_patch_stays() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(LOG_1,)))
    table.apply(Patch(added=(LOG_1,), removed=(LOG_1,)))
    assert urls(table, "LogService") == [LOG_1.url]


def test_names_that_are_not_required_are_not_taken_in() -> None:
    table = ProviderTable({"LogService": 1})
    assert table.apply(Patch(added=(OTHER, LOG_1), removed=(DB_1,))) == ["LogService"]
    assert table.names() == ("LogService",)
    assert table.apply(full(OTHER, services=("Mail",))) == []
    assert table.names() == ("LogService",)


def test_a_full_patch_replaces_its_services_and_no_others() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.apply(Patch(added=(LOG_1, LOG_2, DB_1)))
    assert table.apply(full(LOG_3, services=("LogService",))) == ["LogService"]
    assert urls(table, "LogService") == [LOG_3.url]
    assert urls(table, "Db") == [DB_1.url]
    assert (table.revision, table.epoch) == (5, "e1")


def test_a_full_patch_without_entries_empties_its_services() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(LOG_1,)))
    assert table.apply(full(services=("LogService",))) == ["LogService"]
    assert urls(table, "LogService") == []


def test_a_full_patch_that_says_what_is_known_changes_nothing() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",)))
    assert table.apply(full(LOG_1, services=("LogService",), revision=9)) == []
    assert table.revision == 9


def test_entries_of_a_full_patch_outside_its_services_are_ignored() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.apply(Patch(added=(DB_1,)))
    table.apply(full(LOG_1, ProviderEntry("Db", "http://10.9.9.9:1"), services=("LogService",)))
    assert urls(table, "Db") == [DB_1.url]


def test_differences_that_follow_on_one_another_are_taken_in() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",), revision=5))
    table.apply(step(5, 8, added=(LOG_2,)))
    table.apply(step(8, 9, removed=(LOG_1,)))
    assert urls(table, "LogService") == [LOG_2.url]
    assert table.revision == 9


@pytest.mark.parametrize(
    "patch",
    [
        step(6, 8, added=(LOG_2,)),
        step(4, 8, added=(LOG_2,)),
        Patch(added=(LOG_2,), revision=8, epoch="e1"),
        Patch(added=(LOG_2,), previous=5, revision=8, epoch="e2"),
    ],
    ids=["missed one", "a repeat", "from nowhere", "another epoch"],
)
def test_a_gap_is_refused_and_changes_nothing(patch: Patch) -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",), revision=5))
    with pytest.raises(Conflict) as refused:
        table.apply(patch)
    assert (refused.value.status, refused.value.code) == (409, "gap")
    assert "send a full one" in refused.value.message
    assert urls(table, "LogService") == [LOG_1.url]
    assert (table.revision, table.epoch) == (5, "e1")


def test_a_full_patch_closes_any_gap() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",), revision=50))
    table.apply(full(LOG_2, services=("LogService",), revision=1, epoch="e2"))
    assert urls(table, "LogService") == [LOG_2.url]
    assert (table.revision, table.epoch) == (1, "e2")


def test_a_changed_entry_at_a_known_url_replaces_it() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",), revision=5))
    newer = ProviderEntry("LogService", LOG_1.url, version="2.0")
    table.apply(step(5, 6, added=(newer,)))
    assert table.all("LogService") == (newer,)


def test_the_choice_is_as_uniform_as_the_given_random_source() -> None:
    draws = iter([0, 2, 1, 2, 0, 1, 0, 1, 2])
    bounds = []

    def rand(below: int) -> int:
        bounds.append(below)
        return next(draws)

    table = ProviderTable({"LogService": 1}, rand)
    table.apply(Patch(added=(LOG_1, LOG_2, LOG_3)))
    assert [table.choose("LogService").url[-6] for _ in range(9)] == list("132312123")
    assert bounds == [3] * 9


def test_over_many_lookups_every_provider_has_its_share() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(LOG_1, LOG_2, LOG_3)))
    shares = Counter(table.choose("LogService").url for _ in range(3000))
    assert len(shares) == 3
    assert min(shares.values()) > 800  # 1,000 expected; 8 standard deviations off


def test_a_lone_provider_needs_no_draw() -> None:
    def no_draw(below: int) -> int:
        raise AssertionError(below)

    table = ProviderTable({"LogService": 1}, no_draw)
    table.apply(Patch(added=(LOG_1,)))
    assert table.choose("LogService") == LOG_1


def test_a_name_that_is_not_required_is_told_apart_from_one_without_providers() -> None:
    table = ProviderTable({"LogService": 1, "Db": 2})
    with pytest.raises(NotFound) as unknown:
        table.choose("Mail")
    assert (unknown.value.status, unknown.value.code) == (404, "not_required")
    assert unknown.value.message == "Mail is not among what this app requires (LogService, Db); add it to PILLION_REQUIRES"
    with pytest.raises(NotFound) as empty:
        table.choose("LogService")
    assert (empty.value.status, empty.value.code) == (404, "no_provider")
    assert empty.value.message == "no provider of LogService is up now"
    with pytest.raises(NotFound):
        table.all("Mail")
    assert table.all("LogService") == ()


def test_a_table_about_nothing_says_so() -> None:
    with pytest.raises(NotFound, match=r"what this app requires \(nothing\)"):
        ProviderTable({}).choose("LogService")


def test_missing_counts_what_is_there_against_what_is_needed() -> None:
    table = ProviderTable({"LogService": 1, "Db": 2, "Optional": 0})
    assert table.missing() == {"LogService": "0 of 1", "Db": "0 of 2"}
    table.apply(Patch(added=(LOG_1, DB_1)))
    assert table.missing() == {"Db": "1 of 2"}
    table.apply(Patch(added=(ProviderEntry("Db", "http://10.0.1.2:5432"),)))
    assert table.missing() == {}
