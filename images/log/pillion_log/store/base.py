"""What a store of log entries promises. Seven methods; the contract suite in tests/contract runs over every store.

A position is a whole number that rises with arrival. An entry's is its block's `start` plus the offset of its line within what `read`
returns. None is ever used twice, also not after a crash or when the oldest entries are gone: cursors and the tail's event ids are made
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import msgspec

from pillion_common.errors import Unavailable
from pillion_common.models import Model
from pillion_log.entries import Run

CHECK = b'{"Check":'  # a line that begins so is the store's own checksum; no entry begins so
OTHERS = "*"  # stands in a summary for the services that are too many to be named; no service can have that name


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of the entries of one `append`."""

    accepted: int
    duplicates: int


Done = Callable[[Appended | Unavailable], None]


class ServiceCount(Model, frozen=True, omit_defaults=False):
    """What there is of one service."""

    lines: int = 0
    bytes: int = 0  # of its lines with their newlines
    gaps: int = 0  # how many entries are missing by its gap entries
    first: str = ""  # Received of its first and last entry
    last: str = ""


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What an index knows of a block without reading it. Times are written as in the entries, and compare without their final Z."""

    first_time: str  # the least and the greatest Time
    last_time: str
    first_received: str
    last_received: str
    services: dict[str, ServiceCount]  # where `*` is one of them, there may be entries of services that are not named

    def may_have(self, service: str) -> bool:
        """Return whether the block can have entries of a service."""
        return service in self.services or OTHERS in self.services


class StoreStats(Model, frozen=True, omit_defaults=False):
    """What a store holds, and what it does not hold any more."""

    services: dict[str, ServiceCount]
    disk_bytes: int = 0
    oldest: int = 0  # position of the oldest entry
    end: int = 0  # position after the newest
    removed_segments: int = 0  # by retention, since the start of the program
    removed_bytes: int = 0  # of log, uncompressed
    damaged: int = 0  # places where the medium gave back something else than was written, found since the start


Wanted = Callable[[Summary], bool]


class Block(Protocol):
    """A run of neighbouring entries, read when it is asked for."""

    @property
    def start(self) -> int:
        """The position of its first byte."""

    @property
    def end(self) -> int:
        """The position after its last byte."""

    @property
    def summary(self) -> Summary | None:
        """What is known of it without reading it; None: nothing."""

    def read(self) -> bytes:
        """Return its lines, each with its newline, oldest first. Lines that begin with CHECK are no entries. Blocks.

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
        at the same time too, and after a restart, for the 10,000 sources that wrote last. Where the Seq of a known Source jumps, a gap
        entry is kept before the entry after the jump; nobody counts it.

        Args:
            done: called once, in the loop's thread, and must not raise. It is given what became of the entries as soon as all of them are
                durable; StorageFull if there is no room, Unavailable if too much is waiting or the medium failed: then nothing was
                kept, and the same entries can be sent again.
        """

    def blocks(self, after: int = 0, newest_first: bool = True, wanted: Wanted | None = None) -> AbstractContextManager[Iterator[Block]]:
        """Return the durable blocks that reach beyond a position. Blocks: use it in a thread.

        What is kept later is not seen. What is seen can be read until the context ends, whatever is rotated, compressed or removed
        meanwhile.

        Args:
            wanted: blocks whose summary is known and does not pass are left out, and what stands before them in the store is not read
                either: whole files at a time.
        """

    def follow(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Call a listener in the loop's thread with each group of entries that has become durable, in order, without a hole.

        It must not raise and must not block.

        Returns:
            The way to stop it.
        """

    def stats(self) -> StoreStats:
        """Return what there is per service, and in all."""

    def fault(self) -> str | None:
        """Return why nothing can be kept now, or None. A store with a fault tries by itself, and takes entries again as soon as it can."""

    async def close(self) -> None:
        """Finish what was appended and close. Safe to call twice."""


@runtime_checkable
class Remote(Protocol):
    """A store that others keep: it may be lost for good while this program runs."""

    async def lost(self) -> str:
        """Return why nothing but a new start of the program helps, as soon as that is so."""


class MemoryBlock(msgspec.Struct, frozen=True, gc=False):
    """A block whose lines are in memory."""

    start: int
    lines: bytes
    summary: Summary | None = None

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.start + len(self.lines)

    def read(self) -> bytes:
        """Return the lines."""
        return self.lines


class Listeners:
    """Those who follow a store. One that fails is taken off, with `failed` told why: it must not keep the others from the truth."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._listeners: dict[object, Callable[[Block], None]] = {}
        self._failed = failed

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Add one; returns the way to take it off, safe to call twice."""
        key = object()
        self._listeners[key] = listener

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def tell(self, block: Block) -> None:
        """Tell all of them of a group."""
        for key, listener in list(self._listeners.items()):
            try:
                listener(block)
            except Exception as exc:  # a fault of ours with one listener must not reach the others
                self._listeners.pop(key, None)
                self._failed(exc)
