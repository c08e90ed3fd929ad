"""Immutable sets of providers, and the exact difference between two of them. Pure.

One set per service and moment, shared by everybody who knows it: `{"http://10.0.0.7:6000": ProviderEntry(...)}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pillion_common.models import ProviderEntry, Registration


class ProviderSet(NamedTuple):
    """The providers of one service, by URL.

    `kept` are URLs that were offered before the registry restarted and have not been checked since: whoever knows them keeps them,
    nobody else is told.
    """

    entries: Mapping[str, ProviderEntry]
    kept: frozenset[str] = frozenset()

    @property
    def settled(self) -> bool:
        """Return whether this is the whole truth."""
        return not self.kept


def entry_of(instance_id: str, given: Registration) -> ProviderEntry:
    """Return what dependents are told of a registration."""
    return ProviderEntry(
        name=given.service_name,
        url=given.service_url,
        instance_id=instance_id,
        zone=given.zone,
        weight=given.weight,
        version=given.version,
        tags=given.tags,
        metadata=given.metadata,
    )


class Difference(NamedTuple):
    """What to tell somebody, and what that somebody knows afterwards."""

    added: tuple[ProviderEntry, ...]
    removed: tuple[ProviderEntry, ...]
    result: ProviderSet


EMPTY = ProviderSet(MappingProxyType({}))


def difference(known: ProviderSet, truth: ProviderSet, classic: bool) -> Difference:
    """Return what leads from what a dependent knows to the truth.

    Args:
        known: what the dependent has acknowledged.
        truth: the service's present providers.
        classic: a classic dependent appends every Added entry, so a changed entry at a known URL must not be sent to it.

    Returns:
        The difference; both lists are empty when there is nothing to tell.
    """
    if known is truth:
        return Difference((), (), truth)
    removed = tuple(entry for url, entry in known.entries.items() if url not in truth.entries and url not in truth.kept)
    added = tuple(
        entry for url, entry in truth.entries.items() if url not in known.entries or (not classic and known.entries[url] != entry)
    )
    staying = {url: entry for url, entry in known.entries.items() if url in truth.kept}
    result = ProviderSet(MappingProxyType({**staying, **truth.entries})) if staying else ProviderSet(truth.entries) if truth.kept else truth
    return Difference(added, removed, result)
