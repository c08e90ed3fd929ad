"""Follows the store for all tails: what becomes durable is searched once for each distinct filter, in a thread, and put into its ring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_log.query.question import Filter
from pillion_log.reader import Threads
from pillion_log.store.base import Block, Store
from pillion_log.tail.rings import PIECE_BYTES, Batch, Events, Ring, find_events, gap_event

MAX_STREAMS = 256
TICK_S = 0.1  # what comes within it is searched and written together
WAITING_BYTES = 16 << 20  # more than that does not wait: it is a gap for all
RING_BYTES = 4 << 20
ALL_RINGS_BYTES = 32 << 20

_log = EventLog("tails")


class Tails:
    """All rings, and who may follow.

    Args:
        threads: where the searching is done.
        tick_s: how often.
    """

    def __init__(self, store: Store, threads: Threads, tick_s: float = TICK_S) -> None:
        self.store = store
        self.threads = threads
        self.closed = False
        self.streams = 0
        self.missed = 0  # entries that were not sent to slow readers, since the start
        self._tick_s = tick_s
        self._rings: dict[Filter, Ring] = {}
        self._waiting: list[Block] = []
        self._waiting_bytes = 0
        self._lost = False  # something that waited was dropped
        self._taken = self._end = 0  # positions: up to which it is being searched, up to which there is something
        self._searching: asyncio.Task[None] | None = None
        self._unfollow: Callable[[], None] | None = None

    def open(self, wanted: Filter) -> Ring:
        """Return the ring of a filter, for one stream more.

        Raises:
            Unavailable: there are too many. InvalidInput: its regular expression is not one.
        """
        if self.closed:
            raise Unavailable("the log service is stopping", code="stopping")
        if self.streams >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} tails are open here already; close one", code="too_many_tails", retry_after_s=5)
        if self._unfollow is None:
            self._unfollow = self.store.follow(self._take)
            self._taken = self._end = self.store.stats().end
        ring = self._rings.get(wanted)
        if ring is None:
            ring = self._rings[wanted] = Ring(wanted, self._taken)
        ring.streams += 1
        self.streams += 1
        return ring

    def leave(self, wanted: Filter) -> None:
        """Let one stream go."""
        ring = self._rings[wanted]
        ring.streams -= 1
        self.streams -= 1
        if not ring.streams:
            del self._rings[wanted]

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        if self._unfollow is not None:
            self._unfollow()
        for ring in self._rings.values():
            ring.wake()

    def _take(self, block: Block) -> None:
        """Keep what has become durable until the next search."""
        if block.end <= self._end:
            return  # it was there before anybody followed
        self._end = block.end
        if not self._rings:
            self._taken, self._waiting, self._waiting_bytes = self._end, [], 0
            return
        self._waiting.append(block)
        self._waiting_bytes += block.end - block.start
        if self._waiting_bytes > WAITING_BYTES:
            self._waiting, self._waiting_bytes, self._lost = [], 0, True
        if self._searching is None:
            self._searching = asyncio.create_task(self._search(), name="tails-search")
            self._searching.add_done_callback(self._searched)

    async def _search(self) -> None:
        """Search what waits, again and again as long as something does."""
        while self._end > self._taken:
            await asyncio.sleep(self._tick_s)
            blocks, self._waiting, self._waiting_bytes = self._waiting, [], 0
            begun, self._taken = self._taken, self._end
            reached = self._taken
            rings = list(self._rings.values())
            found = await self.threads.run(lambda: _search_all(rings, blocks))  # noqa: B023
            if self._lost:
                self._lost = False
                went_on = blocks[0].start if blocks else reached
                lost = Events(gap_event(None, begun, went_on), 0, went_on)
                found = [[lost, *events] for events in found]
            room = max(PIECE_BYTES, min(RING_BYTES, ALL_RINGS_BYTES // max(1, len(rings))))
            for ring, events in zip(rings, found, strict=True):
                ring.add(events, reached, room)

    def _searched(self, task: asyncio.Task[None]) -> None:
        self._searching = None
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.fault("tails_failed", f"tails are told no more: {exc}", exc)
            self.close()


def _search_all(rings: list[Ring], blocks: list[Block]) -> list[list[Events]]:
    """Return what each ring wants of some blocks."""
    batch = Batch.of(blocks)
    return [find_events(ring.matcher, batch) for ring in rings]
