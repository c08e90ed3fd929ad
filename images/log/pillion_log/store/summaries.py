"""Counts what blocks hold, so that a reader can pass over those that cannot have what it looks for. Pure; its memory is bounded.

`Tally` counts entries as they come, by what their runs say of themselves or by a look at their lines; `merge` makes one summary of many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from pillion_log.entries import Run
from pillion_log.store.base import OTHERS, ServiceCount, Summary

MAX_SERVICES = 256
MAX_GAP = 1 << 40


class Looked(msgspec.Struct, rename="pascal", gc=False):
    """What is looked at in a stored line."""

    time: str = ""
    received: str = ""
    service: str = ""
    gap: Any = None  # an app's own field may have that name


_decode_lines = msgspec.json.Decoder(Looked).decode_lines
_decode_line = msgspec.json.Decoder(Looked).decode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError)


class _Count:
    __slots__ = ("bytes", "first", "gaps", "last", "lines")

    def __init__(self, first: str) -> None:
        self.lines = self.bytes = self.gaps = 0
        self.first = self.last = first


class Tally:
    """Counts the entries of one block."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._first_time = self._last_time = ""

    def add_runs(self, runs: Iterable[Run]) -> None:
        """Count runs. Those that do not say whose entries they have are looked at line by line."""
        unknown = []
        service = received = stretched = ""
        lines = size = 0
        for run in runs:
            if not run.service:
                unknown.append(run.lines)
                continue
            if run.received != received or run.service != service:  # neighbours mostly came at one time from one service
                self._add(service, lines, size, 0, received)
                service, received = run.service, run.received
                lines = size = 0
            lines += run.length
            size += len(run.lines)
            if run.first_time:
                self._stretch(run.first_time, run.last_time)
            elif received != stretched:
                self._stretch(received, received)
                stretched = received
        self._add(service, lines, size, 0, received)
        if unknown:
            self.add_lines(b"".join(unknown))

    def add_lines(self, data: bytes) -> None:
        """Count stored lines, checksums and damaged lines among them."""
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        try:
            looked = _decode_lines(data)
        except _BROKEN:
            looked = []
        if len(looked) != len(lines):
            looked = [self._look(line) for line in lines]
        service = received = ""
        count = size = gaps = 0
        for entry, line in zip(looked, lines, strict=True):
            if entry.received != received or entry.service != service:
                self._add(service, count, size, gaps, received)
                service, received = entry.service, entry.received
                count = size = gaps = 0
            count += 1
            size += len(line) + 1
            if entry.gap is not None:
                gaps += _missing(entry.gap)
            if service:
                self._stretch(entry.time, entry.time)
        self._add(service, count, size, gaps, received)

    def summary(self) -> Summary | None:
        """Return what was counted, or None if that is nothing."""
        if not self._counts:
            return None
        counts = self._counts.items()
        return Summary(
            self._first_time,
            self._last_time,
            min((count.first for _, count in counts), key=_without_z),
            max((count.last for _, count in counts), key=_without_z),
            {name: ServiceCount(count.lines, count.bytes, count.gaps, count.first, count.last) for name, count in counts},
        )

    def _look(self, line: bytes) -> Looked:
        try:
            return _decode_line(line)
        except _BROKEN:
            return Looked()

    def _add(self, service: str, lines: int, size: int, gaps: int, received: str) -> None:
        if not service or not lines:
            return
        count = self._counts.get(service)
        if count is None:
            if len(self._counts) >= MAX_SERVICES:
                service = OTHERS
            count = self._counts.setdefault(service, _Count(received))
        count.lines += lines
        count.bytes += size
        count.gaps += gaps
        if received != count.last:
            count.first = min(count.first, received, key=_without_z)
            count.last = max(count.last, received, key=_without_z)

    def _stretch(self, first: str, last: str) -> None:
        if last == self._last_time and first == last:
            return
        if not self._first_time or first[:-1] < self._first_time[:-1]:
            self._first_time = first
        if last[:-1] > self._last_time[:-1]:
            self._last_time = last


def summarize(data: bytes) -> Summary | None:
    """Return the summary of stored lines, or None if no entry is among them."""
    tally = Tally()
    tally.add_lines(data)
    return tally.summary()


def merge(summaries: Iterable[Summary | None]) -> Summary | None:
    """Return one summary of neighbouring blocks, oldest first; None counts for nothing."""
    there = [summary for summary in summaries if summary is not None]
    if not there:
        return None
    services: dict[str, list[ServiceCount]] = {}
    for summary in there:
        for name, count in summary.services.items():
            if name not in services and len(services) >= MAX_SERVICES:
                name = OTHERS
            services.setdefault(name, []).append(count)
    return Summary(
        min((summary.first_time for summary in there), key=_without_z),
        max((summary.last_time for summary in there), key=_without_z),
        min((summary.first_received for summary in there), key=_without_z),
        max((summary.last_received for summary in there), key=_without_z),
        {name: _sum(counts) for name, counts in services.items()},
    )


def _sum(counts: list[ServiceCount]) -> ServiceCount:
    if len(counts) == 1:
        return counts[0]
    return ServiceCount(
        sum(count.lines for count in counts),
        sum(count.bytes for count in counts),
        sum(count.gaps for count in counts),
        min((count.first for count in counts), key=_without_z),
        max((count.last for count in counts), key=_without_z),
    )


def _missing(gap: Any) -> int:
    return min(gap, MAX_GAP) if type(gap) is int and gap > 0 else 0


def _without_z(time: str) -> str:
    return time[:-1]
