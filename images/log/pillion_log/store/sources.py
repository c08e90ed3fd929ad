"""Which entries were stored already: the highest Seq of each Source. Pure; its memory is bounded.

A source numbers its entries upwards and sends them in that order, so one number tells of all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import msgspec

from pillion_log.entries import Run
from pillion_log.store.base import Appended

MAX_SOURCES = 10_000


class _Identity(msgspec.Struct, rename="pascal"):
    source: str | None = None
    seq: int | None = None


_NOTHING = Run(b"", 0)

_decode = msgspec.json.Decoder(_Identity).decode


class Sources:
    """Remembers the highest Seq of the sources that wrote last; the one that was silent longest is forgotten first."""

    def __init__(self, max_sources: int = MAX_SOURCES) -> None:
        self._max_sources = max_sources
        self._highest: dict[str, int] = {}

    def fresh(self, runs: Iterable[Run], staged: dict[str, int]) -> tuple[list[bytes], Appended]:
        """Return the lines of those entries that are no duplicates, and how many are and are not.

        Args:
            staged: the highest Seqs of what is on its way but not durable yet; this adds to it. Give it to `keep` once it is.
        """
        lines = []
        accepted = duplicates = 0
        for run in runs:
            kept = self._cut(run, staged) if run.seqs else run
            lines.append(kept.lines)
            accepted += kept.length
            duplicates += run.length - kept.length
        return lines, Appended(accepted, duplicates)

    def keep(self, staged: Mapping[str, int]) -> None:
        """Remember what has become durable."""
        for source, seq in staged.items():
            self._highest.pop(source, None)
            self._highest[source] = seq
        while len(self._highest) > self._max_sources:
            del self._highest[next(iter(self._highest))]

    def learn(self, lines: Iterable[bytes]) -> int:
        """Remember stored entries again, oldest first.

        Returns:
            How many lines are no entries: damage that is passed over.
        """
        damaged = 0
        for line in lines:
            try:
                stored = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                damaged += 1
                continue
            if stored.source and stored.seq is not None:
                self.keep({stored.source: max(stored.seq, self._highest.get(stored.source, -1))})
        return damaged

    def _cut(self, run: Run, staged: dict[str, int]) -> Run:
        source, seqs = run.source, run.seqs
        highest = staged.get(source)
        if highest is None:
            highest = self._highest.get(source, -1)
        if seqs[-1] <= highest:
            return _NOTHING
        staged[source] = seqs[-1]
        repeated = bisect_right(seqs, highest)
        if not repeated:
            return run
        return Run(run.lines.split(b"\n", repeated)[repeated], run.length - repeated, source, seqs[repeated:])
