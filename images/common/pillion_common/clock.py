"""Time as text. Rules take their clock as a parameter; this is the one they are given in a running program."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def rfc3339(epoch_s: float) -> str:
    """Return seconds since 1970 as RFC 3339 UTC with milliseconds, e.g. 2026-01-31T12:00:00.123Z."""
    whole_s, millis = divmod(round(epoch_s * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole_s))}.{millis:03d}Z"


def parse_rfc3339(text: str) -> float:
    """Return an RFC 3339 time as seconds since 1970; without an offset it is UTC.

    Raises:
        ValueError: it is not such a time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
