"""Time as text. Rules take their clock as a parameter; this is the one they are given in a running program."""

from __future__ import annotations

import functools
import time

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def rfc3339(epoch_s: float) -> str:
    """Return seconds since 1970 as RFC 3339 UTC with milliseconds, e.g. 2026-01-31T12:00:00.123Z."""
    whole_s, millis = divmod(round(epoch_s * 1000), 1000)
    return f"{_second(whole_s)}.{millis:03d}Z"


@functools.lru_cache(maxsize=8)
def _second(whole_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_s))


def parse_rfc3339(text: str) -> float:
    """Return an RFC 3339 time as seconds since 1970; without an offset it is UTC.

    Raises:
        ValueError: it is not such a time.
    """
    from datetime import UTC, datetime  # the sidecar does without

    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def http_date(epoch_s: float | None = None) -> bytes:
    """Return a time, or now, as HTTP has it, e.g. b"Sun, 06 Nov 1994 08:49:37 GMT"."""
    now = time.gmtime(epoch_s)
    clock = time.strftime("%H:%M:%S", now)
    return f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year} {clock} GMT".encode()
