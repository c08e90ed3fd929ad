"""What a store of log entries promises. Five methods; the contract suite in tests/contract runs over every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from pillion_common.errors import Unavailable
from pillion_log.entries import Run


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of the entries of one `append`."""

    accepted: int
    duplicates: int


Done = Callable[[Appended | Unavailable], None]


class Block(Protocol):
    """A run of neighbouring entries, read when it is asked for."""

    def lines(self) -> list[bytes]:
        """Return the entries' lines without newlines, oldest first. Blocks.

        Raises:
            OSError: the medium cannot be read.
        """


class Store(Protocol):
    """Keeps entries in the order they came in, a bounded amount: the oldest give way."""

    async def load(self) -> None:
        """Open the store and learn what it holds. Called once, first.

        Raises:
            PillionError: it cannot be opened or read; the message says what to do.
        """

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries in their order, after every earlier call's. From the loop's thread.

        An entry whose Seq is at or below the highest one kept of its Source is a duplicate: it is counted, not kept. That holds for calls
        at the same time too, and after a restart, for the 10,000 sources that wrote last.

        Args:
            done: called once, in the loop's thread, and must not raise. It is given what became of the entries as soon as all of them are
                durable; StorageFull if there is no room, Unavailable if too much is waiting or the medium failed: then nothing was
                kept, and the same entries can be sent again.
        """

    def blocks(self) -> AbstractContextManager[Iterator[Block]]:
        """Return the durable entries in blocks, newest block first. What is kept later is not seen. Blocks: use it in a thread."""

    def fault(self) -> str | None:
        """Return why nothing can be kept now, or None. A store with a fault tries by itself, and takes entries again as soon as it can."""

    async def close(self) -> None:
        """Finish what was appended and close. Safe to call twice."""
