"""The newest entries that one filter wants, as ready-made server-sent events that all who follow it are served from. Pure.

    id: 8123                                                    an entry; its id is its position
    data: {"Time":"…","Service":"GradingService",…}

    event: gap                                                  entries that were not sent
    id: 9000
    data: {"Missed":17,"From":8200,"To":9000,"Cursor":"f2008"}

A stream holds nothing but its place in the ring. One that reads too slowly to keep it is told how many entries it missed.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from pillion_log.query.matching import Match, Matcher
from pillion_log.query.question import Cursor, Filter
from pillion_log.query.shapes import as_event
from pillion_log.store.base import Block

PIECE_BYTES = 128 << 10


class Events(NamedTuple):
    """Some entries as events."""

    text: bytes
    entries: int
    last: int  # position of the last one


class Batch(NamedTuple):
    """Blocks, many of them tiny, to be searched as one."""

    text: bytes
    offsets: list[int]  # where in the text each block begins
    starts: list[int]  # and at which position of the log

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Batch:
        """Read blocks.

        Raises:
            OSError: one cannot be read.
        """
        texts = [block.read() for block in blocks]
        offsets = [0, *accumulate(map(len, texts))]
        return cls(b"".join(texts), offsets[:-1], [block.start for block in blocks])

    def position(self, offset: int) -> int:
        """Return the position of what stands at an offset of the text."""
        number = bisect_right(self.offsets, offset) - 1
        return self.starts[number] + offset - self.offsets[number]


class Piece(NamedTuple):
    """Events in their place in a ring."""

    turn: int  # counts pieces
    number: int  # counts entries: how many the filter wanted before these
    events: Events


class Place(NamedTuple):
    """How far a stream has read a ring."""

    turn: int
    number: int


class Ring:
    """What the streams of one filter are served from.

    Args:
        reached: the position up to which nothing will come any more: who wants it reads it from the disk.
    """

    def __init__(self, wanted: Filter, reached: int) -> None:
        self.matcher = Matcher(wanted)
        self.reached = reached
        self.streams = 0
        self._pieces: deque[Piece] = deque()
        self._turn = self._number = self._bytes = 0
        self._news = asyncio.Event()

    @property
    def place(self) -> Place:
        """Where the next piece will be."""
        return Place(self._turn, self._number)

    def add(self, found: Sequence[Events], reached: int, max_bytes: int) -> None:
        """Add what was found up to a position; the oldest gives way, the newest stays whatever its size."""
        for events in found:
            self._pieces.append(Piece(self._turn, self._number, events))
            self._turn += 1
            self._number += events.entries
            self._bytes += len(events.text)
        while self._bytes > max_bytes and len(self._pieces) > 1:
            self._bytes -= len(self._pieces.popleft().events.text)
        self.reached = reached
        if found:
            self.wake()

    def wake(self) -> None:
        """Let all streams look."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Wait for news."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass

    def holds(self, place: Place) -> bool:
        """Return whether all that came after a place is there still."""
        return place.turn >= self._turn - len(self._pieces)

    def next(self, place: Place) -> Piece | None:
        """Return the piece at a place; if that has given way, the newest; None if nothing came yet."""
        if place.turn >= self._turn:
            return None
        return self._pieces[place.turn - self._turn] if self.holds(place) else self._pieces[-1]


def find_events(matcher: Matcher, batch: Batch) -> list[Events]:
    """Return the wanted entries."""
    found: list[Events] = []
    lines: list[bytes] = []
    size = last = 0
    for match in matcher.look(batch.text, 0):
        last = batch.position(match.position)
        lines.append(as_event(Match(last, match.line, match.stored)))
        size += len(lines[-1])
        if size >= PIECE_BYTES:
            found.append(Events(b"".join(lines), len(lines), last))
            lines, size = [], 0
    if lines:
        found.append(Events(b"".join(lines), len(lines), last))
    return found


def gap_event(missed: int | None, first: int, last: int) -> bytes:
    """Return the event that tells of entries that were not sent.

    Args:
        missed: how many; None if nobody knows.
        first: the position from which on they are missing.
        last: the position at which the stream goes on: what is before it is not sent any more.
    """
    told = {"Missed": missed, "From": first, "To": last, "Cursor": str(Cursor(first, back=False))}
    return b"event: gap\nid: %d\ndata: %b\n\n" % (max(0, last - 1), msgspec.json.encode(told))
