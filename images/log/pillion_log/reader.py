"""Answers queries without blocking the loop: each block is read and searched in a thread, few queries at a time. Knows no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_log import query
from pillion_log.store.base import Store

MAX_QUERIES = 4
WAIT_S = 10.0

_log = EventLog("reader")


class Reader:
    """Runs queries over a store.

    Args:
        store: what is searched.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._free = asyncio.Semaphore(MAX_QUERIES)

    @asynccontextmanager
    async def answer(self, parameters: Mapping[str, str], *, as_text: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """Answer a query in pieces, some of them empty; take them all, or leave the context earlier.

        Raises:
            InvalidInput: a parameter is not valid. Unavailable: too many queries run, or the store cannot be read.
        """
        wanted = query.parse_query(parameters, self._clock())
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(f"{MAX_QUERIES} queries are running; try again soon", code="busy", retry_after_s=5) from None
        try:
            context = self._store.blocks()
            try:
                blocks = await asyncio.to_thread(context.__enter__)
            except OSError as exc:
                raise Unavailable(f"the log's store cannot be read: {exc}", code="store_failed", retry_after_s=5) from exc
            try:
                yield _pieces(query.scan(blocks, wanted, query.as_text if as_text else query.as_json))
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)
        finally:
            self._free.release()


async def _pieces(scan: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while (piece := await asyncio.to_thread(next, scan, None)) is not None:
            yield piece
    except OSError as exc:
        # Part of the answer is out: it must not look whole.
        _log.warn_seldom("scan_failed", f"a query ended early: {exc}")
        yield f'{{"Error":"store_failed","Message":"the answer ends here: the store cannot be read: {exc.strerror}"}}\n'.encode()
