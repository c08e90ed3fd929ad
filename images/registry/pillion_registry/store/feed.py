"""Follows a bucket: takes what its leader tells as it keeps it, and reads what of that got lost. Knows nothing of what it says.

NATS publishes each message of the bucket again once it is kept, with its number (the stream's `republish`). So it is followed without a
consumer, which nobody can make while JetStream elects its own leader. What is published gets lost where a connection fails or the bucket's
leader does: the next message's number shows that, or the newest one's, which is asked for twice a second.

A bucket has one message for each key, so what is missing may have been replaced meanwhile. Without what took its place, what came after it
would be shown as if it had never been: at one revision something else than a registry shows that missed nothing. So all of it is handed on
in one turn of the loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

import nats.errors

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_stream import State, StreamGone
from pillion_registry.store.nats_bucket import AT_ONCE, Bucket, Entry

BEAT_S = 0.5
MANY = 1_000  # messages are read by their numbers; where more are missing, all keys are
MAX_AHEAD = 2_000  # messages after one that is missing; more are read as well
SETTLE_S = 1.0  # for what replaces what is missing to be read too; then what is there is shown: better than nothing, where it never ends
GONE_S = 3.0  # a server that has just started may not know the stream yet, and one that was just elected not all of it

_log = EventLog("store")


class Feed:
    """Hands each entry on once, in the order of the revisions, in the loop's thread; what was replaced meanwhile is passed over.

    Args:
        take: must not raise.
    """

    def __init__(self, bucket: Bucket, take: Callable[[Entry], None]) -> None:
        self._bucket = bucket
        self._take = take
        self._seen = 0
        self._ahead: dict[int, Entry] = {}  # that came while earlier ones are missing
        self._reading = True
        self._missing = asyncio.Event()
        self._stopped = False
        self._broken: Exception | None = None  # a fault of `take`
        self.heard_at = time.monotonic()  # of the bucket, be it that there is nothing new

    def stop(self) -> None:
        """Have `run` end."""
        self._stopped = True
        self._missing.set()

    async def run(self) -> None:
        """Follow from the beginning on, over any outage, until it is stopped.

        Raises:
            StreamGone: the bucket is not there any more, or was put back to an earlier state.
        """
        subscription = await self._bucket.listen(self._hear)
        gone_at: float | None = None
        try:
            while not self._stopped:
                if self._broken is not None:
                    raise self._broken
                self._missing.clear()
                seen = self._seen
                try:
                    await self._look()
                except StreamGone:
                    gone_at = gone_at or time.monotonic()
                    if time.monotonic() - gone_at > GONE_S:
                        raise
                except Unavailable as exc:
                    gone_at = None
                    if self._bucket.stream.reachable and not self._stopped:
                        said = f"what is new in {self._bucket.stream.name} cannot be read: {exc.message}; trying again"
                        _log.warn_seldom("following_failed", said)
                else:
                    gone_at = None
                    if self._seen > seen or not self._ahead:  # else the leader lacks what has been told already
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._missing.wait(), BEAT_S)
                        continue
                await asyncio.sleep(BEAT_S)
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    def _hear(self, entry: Entry) -> None:
        """Take what was published, if nothing is missing before it."""
        self.heard_at = time.monotonic()
        if entry.seq > self._seen and len(self._ahead) < MAX_AHEAD:
            self._ahead[entry.seq] = entry
        if not self._reading:
            try:
                self._go_on()
            except Exception as exc:  # nats-py would swallow it, and what is here would differ from the bucket without a word
                self._broken = exc
                self._missing.set()

    def _go_on(self) -> None:
        while (entry := self._ahead.pop(self._seen + 1, None)) is not None:
            self._seen = entry.seq
            self._take(entry)
        if self._ahead:
            self._missing.set()

    async def _look(self) -> None:
        """Read what is missing, if anything is."""
        newest = await self._bucket.newest()
        if newest is not None:
            self.heard_at = time.monotonic()
        begun = not self._reading
        if begun and newest == self._seen and not self._ahead:
            return
        found: list[Entry] = []
        upto = self._seen
        self._reading = True
        try:
            found, upto = await self._read()
            begun = True
        finally:
            self._reading = not begun
            if begun:
                self._hand_on(found, upto)

    def _hand_on(self, found: list[Entry], upto: int) -> None:
        for entry in found:
            self._seen = entry.seq
            self._take(entry)
        self._seen = max(self._seen, upto)
        self._ahead = {seq: entry for seq, entry in self._ahead.items() if seq > self._seen}
        self._go_on()

    async def _read(self) -> tuple[list[Entry], int]:
        """Return what there is after what was seen, with all that took the place of what was replaced, and up to which revision.

        Only a leader that has all before a message can say that it is not there: one that was just elected may not have it yet.
        """
        found: list[Entry] = []
        at, ends = self._seen, math.inf
        before: str | None = None  # who said of some messages that they are not there
        while True:
            server, state = await self._lead()
            if before not in (None, server):
                raise Unavailable("its leader has just changed")
            if state.last < self._seen:
                raise StreamGone(f"the stream {self._bucket.stream.name} was put back to an earlier state")
            first = max(at + 1, state.first)
            if state.last < first:
                return found, max(at, state.last)
            if time.monotonic() > ends:
                return found, at
            if state.last - first < MANY:
                more = await self._numbered(first, state.last)
            else:
                more = sorted(entry for entry in await self._bucket.entries() if at < entry.seq <= state.last)
            found += more
            whole, at, before = len(more) == state.last - at, state.last, server
            if whole:
                return found, at
            ends = min(ends, time.monotonic() + SETTLE_S)

    async def _lead(self) -> tuple[str, State]:
        told = await self._bucket.stream.lead()
        self.heard_at = time.monotonic()
        return told

    async def _numbered(self, first: int, last: int) -> list[Entry]:
        """Return those of these numbers that are there."""
        free = asyncio.Semaphore(AT_ONCE)

        async def one(seq: int) -> Entry | None:
            if (entry := self._ahead.get(seq)) is not None:
                return entry
            async with free:
                entry = await self._bucket.numbered(seq)
            self.heard_at = time.monotonic()
            return entry

        return [entry for entry in await asyncio.gather(*map(one, range(first, last + 1))) if entry is not None]
