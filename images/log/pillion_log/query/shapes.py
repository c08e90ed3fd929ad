"""What an entry looks like in an answer. Pure."""

from __future__ import annotations

from collections.abc import Callable

from pillion_log.escapes import escape_text
from pillion_log.query.matching import Match

Shape = Callable[[Match], bytes]


def as_json(match: Match) -> bytes:
    """Return an entry as one NDJSON line, as it is stored."""
    return match.line + b"\n"


def as_text(match: Match) -> bytes:
    """Return an entry as one line of text: `2026-01-31T12:00:00.123Z GradingService info  message`."""
    stored = match.stored
    return escape_text(f"{stored.time} {stored.service} {stored.level:5} {stored.message}").encode() + b"\n"


def as_event(match: Match) -> bytes:
    """Return an entry as a server-sent event, whose id is its position."""
    return b"id: %d\ndata: %b\n\n" % (match.position, match.line)
