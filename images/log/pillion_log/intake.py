"""Takes in what clients send: bounds, one verdict per line, and the store's word that all of it is durable. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable

from pillion_common.errors import InvalidInput, TooLarge
from pillion_common.models import Model
from pillion_log import entries
from pillion_log.entries import Entry
from pillion_log.store.base import Store

MAX_TEXT_BYTES = 64 * 1024
MAX_LINES = 10_000


class Rejected(Model, frozen=True, omit_defaults=False):
    """A line that is no entry: its number, from 1, and why."""

    line: int
    error: str


class Taken(Model, frozen=True, omit_defaults=False):
    """The answer to a batch: `{"Accepted":2,"Duplicates":0,"Rejected":[{"Line":3,"Error":"…"}]}`."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejected, ...]


class Intake:
    """Makes entries and stores them.

    Args:
        store: where they go.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def take_text(self, body: bytes) -> None:
        """Store one classic message; durable when this returns.

        Raises:
            InvalidInput: it is empty. TooLarge: over 64 KB. Unavailable, StorageFull: it was not stored.
        """
        if len(body) > MAX_TEXT_BYTES:
            raise TooLarge(f"the message is over {MAX_TEXT_BYTES} bytes; send less at a time")
        await self._store.append([entries.from_text(body, entries.stamp(self._clock()))])

    async def take_batch(self, body: bytes) -> Taken:
        """Store the good lines of an NDJSON body; durable when this returns. Empty lines are passed over, but counted.

        Raises:
            InvalidInput: it is empty. TooLarge: over 10,000 lines. Unavailable, StorageFull: nothing was stored.
        """
        if body.count(b"\n") + (not body.endswith(b"\n")) > MAX_LINES:
            raise TooLarge(f"the batch has over {MAX_LINES} lines; send less at a time", code="too_many_lines")
        received = entries.stamp(self._clock())
        good: list[Entry] = []
        rejected: list[Rejected] = []
        for number, line in enumerate(body.split(b"\n"), 1):
            if not line or line.isspace():
                continue
            try:
                good.append(entries.from_line(line, received))
            except InvalidInput as exc:
                rejected.append(Rejected(number, exc.message))
        if not good and not rejected:
            raise InvalidInput("the body is empty; send one JSON object a line", code="empty")
        accepted, duplicates = await self._store.append(good) if good else (0, 0)
        return Taken(accepted, duplicates, tuple(rejected))
