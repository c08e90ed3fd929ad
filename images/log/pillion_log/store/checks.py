"""The checksum line after each group of entries, and what of a file's bytes it vouches for. Pure.

    {"Time":"2026-01-31T12:00:00.123Z",…}
    {"Check":"8c736521","Bytes":212}

Bytes is how many bytes before the line are checked. So the next good group is found again behind a damaged one.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from pillion_log.store.base import CHECK

MAX_LINE_BYTES = 64
SMALL_BYTES = 64 * 1024
WINDOW_BYTES = 1024 * 1024
STEP_BYTES = 5 * 1024  # zlib keeps the interpreter for as much
_NEWLINE = 10

_LINE = re.compile(rb'{"Check":"([0-9a-f]{8})","Bytes":([0-9]{1,12})}\n')


class Found(NamedTuple):
    """The groups of a file."""

    ends: list[int]  # of each whole group, its checksum line included
    damaged: list[tuple[int, int]]  # what lies between whole groups, or before the first
    whole: int  # where the last whole group ends; 0 if there is none


def check_line(data: bytes) -> bytes:
    """Return the line that vouches for a group."""
    check = 0
    if len(data) > SMALL_BYTES:
        check = crc32(data)
    else:  # in steps so small that the interpreter is not given away, which would cost more than the sum
        for at in range(0, len(data), STEP_BYTES):
            check = crc32(data[at : at + STEP_BYTES], check)
    return CHECK + b'"%08x","Bytes":%d}\n' % (check, len(data))


def find_groups(data: bytes | mmap.mmap) -> Found:
    """Return which groups of a file are as they were written."""
    ends: list[int] = []
    damaged = []
    whole = 0
    with memoryview(data) as view:
        for at in _places(data):
            if at and data[at - 1] != _NEWLINE:
                continue
            match = _LINE.match(data[at : at + MAX_LINE_BYTES])
            start = at - int(match[2]) if match else -1
            if match is None or start < whole or crc32(view[start:at]) != int(match[1], 16):
                continue
            if start > whole:
                damaged.append((whole, start))
            whole = at + match.end()
            ends.append(whole)
    return Found(ends, damaged, whole)


def _places(data: bytes | mmap.mmap) -> Iterator[int]:
    """Yield where there may be a checksum line.

    A mapped file is not searched itself: Python 3.11 before its later patches reads the byte behind it, which kills the process where
    the file fills its last page and nothing is mapped there (CPython's gh-105235).
    """
    for begin in range(0, len(data), WINDOW_BYTES):
        window = data[begin : begin + WINDOW_BYTES + len(CHECK) - 1]
        at = -1
        while (at := window.find(CHECK, at + 1)) >= 0:
            yield begin + at
