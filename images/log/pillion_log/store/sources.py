"""Which entries were stored already, and which never came: the highest Seq of each Source. Pure; its memory is bounded.

A source numbers its entries upwards, without a hole, and sends them in that order; so one number tells of all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from pillion_log.entries import Run
from pillion_log.store.base import CHECK, Appended
from pillion_log.store.gaps import corrected, gap_entry, missing_before, read_line

MAX_SOURCES = 10_000


class Mark(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last entry of a source."""

    seq: int
    time: str


class _Identity(msgspec.Struct, rename="pascal", gc=False):
    time: str = ""
    source: str | None = None
    seq: int | None = None


_decode_line = msgspec.json.Decoder(_Identity).decode
_decode_lines = msgspec.json.Decoder(_Identity).decode_lines
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError)


class Sources:
    """Remembers the last entry of the sources that wrote last; the one that was silent longest is forgotten first."""

    def __init__(self, max_sources: int = MAX_SOURCES) -> None:
        self._max_sources = max_sources
        self._marks: dict[str, Mark] = {}

    def fresh(self, runs: Iterable[Run], staged: dict[str, Mark]) -> tuple[list[Run], Appended]:
        """Return those entries that are no duplicates, with gap entries where some are missing; and how many are and are not.

        Args:
            staged: the marks of what is on its way but not durable yet; this adds to it. Give it to `keep` once it is.
        """
        kept: list[Run] = []
        accepted = duplicates = 0
        for run in runs:
            if run.seqs:
                length = self._cut(run, staged, kept)
                accepted += length
                duplicates += run.length - length
            else:
                kept.append(run)
                accepted += run.length
        return kept, Appended(accepted, duplicates)

    def keep(self, staged: Mapping[str, Mark]) -> None:
        """Remember what has become durable."""
        for source, mark in staged.items():
            self._marks.pop(source, None)
            self._marks[source] = mark
        while len(self._marks) > self._max_sources:
            del self._marks[next(iter(self._marks))]

    def learn(self, data: bytes) -> None:
        """Remember stored lines again, oldest first; damaged ones are passed over."""
        try:
            found = _decode_lines(data)
        except _BROKEN:
            found = [_identity(line) for line in data.split(b"\n") if not line.startswith(CHECK)]
        staged: dict[str, Mark] = {}
        for stored in found:
            source, seq = stored.source, stored.seq
            if source and seq is not None:
                known = staged.pop(source, None) or self._marks.get(source)
                staged[source] = Mark(seq, stored.time) if known is None or seq > known.seq else known
        self.keep(staged)

    def copy(self) -> dict[str, Mark]:
        """Return all that is remembered, the source that was silent longest first."""
        return dict(self._marks)

    def _cut(self, run: Run, staged: dict[str, Mark], kept: list[Run]) -> int:
        """Add to `kept` what is fresh of a run, and return how many entries that is."""
        source, seqs = run.source, run.seqs
        mark = staged.get(source) or self._marks.get(source)
        last = seqs[-1]
        if mark is None:
            first = seqs[0]
        elif last <= mark.seq:
            return 0
        else:
            first = mark.seq + 1
            if seqs[0] < first:
                run = _part(run, _lines(run), bisect_right(seqs, mark.seq), run.length)
                seqs = run.seqs
        staged[source] = Mark(last, run.last_time or _identity(run.lines[run.lines.rfind(b"\n", 0, -1) + 1 :]).time)
        if seqs[0] == first and last - first == len(seqs) - 1 and (run.service or b'"Gap":' not in run.lines):
            kept.append(run)
        else:
            _tell_gaps(run, mark, kept)
        return run.length


def _tell_gaps(run: Run, mark: Mark | None, kept: list[Run]) -> None:
    """Add a run with a gap entry before each jump of its Seqs, from its source's mark on."""
    lines = _lines(run)
    done = 0
    highest = mark.seq if mark else run.seqs[0] - (read_line(lines[0]).told() or 1)  # nothing else is known to be missing
    for index, seq in enumerate(run.seqs):
        if seq > highest + 1 or b'"Gap":' in lines[index]:
            line = read_line(lines[index])
            lines[index] = corrected(lines[index], line, highest)
            if missing := missing_before(line, highest):
                since = _identity(lines[index - 1]).time if index else mark.time if mark else ""
                if index > done:
                    kept.append(_part(run, lines, done, index))
                kept.append(gap_entry(missing, since, line))
                done = index
        highest = seq
    kept.append(_part(run, lines, done, run.length))


def _lines(run: Run) -> list[bytes]:
    return run.lines.split(b"\n")[:-1]


def _part(run: Run, lines: Sequence[bytes], start: int, end: int) -> Run:
    text = b"\n".join(islice(lines, start, end)) + b"\n"
    return Run(text, end - start, run.source, run.seqs[start:end], run.service, run.received, run.first_time, run.last_time)


def _identity(line: bytes) -> _Identity:
    try:
        return _decode_line(line)
    except _BROKEN:
        return _Identity()
