"""What classic dependents know, in a bucket, so that another registry can go on from there to the letter.

Such a dependent appends each Added entry and deletes each Removed one, so it must be known exactly what it has. Before each patch its
entries are kept as doubts, after the answer what it knows. Whoever takes a dependent over sets the key first: who had it before can keep,
and so send, nothing more. What is in doubt then is taken from the dependent before anything else (see dependent.settle).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.logs import EventLog
from pillion_common.models import ProviderEntry
from pillion_common.nats_stream import Overtaken
from pillion_registry.dependent import Delivery, Dependent, Knowledge
from pillion_registry.store.base import Known
from pillion_registry.store.nats_bucket import Bucket, Entry
from pillion_registry.store.nats_wire import Told, read_told, write

KEEP_S = 4.0  # a write waits so long for NATS
TRIES = 8
DOUBT_LOOK_S = 0.1
TAKES_AT_ONCE = 32  # what is kept before a patch must not wait behind hundreds that are being taken over

_log = EventLog("handover")


@dataclass(slots=True)
class _Held:
    generation: int
    revision: int
    doubts: tuple[ProviderEntry, ...] = ()
    result: Knowledge | None = None  # what it knows once it has acknowledged the last patch


class Handover:
    """Keeps what the classic dependents of this registry know.

    Args:
        me: this registry's name among the members.
        lives: whether another member does.
        answered_s: time in which a patch that is under way elsewhere is answered.
    """

    def __init__(self, bucket: Bucket, me: str, lives: Callable[[str], bool], answered_s: float) -> None:
        self._bucket = bucket
        self._me = me
        self._lives = lives
        self._answered_s = answered_s
        self._held: dict[str, _Held] = {}
        self._takes = asyncio.Semaphore(TAKES_AT_ONCE)

    async def take(self, instance_id: str, generation: int) -> tuple[Known, tuple[ProviderEntry, ...]]:
        """Take a dependent over; returns what it knows, and what it may know besides.

        Raises:
            Unavailable: NATS does not answer, or others want it as well.
        """
        patience_ends = time.monotonic() + self._answered_s
        for _ in range(TRIES):
            entry, told = await self._look(instance_id, generation)
            while told.doubts and self._answers(told.member) and time.monotonic() < patience_ends:
                await asyncio.sleep(DOUBT_LOOK_S)  # the answer to its patch may just come
                entry, told = await self._look(instance_id, generation)
            mine = Told(generation, told.known, told.doubts, self._me)
            try:
                async with self._takes:
                    revision = await self._bucket.put(instance_id, write(mine), entry.seq if entry else 0, KEEP_S)
            except Overtaken:
                continue
            self._held[instance_id] = _Held(generation, revision, told.doubts)
            return told.known, told.doubts
        raise Unavailable(f"others keep what {instance_id} knows")

    async def telling(self, dependent: Dependent, delivery: Delivery) -> bool:
        """Keep what a patch will tell, as doubts; returns whether it may be sent."""
        held = self._held.get(dependent.instance_id)
        doubts = {entry.url: entry for entry in (delivery.patch.added or ())} | {e.url: e for e in (delivery.patch.removed or ())}
        if held is not None and dependent.known is not held.result:  # an earlier patch that was not answered stays in doubt beside this one
            doubts = {entry.url: entry for entry in held.doubts} | doubts
        return await self._keep(dependent, _known(dependent), tuple(doubts.values()), delivery.result)

    async def told(self, dependent: Dependent, known: Known) -> bool:
        """Keep what a dependent knows now, without a doubt; returns whether that was possible."""
        return await self._keep(dependent, known, (), None)

    def drop(self, instance_id: str) -> None:
        """Think of a dependent no more."""
        self._held.pop(instance_id, None)

    def holds(self, dependent: Dependent) -> bool:
        """Return whether a dependent is ours to tell."""
        held = self._held.get(dependent.instance_id)
        return held is not None and held.generation == dependent.generation

    async def _look(self, instance_id: str, generation: int) -> tuple[Entry | None, Told]:
        """Return what is kept of a dependent, and what that says."""
        async with self._takes:
            entry = await self._bucket.get(instance_id)
        return entry, _told(entry.value if entry is not None and not entry.deleted else b"", generation)

    def _answers(self, member: str) -> bool:
        """Return whether a patch of a member may still be under way: our own as well, where we take a dependent anew."""
        return member == self._me or self._lives(member)

    async def _keep(self, dependent: Dependent, known: Known, doubts: tuple[ProviderEntry, ...], result: Knowledge | None) -> bool:
        held = self._held.get(dependent.instance_id)
        if held is None or held.generation != dependent.generation:
            return False
        value = Told(held.generation, dict(known), doubts, self._me)
        try:
            held.revision = await self._bucket.put(dependent.instance_id, write(value), held.revision, KEEP_S)
        except Overtaken:
            _log.debug("taken_over", f"{dependent.instance_id} is told by another registry", instance=dependent.instance_id)
            if self._held.get(dependent.instance_id) is held:
                del self._held[dependent.instance_id]
            return False
        except Unavailable as exc:
            _log.warn_seldom("handover_failed", f"what {dependent.instance_id} knows cannot be kept: {exc.message}")
            return False
        held.doubts, held.result = doubts, result
        return True


def _told(value: bytes, generation: int) -> Told:
    """Return what a dependent of this generation was told; one that has registered anew has nothing."""
    try:
        told = read_told(value)
    except InvalidInput:
        return Told(generation, {})
    return told if told.generation == generation else Told(generation, {})


def _known(dependent: Dependent) -> Known:
    return {name: tuple(told.entries.values()) for name, told in dependent.known.sets.items() if told is not None}
