"""One file that is followed: what is new in it, whether it was truncated, and how far it was read, as a text that outlives this process.

A position is `OFFSET:LENGTH:CRC:PATH`: how far, the first LENGTH bytes' CRC, by which another file under the same inode is told from it,
and where it was. The offset is behind the last entry that was kept; what was read beyond is read again after a restart.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections.abc import Iterable
from typing import NamedTuple

from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.sources.stream import EntryStream, Placed

HEAD_BYTES = 256
PIECE_BYTES = 128 * 1024


class Position(NamedTuple):
    """How far a file was read, and what it began with."""

    offset: int
    head_bytes: int
    head_crc: int
    path: str

    def __str__(self) -> str:
        return f"{self.offset}:{self.head_bytes}:{self.head_crc:08x}:{self.path}"

    def fits(self, head: bytes) -> bool:
        """Return whether a file with this head may be the one."""
        return len(head) >= self.head_bytes and crc32(head[: self.head_bytes]) == self.head_crc


def parse_position(text: str) -> Position | None:
    """Return a position; None for what is none."""
    try:
        offset, head_bytes, head_crc, path = text.split(":", 3)
        return Position(int(offset), int(head_bytes), int(head_crc, 16), path)
    except ValueError:
        return None


class Tail:
    """A file, open.

    Args:
        path: where it is now.
        known: how far it was read before.
        maker, join: as EntryStream has them.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, known: Position | None, maker: EntryMaker, join: Iterable[str]) -> None:
        self.path = path
        self._maker = maker
        self._join = tuple(join)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stat = os.fstat(self._descriptor)
        self.key = key_of(stat)
        head = os.pread(self._descriptor, HEAD_BYTES, 0)
        self.is_new = known is None or not known.fits(head) or known.offset > stat.st_size
        self._stream = self._stream_from(0)
        self._head = b""
        self._at = self._given = 0
        self._begin(0 if known is None or self.is_new else known.offset)
        self.fresh_at = 0.0  # when something new was read last, for the caller

    @property
    def position(self) -> Position:
        """Return how far its entries were given out."""
        return Position(self._given, len(self._head), crc32(self._head), self.path)

    @property
    def head(self) -> bytes:
        """Return its first bytes."""
        return self._head

    @property
    def unread(self) -> int:
        """Return how many bytes there are beyond what was read."""
        return max(0, os.fstat(self._descriptor).st_size - self._at)

    @property
    def holds(self) -> bool:
        """Return whether a trace is held that may be whole."""
        return self._stream.holds

    def read(self) -> list[Placed]:
        """Return the entries of the next piece; their ends are offsets in the file.

        Raises:
            OSError: it cannot be read.
        """
        if self._was_truncated():
            rest = self._stream.end()
            self._begin(0)
            if rest:
                return [placed._replace(end=0) for placed in rest]
        data = os.pread(self._descriptor, PIECE_BYTES, self._at)
        self._at += len(data)
        if data and len(self._head) < HEAD_BYTES:
            self._head = os.pread(self._descriptor, HEAD_BYTES, 0)[: self._at]
        return self._stream.feed(data) if data else []

    def flush(self) -> list[Placed]:
        """Return the trace that is held: no more of it comes."""
        return self._stream.flush()

    def end(self) -> list[Placed]:
        """Return all that is left, a line without an end too."""
        return self._stream.end()

    def gave(self, end: int) -> None:
        """Note that the entries up to an offset were kept."""
        self._given = end

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def _begin(self, offset: int) -> None:
        self._at = self._given = offset
        self._head = os.pread(self._descriptor, HEAD_BYTES, 0)[:offset]
        self._stream = self._stream_from(offset)

    def _stream_from(self, offset: int) -> EntryStream:
        return EntryStream(self._maker, self._join, offset, {"File": self.path})

    def _was_truncated(self) -> bool:
        """Return whether the file is another one now (copytruncate): shorter than what was read, or with another head."""
        return os.fstat(self._descriptor).st_size < self._at or os.pread(self._descriptor, len(self._head), 0) != self._head


def read_head(path: str) -> bytes:
    """Return a file's first bytes; nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def key_of(stat: os.stat_result) -> str:
    """Return what tells a file from all others, wherever it is moved to."""
    return f"file:{stat.st_dev:x}:{stat.st_ino}"
