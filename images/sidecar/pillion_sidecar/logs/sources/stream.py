"""Entries out of the bytes of one stream: lines, joined where they are one trace. Pure; the place of each entry is kept with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pillion_sidecar.logs.entry import Entry, EntryMaker, cut_mark
from pillion_sidecar.logs.sources.lines import Line, LineReader
from pillion_sidecar.logs.sources.traces import TraceJoiner


class Placed(NamedTuple):
    """An entry, and the offset in its stream behind its last line."""

    entry: Entry
    end: int


class EntryStream:
    """Makes entries of one stream.

    Args:
        join: names of languages whose traces are joined.
        offset: where in the stream it begins.
        fields: what all entries have besides.
    """

    def __init__(self, maker: EntryMaker, join: Iterable[str], offset: int = 0, fields: Mapping[str, object] | None = None) -> None:
        self._maker = maker
        self._fields = fields or {}
        self._lines = LineReader()
        self._joiner: TraceJoiner[tuple[int, int]] = TraceJoiner(join)
        self._offset = offset  # behind the last whole line

    @property
    def holds(self) -> bool:
        """Return whether whole lines are held back, since more of them may come."""
        return self._joiner.holds

    @property
    def has_part(self) -> bool:
        """Return whether a line has begun and not ended."""
        return self._lines.held > 0

    def feed(self, data: bytes) -> list[Placed]:
        """Take bytes; return the entries that are whole now."""
        return [placed for line in self._lines.feed(data) for placed in self._take(line)]

    def flush(self) -> list[Placed]:
        """Return what was held back: no more of it comes."""
        return [self._placed(*joined) for joined in self._joiner.end()]

    def end(self) -> list[Placed]:
        """Return all that is left, the line without an end too."""
        return [placed for line in self._lines.end() for placed in self._take(line)] + self.flush()

    def _take(self, line: Line) -> list[Placed]:
        self._offset += line.size
        text = line.data.decode("utf-8", "replace") + (cut_mark(line.missing) if line.missing else "")
        return [self._placed(*joined) for joined in self._joiner.feed(text, (self._offset, line.missing))]

    def _placed(self, text: str, place: tuple[int, int], is_trace: bool) -> Placed:
        end, missing = place
        fields = dict(self._fields)
        if missing:
            fields["Cut"] = missing
        return Placed(self._maker.make(text, "error" if is_trace else "info", fields=fields), end)
