"""Answers queries without blocking the loop: each step is searched in a thread, few at a time. Knows no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_log.query.matching import Matcher
from pillion_log.query.paging import MAX_SEARCH_S, Page, Search
from pillion_log.query.question import Question, parse_question
from pillion_log.query.shapes import Shape, as_json, as_text
from pillion_log.store.base import Block, Store, StoreStats

MAX_ANSWERS = 32  # that are being sent; a slow reader has a place among them, no thread
MAX_STEPS = 2  # searched at one moment
WAIT_S = 10.0

T = TypeVar("T")

_log = EventLog("reader")


class Answer:
    """What is known of an answer before its first piece is sent: where the next page begins; empty if its last line tells that."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        self.pieces = pieces
        self.headers = headers


class Threads:
    """Where what blocks is done: a few at one moment."""

    def __init__(self, count: int = MAX_STEPS) -> None:
        self._free = asyncio.Semaphore(count)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns."""
        async with self._free:
            return await asyncio.to_thread(work)


class Reader:
    """Runs queries over a store.

    Args:
        store: what is searched.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.threads = Threads()
        self._free = asyncio.Semaphore(MAX_ANSWERS)

    @asynccontextmanager
    async def answer(self, parameters: Mapping[str, str], *, as_text: bool) -> AsyncIterator[Answer]:
        """Answer a query in pieces, some of them empty; take them all, or leave the context earlier.

        Raises:
            InvalidInput: a parameter is not valid. Unavailable: too many queries run, or the store cannot be read.
        """
        question = parse_question(parameters, self._clock())
        matcher = await self.threads.run(lambda: Matcher(question.filter))
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(f"{MAX_ANSWERS} queries are running; try again soon", code="busy", retry_after_s=5) from None
        try:
            cursor = question.cursor
            context = self._store.blocks(0 if cursor.back else cursor.position, cursor.back)
            try:
                blocks = await asyncio.to_thread(context.__enter__)
            except OSError as exc:
                raise Unavailable(f"the log's store cannot be read: {exc}", code="store_failed", retry_after_s=5) from exc
            try:
                yield await self._begin(blocks, question, matcher, as_text)
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)
        finally:
            self._free.release()

    async def stats(self) -> StoreStats:
        """Return what the store holds."""
        return await asyncio.to_thread(self._store.stats)

    async def _begin(self, blocks: Iterator[Block], question: Question, matcher: Matcher, as_text: bool) -> Answer:
        sending = _Sending(self.threads, Search(blocks, question, matcher), question, matcher, as_text)
        if question.told and question.as_found:
            return Answer(sending.as_found(), {})
        await sending.gather()
        return Answer(sending.gathered(), sending.headers())


class _Sending:
    """One answer under way."""

    def __init__(self, threads: Threads, search: Search, question: Question, matcher: Matcher, as_text: bool) -> None:
        self._threads = threads
        self._search = search
        self._told = question.told
        self._as_text = as_text
        shape: Shape = _shape(as_text)
        self._page = Page(question, matcher, shape)
        self._fault = ""

    async def as_found(self) -> AsyncIterator[bytes]:
        """Send each entry when it is found."""
        try:
            while not self._search.over:
                step = await self._threads.run(self._search.step)
                if step:
                    yield self._page.shaped(step[1])
        except OSError as exc:
            self._failed(exc)
        yield self._last_line()

    async def gather(self) -> None:
        """Find all entries first."""
        try:
            while not self._search.over:
                step = await self._threads.run(self._search.step)
                if step:
                    self._page.add(*step)
        except OSError as exc:
            self._failed(exc)

    async def gathered(self) -> AsyncIterator[bytes]:
        """Send what was gathered."""
        pieces = self._page.pieces()
        try:
            while (piece := await self._threads.run(lambda: next(pieces, None))) is not None:
                yield piece
        except OSError as exc:
            self._failed(exc)
        yield self._last_line()

    def headers(self) -> dict[str, str]:
        """Return what the head says of the page."""
        search = self._search
        headers = {"X-Pillion-Done": "true" if search.done and not self._fault else "false"}
        if search.cursor and not self._fault:
            headers["X-Pillion-Cursor"] = str(search.cursor)
        if search.scanned:
            headers["X-Pillion-Scanned"] = search.scanned
        return headers

    def _failed(self, exc: OSError) -> None:
        # Part of the answer may be out: it must not look whole.
        _log.warn_seldom("scan_failed", f"a query ended early: {exc}")
        self._fault = f"the answer ends here: the store cannot be read: {exc.strerror}"

    def _last_line(self) -> bytes:
        """Return the line that says how the answer ended, if it did not reach its end or that was asked for."""
        search = self._search
        if self._fault:
            said: dict[str, object] = {"Error": "store_failed", "Message": self._fault}
        elif not search.done:
            why = f"{MAX_SEARCH_S:g} s were searched, up to what was received at {search.scanned}; go on with cursor={search.cursor}"
            said = {"Error": "not_done", "Message": why}
        elif self._told:
            said = {}
        else:
            return b""
        if not self._fault:
            said |= {"Cursor": search.cursor and str(search.cursor), "Scanned": search.scanned, "Done": search.done}
        line = msgspec.json.encode(said) + b"\n"
        return b"# " + line if self._as_text else line


def _shape(as_text_lines: bool) -> Shape:
    return as_text if as_text_lines else as_json
