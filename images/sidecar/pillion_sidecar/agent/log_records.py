"""A container's log as the engine sends it: bytes in, records out, each with its stream and its time. Pure.

Without a terminal the engine sends frames: a byte for the stream (1 stdout, 2 stderr), three zeros, the length in four bytes, and then
`2026-01-31T12:00:00.123456789Z text\n`; a piece of a long line lacks the line end. With a terminal it sends the texts alone.

A *place* is the time of a record and which one of that time in its stream it is: all that tells one record from another. Within a stream
times rise, so what is not above the place that was reached has been seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pillion_common.clock import parse_rfc3339
from pillion_common.errors import PeerBroken

HEAD_BYTES = 8
MAX_FRAME_BYTES = 4 * 1024 * 1024
STREAMS = {1: "stdout", 2: "stderr"}
SLACK_S = 2.0  # by which the times of the two streams may be out of order in the engine's file

_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
TIME_BYTES = len("2026-01-31T12:00:00.123456789Z")

Place = tuple[str, int]
NOWHERE: Place = ("", 0)


class Record(NamedTuple):
    """What a container wrote at one time: a line with its end, or a piece of a long one."""

    stream: str
    place: Place
    data: bytes


class RecordReader:
    """Turns the bytes of one answer into records.

    Args:
        has_terminal: whether the container has one.
    """

    def __init__(self, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._held = b""
        self._last: dict[str, Place] = {}

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take bytes; return the records that are whole now.

        Raises:
            PeerBroken: this is not a container's log.
        """
        self._held += data
        yield from self._lines() if self._has_terminal else self._frames()

    def _frames(self) -> Iterator[Record]:
        held, at = self._held, 0
        while len(held) - at >= HEAD_BYTES:
            stream, size = STREAMS.get(held[at]), int.from_bytes(held[at + 4 : at + 8], "big")
            if stream is None or held[at + 1 : at + 4] != b"\0\0\0" or size > MAX_FRAME_BYTES:
                raise PeerBroken("the engine's log of a container is not as it should be: it has a frame of an unknown kind")
            end = at + HEAD_BYTES + size
            if len(held) < end:
                break
            yield self._record(stream, held[at + HEAD_BYTES : end])
            at = end
        self._held = held[at:]

    def _lines(self) -> Iterator[Record]:
        *whole, self._held = self._held.split(b"\n")
        if len(self._held) > MAX_FRAME_BYTES:
            raise PeerBroken(f"a line of a container's log is over {MAX_FRAME_BYTES >> 20} MB")
        for line in whole:
            yield self._record("stdout", line + b"\n")

    def _record(self, stream: str, text: bytes) -> Record:
        before, number = self._last.get(stream, NOWHERE)
        if _TIME.match(text):
            time, text = text[:TIME_BYTES].decode("ascii"), text[TIME_BYTES + 1 :]
        else:
            time = before  # a driver that tells no time: it is of the one before
        place = self._last[stream] = (time, number + 1 if time == before else 1)
        return Record(stream, place, text)


def format_places(places: dict[str, Place]) -> str:
    """Return places of streams as a text, e.g. `stdout 2026-01-31T12:00:00.123456789Z 1`."""
    return " ".join(f"{stream} {time} {number}" for stream, (time, number) in places.items() if time)


def parse_places(text: str) -> dict[str, Place]:
    """Return places of streams; what cannot be read is left out."""
    words = text.split(" ")
    triples = zip(words[::3], words[1::3], words[2::3], strict=False)
    return {stream: (time, int(number)) for stream, time, number in triples if stream in STREAMS.values() and number.isdecimal()}


def since(places: dict[str, Place], begin_s: float) -> str:
    """Return from which time on to ask: seconds since 1970 with nanoseconds.

    Args:
        begin_s: where to begin when nothing was read before.
    """
    times = [time for time, _ in places.values()]
    if not times:
        return f"{begin_s:.9f}"
    # Of a stream that has long been silent nothing is missing but what is about as new as the newest of the other.
    floor = parse_rfc3339(max(times)[:26] + "Z") - SLACK_S
    oldest = min(times)
    if len(places) < len(STREAMS) or parse_rfc3339(oldest[:26] + "Z") < floor:
        return f"{floor:.9f}"
    return f"{int(parse_rfc3339(oldest[:19] + 'Z'))}.{oldest[20:29]}"


def entry_time(place: Place) -> str:
    """Return a place's time as entries have it, to the microsecond."""
    return f"{place[0][:26]}Z" if place[0] else ""
