"""The sidecar's provider table: patches of both kinds, lookups, and what is missing."""

from __future__ import annotations

from collections import Counter

import pytest

from pillion_common.errors import Conflict
from pillion_common.models import Patch, ProviderEntry, decode
from pillion_sidecar.table.choice import Wish
from pillion_sidecar.table.providers import MAX_UNDECLARED, ProviderTable

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


def test_what_a_classic_registry_forgot_stays_until_it_had_its_time_to_come_back() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.apply(Patch(added=(LOG_1, LOG_3, DB_1)))
    table.expect_afresh()
    assert table.apply(Patch(added=(LOG_2, LOG_3))) == ["LogService"]
    assert (urls(table, "LogService"), urls(table, "Db")) == ([LOG_1.url, LOG_3.url, LOG_2.url], [DB_1.url])
    assert table.unconfirmed
    assert sorted(table.drop_unconfirmed()) == ["Db", "LogService"]
    assert (urls(table, "LogService"), urls(table, "Db")) == ([LOG_3.url, LOG_2.url], [])
    assert not table.unconfirmed
    assert table.drop_unconfirmed() == []


def test_what_a_registry_without_its_memory_does_not_name_yet_stays_for_a_while() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.apply(full(LOG_1, LOG_2, DB_1, services=("LogService", "Db"), epoch="e1"))
    assert table.apply(full(services=("LogService", "Db"), epoch="e2", revision=1)) == []
    assert urls(table, "LogService") == [LOG_1.url, LOG_2.url]
    table.apply(Patch(added=(LOG_2,), previous=1, revision=2, epoch="e2"))
    table.apply(Patch(removed=(DB_1,), previous=2, revision=3, epoch="e2"))
    assert urls(table, "Db") == [], "what is said of it goes before what was known"
    assert table.drop_unconfirmed() == ["LogService"]
    assert urls(table, "LogService") == [LOG_2.url]


def test_a_second_full_patch_of_the_same_memory_is_the_whole_truth() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, LOG_2, services=("LogService",), epoch="e1"))
    table.apply(full(services=("LogService",), epoch="e2"))
    assert table.apply(full(LOG_2, services=("LogService",), epoch="e2")) == ["LogService"]
    assert urls(table, "LogService") == [LOG_2.url]
    assert not table.unconfirmed


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
    table.apply(full(LOG_2, services=("LogService",), revision=70))
    assert urls(table, "LogService") == [LOG_2.url]
    assert (table.revision, table.epoch) == (70, "e1")


def test_a_changed_entry_at_a_known_url_replaces_it() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(full(LOG_1, services=("LogService",), revision=5))
    newer = ProviderEntry("LogService", LOG_1.url, version="2.0")
    table.apply(step(5, 6, added=(newer,)))
    assert table.all("LogService") == (newer,)


def test_the_choice_is_as_uniform_as_the_given_random_source() -> None:
    draws = iter([0.0, 0.99, 0.34, 0.67, 0.33, 0.5, 0.1, 0.66, 0.999])
    table = ProviderTable({"LogService": 1}, rand=lambda: next(draws))
    table.apply(Patch(added=(LOG_1, LOG_2, LOG_3)))
    assert [chosen.url[-6] for _ in range(9) if (chosen := table.choose("LogService"))] == list("132312123")


def test_over_many_lookups_every_provider_has_its_share() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(LOG_1, LOG_2, LOG_3)))
    shares = Counter(chosen.url for _ in range(3000) if (chosen := table.choose("LogService")))
    assert len(shares) == 3
    assert min(shares.values()) > 800  # 1,000 expected; 8 standard deviations off


def test_what_nobody_can_say_yet_is_told_apart_from_what_is_not_there() -> None:
    table = ProviderTable({"LogService": 1, "Db": 2})
    assert (table.find("LogService"), table.all("LogService"), table.choose("LogService")) == (None, (), None)
    table.apply(full(services=("LogService",)))
    assert table.find("LogService") == ()
    assert table.find("Db") is None
    assert (table.find("Mail"), table.all("Mail"), table.choose("Mail")) == (None, (), None)
    assert (table.knows("Db"), table.knows("Mail")) == (True, False)


def test_a_name_that_was_not_required_is_taken_in_once_it_is_added() -> None:
    table = ProviderTable({"LogService": 1})
    table.apply(Patch(added=(OTHER,)))
    assert table.all("Mail") == ()
    assert table.add("Mail")
    assert table.add("Mail")
    table.apply(Patch(added=(OTHER,)))
    assert urls(table, "Mail") == [OTHER.url]
    assert (table.names(), table.undeclared()) == (("LogService", "Mail"), ("Mail",))
    assert table.missing() == {"LogService": "0 of 1"}, "nobody said that it is needed"


def test_names_that_were_not_required_are_bounded() -> None:
    table = ProviderTable({"LogService": 1})
    assert all(table.add(f"S{number}") for number in range(MAX_UNDECLARED))
    assert not table.add("OneMore")
    assert not table.knows("OneMore")
    assert table.add("LogService")


def test_what_an_earlier_sidecar_knew_is_offered_until_the_same_registry_says_otherwise() -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    assert table.restore({"LogService": [LOG_1], "Mail": [OTHER]}, "e1") == ["LogService"]
    assert urls(table, "LogService") == [LOG_1.url]
    assert table.apply(full(LOG_2, services=("LogService", "Db"), epoch="e1")) == ["LogService"]
    assert urls(table, "LogService") == [LOG_2.url]
    assert not table.unconfirmed


@pytest.mark.parametrize("news", [full(LOG_2, services=("LogService", "Db"), epoch="e2"), Patch(added=(LOG_2,))])
def test_another_memory_than_the_earlier_sidecars_is_given_time(news: Patch) -> None:
    table = ProviderTable({"LogService": 1, "Db": 1})
    table.restore({"LogService": [LOG_1], "Db": [DB_1]}, "e1")
    assert table.apply(news) == ["LogService"]
    assert sorted(urls(table, "LogService")) == [LOG_1.url, LOG_2.url]
    table.drop_unconfirmed()
    assert (urls(table, "LogService"), urls(table, "Db")) == ([LOG_2.url], [])


def test_filters_and_strategies_reach_the_choice() -> None:
    table = ProviderTable({"LogService": 1}, zone="b", rand=lambda: 0.0)
    near = ProviderEntry("LogService", LOG_2.url, zone="b", tags=("x",))
    table.apply(Patch(added=(LOG_1, near)))
    assert table.choose("LogService", Wish("zone")) is near
    assert table.choose("LogService", Wish(tags=frozenset("x"))) is near
    assert table.choose("LogService", Wish(tags=frozenset("y"))) is None
    turns = [table.choose("LogService", Wish("round-robin")) for _ in range(4)]
    assert turns == [LOG_1, near, LOG_1, near]


def test_missing_counts_what_is_there_against_what_is_needed() -> None:
    table = ProviderTable({"LogService": 1, "Db": 2, "Optional": 0})
    assert table.missing() == {"LogService": "0 of 1", "Db": "0 of 2"}
    table.apply(Patch(added=(LOG_1, DB_1)))
    assert table.missing() == {"Db": "1 of 2"}
    table.apply(Patch(added=(ProviderEntry("Db", "http://10.0.1.2:5432"),)))
    assert table.missing() == {}
