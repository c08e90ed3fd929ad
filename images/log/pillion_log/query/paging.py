"""Searches block by block, newest or oldest first, within a bound of work, and says how far it came. Only Block.read reads.

Order is the order of arrival; Time is what the sender's clock said. Blocks that cannot have a wanted entry, by what their summaries say of
both, are not read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from pillion_log.query.matching import Match, Matcher
from pillion_log.query.question import Cursor, Question
from pillion_log.query.shapes import Shape
from pillion_log.store.base import CHECK, Block

MAX_SEARCH_S = 10.0  # of work for one request; what the client takes to read the answer does not count
STEP_S = 0.05
KEPT_BYTES = 4 << 20  # of one page; entries beyond are read a second time


class Received(msgspec.Struct, rename="pascal", gc=False):
    """What a line says of when it came."""

    received: str = ""


_decode = msgspec.json.Decoder(Received).decode


class Search:
    """One request's way through the blocks.

    Args:
        blocks: newest first if the cursor goes back, else oldest first.
        clock: seconds; only differences count.

    `cursor` is where the next page begins (None: there is no more), `done` whether that is all there is up to there; `scanned` is when the
    entry was received up to which was searched, if that was not all.
    """

    def __init__(
        self, blocks: Iterator[Block], question: Question, matcher: Matcher, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._blocks = blocks
        self._left = question.limit
        self._start = question.cursor
        self._matcher = matcher
        self._clock = clock
        self._spent_s = 0.0
        self.cursor: Cursor | None = None if question.cursor.back else question.cursor
        self.done = True
        self.scanned = ""
        self.over = False

    def step(self) -> tuple[Block, list[Match]] | None:
        """Search on until something is found, for a moment at most; None: nothing was found in it. Then see whether it is `over`."""
        began = self._clock()
        try:
            for block in self._blocks:
                found = self._look(block)
                spent_s = self._clock() - began
                if not self.over and self._spent_s + spent_s >= MAX_SEARCH_S:
                    self._end_early(block)
                if found:
                    return block, found
                if self.over or spent_s >= STEP_S:
                    return None
            self.over = True
            if self._start.back:
                self.cursor = None
            return None
        finally:
            self._spent_s += self._clock() - began

    def _look(self, block: Block) -> list[Match]:
        """Return the block's wanted entries in the order of the search, as many as are still missing."""
        back, position = self._start.back, self._start.position
        if (block.start >= position) if back else (block.end <= position):
            return []
        self.cursor = Cursor(block.start, True) if back else Cursor(block.end, False)
        if not self._matcher.may_match(block.summary):
            return []
        low, high = (0, position) if back else (position, block.end)
        matches = self._matcher.look(block.read(), block.start, block.summary, low, high)
        found = list(matches)[: -self._left - 1 : -1] if back else list(islice(matches, self._left))
        self._left -= len(found)
        if self._left == 0:
            last = found[-1]
            self.cursor = Cursor(last.position, True) if back else Cursor(last.position + len(last.line) + 1, False)
            self.over = True
        return found

    def _end_early(self, block: Block) -> None:
        self.over, self.done = True, False
        if block.summary:
            self.scanned = block.summary.first_received if self._start.back else block.summary.last_received
        else:
            self.scanned = _received(block.read(), self._start.back)


class Part(NamedTuple):
    """A part of a page that is read when it is sent."""

    block: Block
    low: int
    high: int

    def read(self, question: Question, matcher: Matcher, shape: Shape) -> bytes:
        """Return its entries."""
        matches = matcher.look(self.block.read(), self.block.start, self.block.summary, self.low, self.high)
        return _shaped(list(matches), question.newest_first, shape)


class Page:
    """Gathers a page before it is sent, in bounded memory: so what comes after it is known first."""

    def __init__(self, question: Question, matcher: Matcher, shape: Shape) -> None:
        self._question = question
        self._matcher = matcher
        self._shape = shape
        self._parts: list[bytes | Part] = []
        self._room = KEPT_BYTES

    def add(self, block: Block, found: list[Match]) -> None:
        """Add what a step found."""
        positions = sorted((found[0].position, found[-1].position))
        piece = self.shaped(found)
        self._room -= len(piece)
        self._parts.append(piece if self._room >= 0 else Part(block, positions[0], positions[1] + 1))

    def shaped(self, found: list[Match]) -> bytes:
        """Return what a step found as it is shown."""
        in_order = found[::-1] if self._question.cursor.back else found
        return _shaped(in_order, self._question.newest_first, self._shape)

    def pieces(self) -> Iterator[bytes]:
        """Return the page in pieces. Each step may read a block."""
        for part in self._parts if self._question.as_found else reversed(self._parts):
            yield part if isinstance(part, bytes) else part.read(self._question, self._matcher, self._shape)


def _shaped(in_order: list[Match], newest_first: bool, shape: Shape) -> bytes:
    return b"".join(map(shape, in_order[::-1] if newest_first else in_order))


def _received(data: bytes, first: bool) -> str:
    """Return when the first or the last entry of stored lines was received, or nothing."""
    lines = data.split(b"\n")
    for line in lines if first else reversed(lines):
        if line and not line.startswith(CHECK):
            try:
                return _decode(line).received
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    return ""
