"""A dependent: an instance that requires services, and what it has acknowledged of their providers. Pure.

Level-triggered: a patch is always the difference from what was acknowledged to the truth of this moment, so nothing is lost or doubled,
and changes that come while a dependent is slow or away melt into one patch. What dependents know is immutable: those who acknowledged the
same patches share one object, and so one plan of what to tell them next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from pillion_common.models import Patch, ProviderEntry
from pillion_registry.provider_set import EMPTY, ProviderSet, difference

Providers = Callable[[str], ProviderSet]


class Knowledge(NamedTuple):
    """What somebody knows, by name; None where nobody can say, so that only a Full helps (Protocol 2). `revision` is the one it is at."""

    sets: Mapping[str, ProviderSet | None]
    revision: int | None

    def learn(self, sets: Mapping[str, ProviderSet], revision: int | None) -> Knowledge:
        """Return this with some sets replaced."""
        return Knowledge(MappingProxyType({**self.sets, **sets}), revision)


class Delivery(NamedTuple):
    """One patch, and what its receiver knows once it has answered 200."""

    patch: Patch
    result: Knowledge


class Plan(NamedTuple):
    """What is due to all who have the same knowledge: a delivery, or (None) nothing but to take `known` for what they have."""

    known: Knowledge
    delivery: Delivery | None


@lru_cache(maxsize=1024)
def fresh(requires: tuple[str, ...], classic: bool) -> Knowledge:
    """Return what somebody knows who has just registered: a classic one has an empty table, a Protocol 2 one is sent a Full."""
    return Knowledge(MappingProxyType(dict.fromkeys(requires, EMPTY if classic else None)), None)


def plan(known: Knowledge, classic: bool, providers: Providers, revision: int, epoch: str) -> Plan:
    """Return what is due now.

    Args:
        known: what the receiver has acknowledged.
        classic: it appends every Added entry, and knows no Full.
        providers: the present providers of a service.
        revision, epoch: the registry's own, to which the patch brings the receiver.
    """
    if not classic and None in known.sets.values():
        full = _plan_full(known, providers, revision, epoch)
        if full is not None:
            return Plan(known, full)
    return _plan_difference(known, classic, providers, revision, epoch)


def _plan_full(known: Knowledge, providers: Providers, revision: int, epoch: str) -> Delivery | None:
    # A set with unchecked members is not the whole truth yet: it has to wait, for a Full would withdraw them.
    results = {name: truth for name, told in known.sets.items() if told is None and (truth := providers(name)).settled}
    if not results:
        return None
    added = tuple(entry for truth in results.values() for entry in truth.entries.values())
    patch = Patch(added=added, removed=(), revision=revision, epoch=epoch, full=True, services=tuple(results))
    return Delivery(patch, known.learn(results, revision))


def _plan_difference(known: Knowledge, classic: bool, providers: Providers, revision: int, epoch: str) -> Plan:
    steps = {name: difference(told, providers(name), classic) for name, told in known.sets.items() if told is not None}
    added = tuple(entry for step in steps.values() for entry in step.added)
    removed = tuple(entry for step in steps.values() for entry in step.removed)
    results = {name: step.result for name, step in steps.items()}
    if not added and not removed:
        unchanged = all(known.sets[name] is result for name, result in results.items())
        return Plan(known if unchanged else known.learn(results, known.revision), None)
    patch = Patch(added=added, removed=removed, revision=revision, previous=known.revision, epoch=epoch)
    return Plan(known, Delivery(patch, known.learn(results, revision)))


def settle(known: Knowledge, doubts: tuple[ProviderEntry, ...], revision: int, epoch: str) -> Plan:
    """Return what takes entries from a classic dependent of which nobody knows whether it has them: it ignores what it has not."""
    urls = {entry.url for entry in doubts}
    left = {name: told and ProviderSet({u: e for u, e in told.entries.items() if u not in urls}) for name, told in known.sets.items()}
    patch = Patch(added=(), removed=doubts, revision=revision, epoch=epoch)
    return Plan(known, Delivery(patch, Knowledge(MappingProxyType(left), None)))


def restore(known: Knowledge, doubts: tuple[ProviderEntry, ...], providers: Providers, revision: int, epoch: str) -> Delivery | None:
    """Return what gives entries that were just taken from a classic dependent back, as far as they are true; None if none is."""
    back: dict[str, dict[str, ProviderEntry]] = {}
    for name, url in dict.fromkeys((entry.name, entry.url) for entry in doubts):
        told = known.sets.get(name)
        if told is not None and url not in told.entries and (entry := providers(name).entries.get(url)) is not None:
            back.setdefault(name, {})[url] = entry
    if not back:
        return None
    sets = {name: ProviderSet(MappingProxyType({**told.entries, **back.get(name, {})})) for name, told in known.sets.items() if told}
    added = tuple(entry for entries in back.values() for entry in entries.values())
    return Delivery(Patch(added=added, removed=(), revision=revision, epoch=epoch), known.learn(sets, None))


@dataclass(slots=True)
class Dependent:
    """One dependent and what it knows."""

    instance_id: str
    generation: int
    requires: tuple[str, ...]
    classic: bool
    known: Knowledge
    doubts: tuple[ProviderEntry, ...] = ()  # of a classic one: see Notifier.watch

    def start_afresh(self) -> None:
        """Note that it has nothing, or that nobody knows what it has."""
        self.known = fresh(self.requires, self.classic)

    def may_know(self, name: str, url: str) -> bool:
        """Return whether it has not acknowledged that there is no such provider."""
        told = self.known.sets.get(name, EMPTY)
        return told is None or url in told.entries
