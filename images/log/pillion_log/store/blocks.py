"""Reads an entry file backwards, a block of whole lines at a time, so that the newest entries are found first and memory stays bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator

BLOCK_BYTES = 256 * 1024


class FileBlock:
    """Whole lines of a file, from `start` up to `end`. Reads when asked; the file must still be open then."""

    __slots__ = ("_end", "_file", "_start")

    def __init__(self, file: int, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._end = end

    def lines(self) -> list[bytes]:
        """Return the lines without newlines, oldest first."""
        return [line for line in os.pread(self._file, self._end - self._start, self._start).split(b"\n") if line]


def blocks_of(file: int, length: int, block_bytes: int = BLOCK_BYTES) -> Iterator[FileBlock]:
    """Cut a file into blocks, newest first.

    Args:
        file: a descriptor that is open for reading.
        length: bytes to look at; they end with a newline.
        block_bytes: the most a block has, unless one line is longer.
    """
    end = length
    while end > 0:
        start = _line_start(file, end, block_bytes)
        yield FileBlock(file, start, end)
        end = start


def _line_start(file: int, end: int, block_bytes: int) -> int:
    """Return where the first line begins that lies whole within the block before `end`; further back if one line fills it."""
    offset = end - block_bytes
    while offset > 0:
        # From one byte earlier: a newline just before the block means that a line begins with it.
        newline = os.pread(file, end - offset, offset - 1).find(b"\n")
        if newline >= 0:
            return offset + newline
        offset -= block_bytes
    return 0
