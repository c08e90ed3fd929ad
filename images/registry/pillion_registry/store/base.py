"""What a store of the registry promises. Four methods; the contract suite in tests/contract runs over every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pillion_common.errors import PillionError, Unavailable
from pillion_common.models import ProviderEntry, State
from pillion_registry.catalog import Record

# Revisions are written with the changes they belong to, states a moment later than they are told: a restarted registry skips this many, so
# that it never gives a revision a second time.
REVISION_GAP = 10_000

Known = Mapping[str, tuple[ProviderEntry, ...]]

OnDone = Callable[[PillionError | None], None]


class Outdated(Unavailable):
    """Another change came first: decide anew."""

    code = "outdated"


class Hand(NamedTuple):
    """What made a change, for the journals of other replicas: the event's kind and who asked for it."""

    kind: str = ""
    by: str | None = None


NOBODY = Hand()


class Put(NamedTuple):
    """Keep a record, with its state, in the place of the `replaced` ones."""

    record: Record
    state: State
    since_s: float
    replaced: tuple[str, ...]
    revision: int
    hand: Hand = NOBODY


class SetState(NamedTuple):
    """Keep a new state, if the record is still of that generation: a late word about a removed instance changes nothing.

    Attributes:
        expected: the revision of the instance for which this was decided, where several replicas decide; what came since may say otherwise.
        firm: tell so (Outdated) where something came since; else drop the change.
    """

    instance_id: str
    generation: int
    state: State
    reason: str | None
    since_s: float
    revision: int
    hand: Hand = NOBODY
    hidden_until_s: float | None = None
    expected: int | None = None
    firm: bool = True


class Remove(NamedTuple):
    """Drop a record and what its instance had acknowledged, if the record is still of that generation; `firm`: else tell so (Outdated)."""

    instance_id: str
    generation: int
    revision: int
    hand: Hand = NOBODY
    reason: str = ""
    firm: bool = False


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

    def submit(self, changes: Sequence[Change], on_done: OnDone) -> None:
        """Keep the changes: all or none, after every earlier call's. Costs no future and no task.

        Args:
            changes: applied in this order; whoever calls leaves them as they are.
            on_done: called once, in the loop's thread, after this has returned: with None when the changes are durable, else with what
                `commit` raises. The calls of one group come right after another; it had better be short.
        """

    async def commit(self, changes: Sequence[Change]) -> None:
        """Do what `submit` does; returns when the changes are durable. They are kept even if the caller gives up waiting.

        Raises:
            StorageFull: no room. Unavailable: too much is waiting, the store is closed, or the medium failed. Nothing was kept.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: PillionError | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
                done.exception()  # a caller that is cancelled in this very turn will not fetch it

        self.submit(changes, settle)
        await done

    async def close(self) -> None:
        """Finish what was committed and close. Safe to call twice."""
