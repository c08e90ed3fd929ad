"""Finds entries: the question a client asks, and the scan that answers it block by block, with bounded memory.

Order is the order of arrival. Rules are pure; only Block.read reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pillion_common.clock import parse_rfc3339
from pillion_common.config import parse_duration
from pillion_common.errors import InvalidInput
from pillion_common.names import check_name
from pillion_log.entries import canonical_time, stamp
from pillion_log.escapes import escape_text
from pillion_log.store.base import CHECK, Block

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
MAX_Q_CHARS = 1_000
SKEW_S = 3600.0  # a client's clock is trusted that far; it lets a scan end before the oldest file

PARAMETERS = ("service", "with", "level", "since", "until", "q", "limit", "order", "format")
REGISTRY = "registry"  # the service whose entries are about others; the field Subject says about which
_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)")


class Stored(msgspec.Struct, rename="pascal"):
    """What a scan looks at in a stored line."""

    time: str = ""
    received: str = ""
    service: str = ""
    level: str = ""
    message: str = ""
    subject: Any = None  # anybody may have a field of this name, and put into it what they like
    unverified: Any = None


Match = tuple[bytes, Stored]
Shape = Callable[[Match], bytes]

_decode = msgspec.json.Decoder(Stored).decode


@dataclass(frozen=True)
class Query:
    """Which entries are wanted. An empty text asks for nothing in particular; times are without their final Z, both ends included."""

    service: str = ""
    with_events: bool = False  # what the registry said about the service stands between the service's own entries
    levels: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    q: str = ""
    limit: int = DEFAULT_LIMIT
    newest_first: bool = False
    horizon: str = ""  # no entry received before that can be wanted

    def look(self, block: Block) -> tuple[list[Match], bool]:
        """Read a block, passing over damaged lines.

        Returns:
            The wanted entries, oldest first; and whether the block reaches back beyond all that can be wanted.
        """
        found = []
        oldest = ""
        for line in block.read().split(b"\n"):
            if not line or line.startswith(CHECK):
                continue
            try:
                stored = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            oldest = oldest or stored.received
            if self._wants(stored):
                found.append((line, stored))
        return found, bool(oldest) and oldest[:-1] < self.horizon

    def _wants(self, stored: Stored) -> bool:
        if self.service and stored.service != self.service and not self._is_event(stored):
            return False
        if self.levels and stored.level not in self.levels:
            return False
        time = stored.time[:-1]
        if time < self.since or (self.until and time > self.until):
            return False
        return self.q in stored.message

    def _is_event(self, stored: Stored) -> bool:
        """Return whether this is the registry's word about the service; what only claims to be, without the token, is not."""
        return self.with_events and stored.service == REGISTRY and stored.subject == self.service and not stored.unverified


def parse_query(parameters: Mapping[str, str], now_s: float) -> Query:
    """Read a query's parameters.

    Args:
        parameters: names and values; `format` is not looked at.
        now_s: seconds since 1970, for times such as `5m` (ago).

    Raises:
        InvalidInput: a parameter that is not known or not valid; `field` names it.
    """
    for name in parameters:
        if name not in PARAMETERS:
            raise InvalidInput(f"there is no parameter {name[:40]!r}; use {', '.join(PARAMETERS)}", code="invalid_query", field=name[:40])
    get = parameters.get
    service, limit, order, q = get("service", ""), get("limit", ""), get("order", "asc"), get("q", "")
    if service:
        check_name(service, "service")
    if limit and (not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= MAX_LIMIT):
        raise _invalid("limit", f"{limit[:40]!r} is not a whole number from 1 to {MAX_LIMIT}")
    if order not in ("asc", "desc"):
        raise _invalid("order", f"{order[:40]!r} is neither asc (oldest first) nor desc (newest first)")
    if len(q) > MAX_Q_CHARS:
        raise _invalid("q", f"is over {MAX_Q_CHARS} characters")
    if (extra := get("with", "")) not in ("", "events"):
        raise _invalid("with", f"{extra[:40]!r} is not events")
    since = _moment(get("since", ""), "since", now_s)
    return Query(
        service=service,
        with_events=extra == "events",
        levels=tuple(level.strip().lower() for level in get("level", "").split(",") if level.strip()),
        since=since,
        until=_moment(get("until", ""), "until", now_s),
        q=q,
        limit=int(limit) if limit else DEFAULT_LIMIT,
        newest_first=order == "desc",
        horizon=_horizon(since),
    )


def scan(blocks: Iterator[Block], query: Query, shape: Shape) -> Iterator[bytes]:
    """Answer a query in pieces. Each step reads one block, blocks meanwhile, and may give an empty piece.

    Args:
        blocks: newest first.
        shape: what an entry looks like in the answer.
    """
    return _newest_first(blocks, query, shape) if query.newest_first else _oldest_first(blocks, query, shape)


def as_json(match: Match) -> bytes:
    """Return an entry as one NDJSON line, as it is stored."""
    return match[0] + b"\n"


def as_text(match: Match) -> bytes:
    """Return an entry as one line of text: `2026-01-31T12:00:00.123Z GradingService info  message`."""
    stored = match[1]
    return escape_text(f"{stored.time} {stored.service} {stored.level:5} {stored.message}").encode() + b"\n"


def _newest_first(blocks: Iterator[Block], query: Query, shape: Shape) -> Iterator[bytes]:
    left = query.limit
    for block in blocks:
        found, last = query.look(block)
        yield b"".join(map(shape, found[::-1][:left]))
        left -= len(found)
        if left <= 0 or last:
            return


def _oldest_first(blocks: Iterator[Block], query: Query, shape: Shape) -> Iterator[bytes]:
    """Look back for where the answer begins, then go forth from there: only one block's entries are ever held."""
    kept: list[tuple[Block, int]] = []
    left = query.limit
    for block in blocks:
        found, last = query.look(block)
        if found:
            kept.append((block, max(0, len(found) - left)))
            left -= len(found)
        if left <= 0 or last:
            break
        yield b""
    for block, skipped in reversed(kept):
        yield b"".join(map(shape, query.look(block)[0][skipped:]))


def _moment(text: str, field: str, now_s: float) -> str:
    if not text:
        return ""
    if _AGO.fullmatch(text):
        try:
            return stamp(now_s - parse_duration(text))[:-1]
        except (ValueError, OverflowError, OSError):
            pass
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        return canonical_time(re.sub(r" (?=\d\d:\d\d$)", "+", text), field)[:-1]
    except InvalidInput as exc:
        raise _invalid(field, f"{text[:40]!r} is neither a time such as 2026-01-31T12:00:00Z nor a time ago such as 5m") from exc


def _horizon(since: str) -> str:
    try:
        return stamp(parse_rfc3339(since) - SKEW_S)[:-1] if since else ""
    except (ValueError, OverflowError):
        return ""  # earlier than the calendar


def _invalid(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field} {why}", code="invalid_query", field=field)
