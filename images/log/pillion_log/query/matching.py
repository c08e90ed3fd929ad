"""Which stored lines are wanted. Pure.

Most lines are never decoded: the raw bytes of a block are searched for what a wanted line must have in it, and only lines where that is
found are decoded and looked at exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from pillion_log.entries import DEFAULT_LEVEL
from pillion_log.query.patterns import Finder, Test, one_of, pattern_test, stored_form, text_test
from pillion_log.query.question import MAX_POSITION, Filter
from pillion_log.store.base import CHECK, Summary

REGISTRY = "registry"  # the service whose entries are about others; the field Subject says about which
RARE = 0.1  # where less than that of a block's lines are of the service, they are looked for by its name rather than by their text
OFTEN = 0.5  # where more are, looking at each line is quicker


class Stored(msgspec.Struct, rename="pascal", gc=False):
    """What is looked at in a stored line."""

    time: str = ""
    received: str = ""
    service: str = ""
    level: str = ""
    message: str = ""
    instance: Any = None
    subject: Any = None  # anybody may have a field of this name, and put into it what they like
    unverified: Any = None


class Match(NamedTuple):
    """A wanted entry."""

    position: int
    line: bytes  # without its newline
    stored: Stored


_decode = msgspec.json.Decoder(Stored).decode


class Matcher:
    """Looks for the entries that a filter wants.

    Raises:
        InvalidInput: the filter's regular expression is not one.
    """

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._tests: list[Test] = []
        by_text: list[Finder] | None = None
        if wanted.pattern:
            test, by_text = pattern_test(wanted.pattern, wanted.any_case)
            self._tests.append(test)
        if wanted.text:
            test, by_text = text_test(wanted.text, wanted.any_case)
            self._tests.append(test)
        self._by_text = by_text
        self._names = (*wanted.services, REGISTRY) if wanted.with_events else wanted.services
        self._by_service = _by_field(b"Service", self._names)
        self._by_level = _by_field(b"Level", wanted.levels) if DEFAULT_LEVEL not in wanted.levels else None

    def may_match(self, summary: Summary | None) -> bool:
        """Return whether a block can have wanted entries."""
        if summary is None:
            return True
        wanted = self._wanted
        if summary.last_time[:-1] < wanted.since or (wanted.until and summary.first_time[:-1] > wanted.until):
            return False
        return not self._names or any(summary.may_have(name) for name in self._names)

    def look(self, data: bytes, start: int, summary: Summary | None = None, low: int = 0, high: int = MAX_POSITION) -> Iterator[Match]:
        """Return the wanted entries, oldest first, passing over damaged lines.

        Args:
            data: stored lines.
            start: their position.
            low: the least position that is wanted.
            high: the position from which on none begins that is wanted.
        """
        begin = data.find(b"\n", low - start - 1) + 1 if low > start else 0
        end = min(len(data), high - start)
        if end <= 0 or (low > start and not begin):
            return
        end = data.find(b"\n", end - 1) + 1 or len(data)  # what is found in a line may stand far behind its beginning
        finders = self._finders(summary)
        for first, last in _lines(data, begin, end) if finders is None else _found(data, begin, end, finders):
            line = data[first:last]
            if not line or line.startswith(CHECK):
                continue
            try:
                stored = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if self._wants(stored):
                yield Match(start + first, line, stored)

    def _finders(self, summary: Summary | None) -> list[Finder] | None:
        """Return what finds lines of which few are not wanted; None: all must be looked at."""
        if self._by_service and _share(summary, self._names) < (RARE if self._by_text else OFTEN):
            return self._by_service
        return self._by_text or self._by_level

    def _wants(self, stored: Stored) -> bool:
        wanted = self._wanted
        if wanted.services and stored.service not in wanted.services and not self._is_event(stored):
            return False
        if wanted.levels and stored.level not in wanted.levels:
            return False
        if wanted.instances and stored.instance not in wanted.instances:
            return False
        time = stored.time[:-1]
        if not time or time < wanted.since or (wanted.until and time > wanted.until):
            return False
        return all(test(stored.message) for test in self._tests)

    def _is_event(self, stored: Stored) -> bool:
        """Return whether this is the registry's word about a service; what only claims to be, without the token, is not."""
        wanted = self._wanted
        if not wanted.with_events or stored.service != REGISTRY or stored.unverified:
            return False
        return isinstance(stored.subject, str) and stored.subject in wanted.services


def _by_field(name: bytes, values: tuple[str, ...]) -> list[Finder] | None:
    finder = one_of([b'"%b":"%b"' % (name, stored_form(value)) for value in values]) if values else None
    return None if finder is None else [finder]


def _share(summary: Summary | None, names: tuple[str, ...]) -> float:
    if summary is None:
        return 1.0
    lines = sum(count.lines for count in summary.services.values())
    return sum(count.lines for name, count in summary.services.items() if name in names) / max(1, lines)


def _lines(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Return where each line begins and ends."""
    while begin < end:
        last = data.find(b"\n", begin)
        last = len(data) if last < 0 else last
        yield begin, last
        begin = last + 1


def _found(data: bytes, begin: int, end: int, finders: list[Finder]) -> Iterator[tuple[int, int]]:
    """Return where each line begins and ends in which one of the finders finds something."""
    hits = [find(data, begin) for find in finders]
    while True:
        hit = min((hit for hit in hits if hit >= 0), default=end)
        if hit >= end:
            return
        first = data.rfind(b"\n", 0, hit) + 1
        last = data.find(b"\n", hit)
        last = len(data) if last < 0 else last
        if first < end:
            yield first, last
        begin = last + 1
        hits = [find(data, begin) if 0 <= hit < begin else hit for hit, find in zip(hits, finders, strict=True)]
