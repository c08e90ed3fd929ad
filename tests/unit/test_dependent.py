"""What a dependent is told: exactly the difference from what it acknowledged, whatever happens in between."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.models import Patch, ProviderEntry
from pillion_registry.dependent import Delivery, Knowledge, Providers, fresh, plan
from pillion_registry.provider_set import EMPTY, ProviderSet

NAMES = ("Log", "Db")
URLS = ("http://a", "http://b", "http://c")


@dataclass
class World:
    """The truth: provider sets by name, and the registry's revision."""

    sets: dict[str, ProviderSet] = field(default_factory=dict)
    revision: int = 0

    def providers(self, name: str) -> ProviderSet:
        return self.sets.get(name, EMPTY)

    def set(self, name: str, urls: tuple[str, ...], kept: tuple[str, ...] = (), zone: str | None = None) -> None:
        self.revision += 1
        entries = {url: ProviderEntry(name, url, zone=zone) for url in urls}
        self.sets[name] = ProviderSet(entries, frozenset(kept))


class Dependent:
    """A dependent as the notifier handles it: a patch is planned, and acknowledged or not."""

    def __init__(self, classic: bool, *requires: str) -> None:
        self.classic = classic
        self.known: Knowledge = fresh(requires or NAMES, classic)

    def plan(self, providers: Providers, revision: int, epoch: str) -> Delivery | None:
        planned = plan(self.known, self.classic, providers, revision, epoch)
        if planned.delivery is None:
            self.known = planned.known
        return planned.delivery

    def acknowledge(self, delivery: Delivery) -> None:
        self.known = delivery.result


def a_dependent(classic: bool, *requires: str) -> Dependent:
    return Dependent(classic, *requires)


def told(delivery: Delivery | None) -> tuple[list[str], list[str]]:
    assert delivery is not None
    return [e.url for e in delivery.patch.added or ()], [e.url for e in delivery.patch.removed or ()]


@pytest.mark.parametrize("classic", [True, False])
def test_a_new_dependent_gets_all_present_providers_and_then_nothing_more(classic: bool) -> None:
    world = World()
    world.set("Log", ("http://a", "http://b"))
    dependent = a_dependent(classic, "Log")
    delivery = dependent.plan(world.providers, world.revision, "e")
    assert told(delivery) == (["http://a", "http://b"], [])
    assert delivery is not None
    assert delivery.patch.full is not classic
    dependent.acknowledge(delivery)
    assert dependent.plan(world.providers, world.revision, "e") is None


def test_a_classic_dependent_without_providers_is_told_nothing() -> None:
    assert a_dependent(True).plan(World().providers, 0, "e") is None


def test_a_protocol_2_dependent_is_told_that_there_are_none() -> None:
    delivery = a_dependent(False, "Log").plan(World().providers, 3, "e")
    assert delivery is not None
    assert delivery.patch == Patch(added=(), removed=(), revision=3, epoch="e", full=True, services=("Log",))


def test_dependent_that_was_away_gets_exactly_what_it_missed() -> None:
    world, dependent = World(), a_dependent(True, "Log")
    world.set("Log", ("http://a", "http://b"))
    first = dependent.plan(world.providers, world.revision, "e")
    assert first is not None
    dependent.acknowledge(first)
    for urls in (("http://a",), (), ("http://c",), ("http://b", "http://c")):
        world.set("Log", urls)
    assert told(dependent.plan(world.providers, world.revision, "e")) == (["http://c"], ["http://a"])


def test_what_came_and_went_while_it_was_away_is_not_mentioned() -> None:
    world, dependent = World(), a_dependent(True, "Log")
    world.set("Log", ("http://a",))
    world.set("Log", ())
    assert dependent.plan(world.providers, world.revision, "e") is None


def test_a_patch_names_the_revisions_it_leads_from_and_to() -> None:
    world, dependent = World(), a_dependent(False, "Log")
    full = dependent.plan(world.providers, world.revision, "e")
    assert full is not None
    dependent.acknowledge(full)
    world.set("Log", ("http://a",))
    delivery = dependent.plan(world.providers, world.revision, "e")
    assert delivery is not None
    assert (delivery.patch.previous, delivery.patch.revision, delivery.patch.full) == (0, 1, False)


def test_what_changed_while_a_patch_was_under_way_goes_into_the_next() -> None:
    world, dependent = World(), a_dependent(True, "Log")
    world.set("Log", ("http://a",))
    under_way = dependent.plan(world.providers, world.revision, "e")
    world.set("Log", ("http://b",))
    assert under_way is not None
    dependent.acknowledge(under_way)
    assert told(dependent.plan(world.providers, world.revision, "e")) == (["http://b"], ["http://a"])


def test_a_full_waits_until_every_provider_of_the_name_was_checked() -> None:
    world, dependent = World(), a_dependent(False)
    world.set("Log", ("http://a",), kept=("http://b",))
    world.set("Db", ("http://c",))
    delivery = dependent.plan(world.providers, world.revision, "e")
    assert delivery is not None
    assert delivery.patch.services == ("Db",)
    dependent.acknowledge(delivery)
    assert dependent.plan(world.providers, world.revision, "e") is None
    world.set("Log", ("http://a", "http://b"))
    settled = dependent.plan(world.providers, world.revision, "e")
    assert settled is not None
    assert settled.patch.services == ("Log",)
    assert told(settled) == (["http://a", "http://b"], [])


class Classic:
    """A classic receiver: it appends Added, removes Removed, and is never to be told nonsense."""

    def __init__(self) -> None:
        self.table: list[tuple[str, str]] = []

    def take(self, patch: Patch) -> None:
        assert not patch.full
        for one in patch.added or ():
            assert (one.name, one.url) not in self.table, "an Added twice"
            self.table.append((one.name, one.url))
        for one in patch.removed or ():
            assert (one.name, one.url) in self.table, "a Removed it was not told of"
            self.table.remove((one.name, one.url))

    def entries(self) -> dict[tuple[str, str], str | None]:
        return dict.fromkeys(self.table)


class Modern:
    """A Protocol 2 receiver: a Full replaces what it had of the names; it refuses a gap."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], str | None] = {}
        self.revision: int | None = None

    def take(self, patch: Patch) -> None:
        assert patch.revision is not None
        if patch.full:
            self.table = {key: zone for key, zone in self.table.items() if key[0] not in (patch.services or ())}
        else:
            assert patch.previous == self.revision, "a gap"
        for one in patch.removed or ():
            assert (one.name, one.url) in self.table, "a Removed it was not told of"
            del self.table[one.name, one.url]
        for one in patch.added or ():
            self.table[one.name, one.url] = one.zone
        self.revision = patch.revision

    def entries(self) -> dict[tuple[str, str], str | None]:
        return self.table


a_change = st.tuples(
    st.just("change"), st.sampled_from(NAMES), st.sets(st.sampled_from(URLS)).map(sorted), st.sampled_from([None, "east", "west"])
)
a_delivery = st.sampled_from([("deliver",), ("lose",), ("refuse",)])
a_late_delivery = st.tuples(st.just("late"), st.sampled_from(NAMES), st.sets(st.sampled_from(URLS)).map(sorted))


@pytest.mark.parametrize("classic", [True, False])
@given(st.lists(st.one_of(a_change, a_delivery, a_late_delivery), max_size=40))
def test_whatever_is_lost_or_refused_the_receiver_ends_with_exactly_the_truth(classic: bool, steps: list[tuple[object, ...]]) -> None:
    world, dependent, receiver = World(), a_dependent(classic), Classic() if classic else Modern()

    def deliver() -> None:
        while delivery := dependent.plan(world.providers, world.revision, "e"):
            receiver.take(delivery.patch)
            dependent.acknowledge(delivery)

    for step in steps:
        match step:
            case ("change", str(name), list(urls), zone):
                world.set(name, tuple(urls), zone=zone)  # type: ignore[arg-type]
            case ("deliver",):
                deliver()
            case ("late", str(name), list(urls)):
                # The truth moves on while a patch is under way.
                if delivery := dependent.plan(world.providers, world.revision, "e"):
                    world.set(name, tuple(urls))
                    receiver.take(delivery.patch)
                    dependent.acknowledge(delivery)
            case _:
                dependent.plan(world.providers, world.revision, "e")  # never arrived, or was answered 500 and not taken
    deliver()
    truth = {(name, url): entry.zone for name in NAMES for url, entry in world.providers(name).entries.items()}
    assert receiver.entries() == (dict.fromkeys(truth) if classic else truth)


@given(
    st.sets(st.sampled_from(URLS)),
    st.lists(st.tuples(st.sampled_from(URLS), st.booleans()), max_size=12),
)
def test_after_a_restart_whoever_knows_a_provider_keeps_it_until_its_check_is_done(
    before: set[str], checks: list[tuple[str, bool]]
) -> None:
    """The set starts all kept; each check makes one up or down; the classic receiver is sent no Removed but of those that failed."""
    world, dependent, receiver = World(), a_dependent(True, "Log"), Classic()
    world.set("Log", tuple(sorted(before)))
    if first := dependent.plan(world.providers, world.revision, "e"):
        receiver.take(first.patch)
        dependent.acknowledge(first)
    up: set[str] = set()
    kept = set(before)
    for url, passes in checks:
        if url in kept:
            kept.discard(url)
            if passes:
                up.add(url)
        world.set("Log", tuple(sorted(up)), kept=tuple(kept))
        if delivery := dependent.plan(world.providers, world.revision, "e"):
            receiver.take(delivery.patch)
            dependent.acknowledge(delivery)
        assert {url for _, url in receiver.table} == up | kept


@pytest.mark.parametrize("classic", [True, False])
def test_who_acknowledged_the_same_shares_one_knowledge(classic: bool) -> None:
    world = World()
    world.set("Log", ("http://a",))
    known = fresh(("Log",), classic)
    assert fresh(("Log",), classic) is known
    first = plan(known, classic, world.providers, world.revision, "e")
    assert first.known is known
    assert first.delivery is not None
    later = plan(first.delivery.result, classic, world.providers, world.revision, "e")
    assert later.delivery is None
    assert later.known is first.delivery.result, "nothing changed, so nobody gets another object"


def test_knowledge_cannot_be_changed_under_those_who_share_it() -> None:
    with pytest.raises(TypeError):
        fresh(("Log",), True).sets["Log"] = EMPTY  # type: ignore[index]
