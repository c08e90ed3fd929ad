"""Log entries and blocks of them, for those who look through them."""

from __future__ import annotations

import json

from pillion_log.entries import from_line
from pillion_log.store.base import Summary
from pillion_log.store.summaries import summarize

NOW_S = 1769860800.0  # 2026-01-31T12:00:00Z


class CountedBlock:
    """A block that knows how often it was read."""

    def __init__(self, *lines: bytes, summary: bool = False) -> None:
        self._lines = b"".join(line + b"\n" for line in lines)
        self.start = 0
        self.summary: Summary | None = summarize(self._lines) if summary else None
        self.reads = 0

    @property
    def end(self) -> int:
        return self.start + len(self._lines)

    def read(self) -> bytes:
        self.reads += 1
        return self._lines


def entry(message: str, time: str = "12:00:00.000", service: str = "A", level: str = "info", **more: str) -> bytes:
    received = more.pop("received", "12:00:00.000")
    fields = {"Message": message, "Time": f"2026-01-31T{time}Z", "Service": service, "Level": level, **more}
    return from_line(json.dumps(fields).encode(), f"2026-01-31T{received}Z").lines[:-1]
