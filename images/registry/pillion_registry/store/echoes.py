"""Those who wait until this replica has seen a revision itself."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from pillion_common.errors import Unavailable
from pillion_common.nats_link import RETRY_AFTER_S

SEEN_S = 5.0


class Echoes:
    """Wakes them in the order of their revisions."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wake(self, revision: int) -> None:
        """Wake those who wait for this revision or an earlier one, after those who are told of it in this turn of the loop."""
        while self._waiting and self._waiting[0][0] <= revision:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.get_loop().call_soon(_settle, future)

    async def wait(self, revision: int, timeout_s: float) -> None:
        """Return when a revision has been seen.

        Raises:
            Unavailable: it has not within the time.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._order), future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError as exc:
            said = "NATS has kept it, but does not show it to this registry"
            raise Unavailable(said, code="store_failed", retry_after_s=RETRY_AFTER_S) from exc


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
