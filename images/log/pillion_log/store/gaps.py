"""Entries that tell of entries that are missing. Pure.

`{"Time":"…","Received":"…","Service":"GradingService","Level":"warning","Message":"17 entries of GradingService are missing: …",
"Instance":"grading-1","Source":"grading-1/8f2c","Gap":17,"From":"…","To":"…"}`: From and To are the times between which they are missing.
A sender that had to drop entries says so in such an entry of its own, whose Seq is that of the last one dropped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pillion_log.entries import Run
from pillion_log.escapes import escape_json


class Line(msgspec.Struct, rename="pascal", gc=False):
    """What a stored line says of itself and of its place among its source's."""

    time: str = ""
    received: str = ""
    service: str = ""
    instance: str | None = None
    source: str | None = None
    seq: int | None = None
    gap: Any = None

    def told(self) -> int:
        """Return how many entries it says are missing, itself among them; 0 if it is no gap entry."""
        return self.gap if type(self.gap) is int and self.gap > 0 and self.seq is not None else 0


class _Gap(msgspec.Struct, rename="pascal", gc=False, omit_defaults=True):
    time: str
    received: str
    service: str
    level: str
    message: str
    instance: str | None
    source: str
    gap: int
    since: str = msgspec.field(name="From", default="")
    until: str = msgspec.field(name="To", default="")


read_line = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def corrected(text: bytes, line: Line, highest: int) -> bytes:
    """Return a stored gap entry that counts what is truly missing, where its sender did not know that some of it had arrived.

    That happens if the answer to a batch was lost, and the sender had to drop the batch then: what is at or below `highest` is there.
    """
    told, assumed = line.told(), (line.seq or 0) - highest
    if not 0 < assumed < told:
        return text
    fields = msgspec.json.decode(text)
    fields["Gap"] = assumed
    fields["Message"] = fields.get("Message", "").replace(str(told), str(assumed), 1)
    return escape_json(_encode(fields))


def missing_before(line: Line, highest: int) -> int:
    """Return how many entries are missing between Seq `highest` and a line of the same source, beyond what it tells itself."""
    assert line.seq is not None
    return max(0, line.seq - highest - (line.told() or 1))


def gap_entry(missing: int, since: str, before: Line) -> Run:
    """Return the entry that tells of missing ones.

    Args:
        since: the Time of the last entry before them.
        before: the first entry after them.
    """
    entries = "1 entry" if missing == 1 else f"{missing} entries"
    verb = "is" if missing == 1 else "are"
    message = (
        f"{entries} of {before.service} {verb} missing: {before.source} sent numbers that leave {'it' if missing == 1 else 'them'} out"
    )
    entry = _Gap(
        before.time,
        before.received,
        before.service,
        "warning",
        message,
        before.instance,
        before.source or "",
        missing,
        since,
        before.time,
    )
    return Run(escape_json(_encode(entry)) + b"\n")
