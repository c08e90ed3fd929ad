"""What stands in the messages of a log that is kept in a NATS stream. Pure.

    subject  pillion.logs.GradingService     all its entries are of that service; of several: pillion.logs.=mixed
    headers  Pillion-Start: 81231            the position of its first byte in the log
             Pillion-Bytes: 5120             its length before it was packed; absent where it is not packed (zstd)
    data     {"Time":"2026-01-31T12:00:00.123Z","Received":"…","Service":"GradingService",…}   one entry a line

A checkpoint is a message between them (pillion.logs.=checkpoint) that a start begins with, so that it need not read the whole stream: the
highest Seq of each source, what is in the entries since the checkpoint before it, and (Pillion-Previous) which one that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import zstandard

from pillion_log.entries import Run
from pillion_log.store.base import Summary
from pillion_log.store.index import FlatSummary, deep, flat
from pillion_log.store.sources import Mark

START, BYTES, PREVIOUS = "Pillion-Start", "Pillion-Bytes", "Pillion-Previous"
MIXED, CHECKPOINT = "=mixed", "=checkpoint"  # no service has such a name
LEVEL = 1
MIN_PACKED_BYTES = 1024
# A message has less bytes of log than this. So a position that is made of a sequence number alone is beyond those of all before it.
LEAP_BYTES = 1 << 24


class Broken(ValueError):
    """A message is none of this log's, or is damaged."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Neighbouring messages that are read together."""

    start: int  # positions: of its first byte, and after its last
    end: int
    first: int  # the stream's numbers of its first and last message
    last: int
    summary: Summary | None

    @property
    def messages(self) -> int:
        """How many messages there may be."""
        return self.last - self.first + 1


class Checkpoint(NamedTuple):
    """What a start need not find out by reading."""

    marks: dict[str, Mark]  # the source that was silent longest first
    chunks: list[Chunk]  # since the checkpoint before it, oldest first


class Packet(NamedTuple):
    """A message to be sent."""

    subject: str
    headers: dict[str, str]
    payload: bytes


_Chunk = tuple[int, int, int, int, FlatSummary | None]
_Stored = tuple[list[tuple[str, int, str]], list[_Chunk]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def token(service: str) -> str:
    """Return a service's name as one token of a subject: the only character of names that has a meaning there is the dot."""
    return service.replace(".", "=2E")


def pack_entries(prefix: str, runs: Sequence[Run], lines: bytes, start: int, packs: bool) -> Packet:
    """Return the message with some entries.

    Args:
        prefix: of its subject, e.g. `pillion.logs`.
        lines: those of the runs, joined.
        start: their position.
        packs: whether they may be packed.
    """
    services = {run.service for run in runs}
    subject = f"{prefix}.{token(services.pop()) if len(services) == 1 and '' not in services else MIXED}"
    headers = {START: str(start)}
    if packs and len(lines) >= MIN_PACKED_BYTES:
        packed = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(lines)
        if len(packed) < len(lines):
            return Packet(subject, {**headers, BYTES: str(len(lines))}, packed)
    return Packet(subject, headers, lines)


def start_of(headers: Mapping[str, str] | None) -> int:
    """Return the position of a message's first byte.

    Raises:
        Broken: it says none.
    """
    return _number((headers or {}).get(START, ""))


def unpack_entries(headers: Mapping[str, str] | None, payload: bytes) -> bytes:
    """Return a message's lines.

    Raises:
        Broken: they are not there.
    """
    start_of(headers)
    packed = (headers or {}).get(BYTES)
    lines = payload if packed is None else _unpack(payload, _number(packed))
    if not lines.endswith(b"\n"):
        raise Broken("its last line has no end")
    return lines


def pack_checkpoint(prefix: str, checkpoint: Checkpoint, start: int, previous: int) -> Packet:
    """Return the message with a checkpoint.

    Args:
        start: the position at which it stands.
        previous: the stream's number of the checkpoint before it, 0 if there was none.
    """
    marks = [(source, mark.seq, mark.time) for source, mark in checkpoint.marks.items()]
    chunks = [(chunk.start, chunk.end, chunk.first, chunk.last, flat(chunk.summary)) for chunk in checkpoint.chunks]
    body = _encode((marks, chunks))
    packed = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(body)
    headers = {START: str(start), BYTES: str(len(body)), PREVIOUS: str(previous)}
    return Packet(f"{prefix}.{CHECKPOINT}", headers, packed)


def unpack_checkpoint(headers: Mapping[str, str], payload: bytes) -> tuple[Checkpoint, int]:
    """Return a checkpoint, and the stream's number of the one before it.

    Raises:
        Broken: it is damaged.
    """
    body = _unpack(payload, _number(headers.get(BYTES, "")))
    try:
        marks, chunks = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Broken(str(exc)) from exc
    kept = [Chunk(start, end, first, last, deep(summary)) for start, end, first, last, summary in chunks]
    return Checkpoint({source: Mark(seq, time) for source, seq, time in marks}, kept), _number(headers.get(PREVIOUS, ""))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise Broken(f"{text[:40]!r} is not a number")
    return int(text)


def _unpack(payload: bytes, length: int) -> bytes:
    if not 0 < length < LEAP_BYTES:
        raise Broken("no message has that length")
    try:
        data = zstandard.ZstdDecompressor().decompress(payload, max_output_size=length)
    except zstandard.ZstdError as exc:
        raise Broken(str(exc)) from exc
    if len(data) != length:
        raise Broken(f"it has {len(data)} bytes instead of {length}")
    return data
