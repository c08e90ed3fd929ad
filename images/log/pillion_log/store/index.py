"""What stands beside a packed segment: where its blocks are and what is in each. Pure.

`00000000000000000000.idx` is a checksum (CRC-32, 4 bytes) and msgpack: start, end, and per block its end, its place in the packed file, and
its summary. It can be made anew from the packed file at any time.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import msgspec

from pillion_log.store.base import ServiceCount, Summary
from pillion_log.store.summaries import merge

_Counts = tuple[int, int, int, str, str]
FlatSummary = tuple[str, str, str, str, dict[str, _Counts]]
_CRC_BYTES = 4


class Entry(NamedTuple):
    """A block."""

    end: int  # the position after its last byte
    offset: int  # of its frame in the packed file
    length: int
    summary: Summary | None


class Index(NamedTuple):
    """A packed segment."""

    start: int
    end: int
    blocks: list[Entry]

    @property
    def summary(self) -> Summary | None:
        """What is in the segment."""
        return merge(block.summary for block in self.blocks)


_Stored = tuple[int, int, list[tuple[int, int, int, FlatSummary | None]]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def write_index(index: Index) -> bytes:
    """Return an index as it is stored."""
    body = _encode((index.start, index.end, [(end, at, length, flat(summary)) for end, at, length, summary in index.blocks]))
    return crc32(body).to_bytes(_CRC_BYTES, "little") + body


def read_index(data: bytes) -> Index | None:
    """Return a stored index, or None if it is damaged."""
    body = data[_CRC_BYTES:]
    if crc32(body) != int.from_bytes(data[:_CRC_BYTES], "little"):
        return None
    try:
        start, end, blocks = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Index(start, end, [Entry(stop, at, length, deep(summary)) for stop, at, length, summary in blocks])


def flat(summary: Summary | None) -> FlatSummary | None:
    """Return a summary as it is stored."""
    if summary is None:
        return None
    services = {name: (one.lines, one.bytes, one.gaps, one.first, one.last) for name, one in summary.services.items()}
    return summary.first_time, summary.last_time, summary.first_received, summary.last_received, services


def deep(summary: FlatSummary | None) -> Summary | None:
    """Return a stored summary."""
    if summary is None:
        return None
    first_time, last_time, first_received, last_received, services = summary
    counted = {name: ServiceCount(*counts) for name, counts in services.items()}
    return Summary(first_time, last_time, first_received, last_received, counted)
