"""What a store of the registry promises. Three methods; the contract suite in tests/contract runs over every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pillion_common.models import ProviderEntry, State
from pillion_registry.catalog import Record

# Revisions are written with the changes they belong to, states a moment later than they are told: a restarted registry skips this many, so
# that it never gives a revision a second time.
REVISION_GAP = 10_000

Known = Mapping[str, tuple[ProviderEntry, ...]]


class Put(NamedTuple):
    """Keep a record, with its state, in the place of the `replaced` ones."""

    record: Record
    state: State
    since_s: float
    replaced: tuple[str, ...]
    revision: int


class SetState(NamedTuple):
    """Keep a new state, if the record is still of that generation: a late word about a removed instance changes nothing."""

    instance_id: str
    generation: int
    state: State
    reason: str | None
    since_s: float
    revision: int


class Remove(NamedTuple):
    """Drop a record and what its instance had acknowledged, if the record is still of that generation."""

    instance_id: str
    generation: int
    revision: int


class Acknowledged(NamedTuple):
    """Keep what a classic dependent knows, by service, if its record is still of that generation."""

    instance_id: str
    generation: int
    known: Known


Change = Put | SetState | Remove | Acknowledged


class StoredInstance(NamedTuple):
    """One record as it was kept."""

    record: Record
    state: State
    since_s: float
    reason: str | None
    known: Known | None


class Stored(NamedTuple):
    """All that a store kept."""

    epoch: str
    revision: int
    instances: tuple[StoredInstance, ...]


class Store(Protocol):
    """Keeps records, states and acknowledgements."""

    async def load(self) -> Stored:
        """Open the store and return all it kept. Called once, first.

        Raises:
            PillionError: it cannot be opened or read; the message says what to do.
        """

    async def commit(self, changes: Sequence[Change]) -> None:
        """Keep the changes: all or none, after every earlier call's, durable when this returns.

        Raises:
            StorageFull: no room. Unavailable: too much is waiting, or the medium failed. Nothing was kept.
        """

    async def close(self) -> None:
        """Finish what was committed and close. Safe to call twice."""
