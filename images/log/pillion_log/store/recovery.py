"""Finds out, at start, what the plain segments of a folder hold, and cuts off what a crash left half written.

Owns the rule that whatever lies behind the last whole group of the newest segment was never acknowledged. Damage anywhere else is told,
counted and passed over; nothing is removed for it. Zeros at the end are nothing: room for groups that never came.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pillion_common.logs import EventLog
from pillion_log.store.base import CHECK
from pillion_log.store.checks import find_groups
from pillion_log.store.segments import BLOCK_BYTES, PlainSegment
from pillion_log.store.summaries import Tally

STEP_BYTES = 64 * 1024

Learn = Callable[[bytes], None]

_log = EventLog("store")


class Recovered:
    """A plain segment as it was found.

    Args:
        path: its file.
        start: its position.
        limit: the position where the next segment begins; None: it is the newest.
        learn: told of all its lines, in blocks, oldest first.
    """

    def __init__(self, path: Path, start: int, limit: int | None, learn: Learn) -> None:
        self.segment = PlainSegment(path, start)
        self.damaged = 0  # places
        self._path = path
        self._learn = learn
        with _mapped(path) as data:
            if data is None:
                return
            length = len(data)
            size = _written(data, length if limit is None else min(length, limit - start))
            if path.suffix == ".log":
                self._read_groups(data, size, limit is None)
            else:
                self._add_lines(data, 0, data.rfind(b"\n", 0, size) + 1)
        if limit is None and path.suffix == ".log" and self.segment.end - start < length:
            self._cut(self.segment.end - start)

    def _read_groups(self, data: mmap.mmap, size: int, newest: bool) -> None:
        found = find_groups(data)
        ends = [end for end in found.ends if end <= size]
        whole = ends[-1] if ends else 0
        start = 0
        for end in ends:
            if end - start >= BLOCK_BYTES or end == whole:
                self._add(data[start:end])
                start = end
        damaged = [place for place in found.damaged if place[1] <= whole]
        if newest and whole < size:
            self._tell_torn(data, whole, size)
        elif not newest and whole < size:
            damaged.append((whole, size))
            self._add_lines(data, whole, data.rfind(b"\n", whole, size) + 1)
        for first, last in damaged:
            self._tell_damage(first, last)

    def _add_lines(self, data: mmap.mmap, start: int, end: int) -> None:
        """Add blocks of whole lines, with no checksums to go by."""
        while start < end:
            cut = data.rfind(b"\n", start, min(start + BLOCK_BYTES, end)) + 1 or data.find(b"\n", start, end) + 1
            self._add(data[start:cut])
            start = cut

    def _add(self, block: bytes) -> None:
        tally = Tally()
        tally.add_lines(block)
        self._learn(block)
        self.segment.add(len(block), tally.summary())

    def _tell_torn(self, data: mmap.mmap, whole: int, size: int) -> None:
        tail = data[whole:size]
        entries = sum(1 for line in tail.split(b"\n") if line and not line.startswith(CHECK))
        _log.warning(
            "torn_tail",
            f"{self._path} ended in the middle of a group that was never acknowledged; its {len(tail)} bytes ({entries} entries, "
            "the last one perhaps not whole) are cut off",
            bytes=len(tail),
            entries=entries,
        )

    def _tell_damage(self, first: int, last: int) -> None:
        self.damaged += 1
        _log.error(
            "damaged_segment",
            f"{self._path} is damaged from byte {first} to {last}: the checksum does not fit; what is no entry there is passed over",
            first=first,
            last=last,
        )

    def _cut(self, length: int) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(file, length)
            # What was written before a crash may not be on the disk yet, but is shown and counted from now on.
            os.fdatasync(file)
        finally:
            os.close(file)


def _written(data: mmap.mmap, size: int) -> int:
    """Return where the zeros begin that end the first `size` bytes."""
    while size and data[size - 1] == 0:
        step = data[max(0, size - STEP_BYTES) : size]
        size -= len(step) - len(step.rstrip(b"\0"))
    return size


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | None]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield None
            return
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
