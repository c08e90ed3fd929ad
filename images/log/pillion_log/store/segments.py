"""A segment is one file of the log's history, named by the position of its first byte: `00000000000000000000.log`.

Owns how a plain segment is read: in blocks of about 1 MB that begin and end with a group of entries. Its file is kept open from the first
read until nobody reads it any more, and is removed only then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.base import Block, Summary
from pillion_log.store.summaries import Tally, merge

BLOCK_BYTES = 1 << 20
NAME_DIGITS = 20

_log = EventLog("store")


class Segment(Protocol):
    """What all segments, plain and packed, can do. Any thread may read."""

    @property
    def start(self) -> int:
        """The position of its first byte."""

    @property
    def end(self) -> int:
        """The position after its last byte."""

    @property
    def summary(self) -> Summary | None:
        """What is in it."""

    @property
    def disk_bytes(self) -> int:
        """What its files take."""

    @property
    def file(self) -> SharedFile:
        """What is open while it is read."""

    def blocks(self, newest_first: bool) -> Iterator[Block]:
        """Return its blocks. Its file must be held meanwhile."""


class SharedFile:
    """A file that several may read, opened at the first read and closed when nobody holds it."""

    def __init__(self, path: Path, *more: Path) -> None:
        self.path = path
        self._more = more  # files that go with it
        self._lock = threading.Lock()
        self._holders = 0
        self._open: int | None = None
        self._doomed = False

    def hold(self) -> None:
        """Keep it readable until `release`."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._let_go()

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes, less at the end of the file. Only while it is held.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            if self._open is None:
                self._open = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            file = self._open
        parts = []
        while length > 0 and (part := os.pread(file, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def remove(self) -> None:
        """Remove it from the disk as soon as nobody holds it."""
        with self._lock:
            self._doomed = True
            if self._holders == 0:
                self._let_go()

    def _let_go(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None
        if self._doomed:
            try:
                for path in (*self._more, self.path):
                    path.unlink(missing_ok=True)
            except OSError as exc:  # whoever read it last has no part in that; the next start meets the file again
                _log.warn_seldom("not_removed", f"{self.path} cannot be removed: {exc}")


class Piece:
    """A block of a plain segment."""

    __slots__ = ("_file", "_offset", "end", "start", "summary")

    def __init__(self, file: SharedFile, offset: int, start: int, end: int, summary: Summary | None) -> None:
        self._file = file
        self._offset = offset
        self.start = start
        self.end = end
        self.summary = summary

    def read(self) -> bytes:
        """Return the lines."""
        return self._file.read(self._offset, self.end - self.start)


class PlainSegment:
    """A segment of plain lines. It grows, and is looked at, under the lock of the folder it belongs to."""

    def __init__(self, path: Path, start: int) -> None:
        self.file = SharedFile(path)
        self.start = start
        self.end = start
        self._blocks: list[tuple[int, Summary | None]] = []  # each with its end
        self._tally: Tally | None = None  # of the block that grows, behind those

    @property
    def summary(self) -> Summary | None:
        """What is in it."""
        return merge([*(summary for _, summary in self._blocks), self._tally.summary() if self._tally else None])

    @property
    def disk_bytes(self) -> int:
        """What its file takes."""
        return self.end - self.start

    def grow(self, length: int, runs: Iterable[Run]) -> None:
        """Add a group to its end."""
        tally = self._tally = self._tally or Tally()
        tally.add_runs(runs)
        self.end += length
        if self.end - (self._blocks[-1][0] if self._blocks else self.start) >= BLOCK_BYTES:
            self._blocks.append((self.end, tally.summary()))
            self._tally = None

    def add(self, length: int, summary: Summary | None) -> None:
        """Add a block to its end."""
        self.end += length
        self._blocks.append((self.end, summary))

    def blocks(self, newest_first: bool) -> Iterator[Piece]:
        """Return its blocks, as they are now."""
        pieces = []
        start = self.start
        growing = [] if self._tally is None else [(self.end, self._tally.summary())]
        for end, summary in (*self._blocks, *growing):
            pieces.append(Piece(self.file, start - self.start, start, end, summary))
            start = end
        return iter(pieces[::-1] if newest_first else pieces)


def segment_path(folder: Path, start: int, suffix: str = ".log") -> Path:
    """Return the path of the segment that begins at a position."""
    return folder / f"{start:0{NAME_DIGITS}d}{suffix}"
