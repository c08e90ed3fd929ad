"""What a client asks for: the parameters of `GET /logs` and `GET /logs/tail`, checked. Pure.

    service=GradingService,Portald&level=error&since=5m&q=timed out&limit=100&cursor=b1f3a

A `Filter` says which entries are wanted, a `Question` which of them and in which order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pillion_common.config import parse_duration
from pillion_common.errors import InvalidInput
from pillion_common.names import check_name
from pillion_log.entries import MAX_ID_CHARS, canonical_time, stamp

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
MAX_TEXT_CHARS = 1_000
MAX_NAMES = 32
MAX_POSITION = 1 << 63

FILTERS = ("service", "with", "instance", "level", "since", "until", "q", "re", "i")
PAGES = (*FILTERS, "limit", "order", "from", "cursor", "page", "format")
TAILS = (*(name for name in FILTERS if name != "until"), "last")

_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)")
_CURSOR = re.compile(r"([bf])([0-9a-f]{1,16})")


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted. What is empty asks for nothing in particular; times are without their final Z, both ends included."""

    services: tuple[str, ...] = ()
    with_events: bool = False  # what the registry said about the services stands between their own entries
    instances: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    text: str = ""  # stands in the message
    pattern: str = ""  # a regular expression that is found in the message
    any_case: bool = False  # of text and pattern

    def ever(self) -> Filter:
        """Return the same without its times."""
        return replace(self, since="", until="")


class Cursor(NamedTuple):
    """Where the next page begins: `b1f3a` goes back from position 0x1f3a (without it), `f1f3a` goes forth (with it)."""

    position: int
    back: bool

    def __str__(self) -> str:
        return f"{'b' if self.back else 'f'}{self.position:x}"


@dataclass(frozen=True)
class Question:
    """Which page of the wanted entries is asked for."""

    filter: Filter = Filter()
    limit: int = DEFAULT_LIMIT
    newest_first: bool = False  # how the page is shown
    cursor: Cursor = Cursor(MAX_POSITION, back=True)  # from where, and in which direction, it is filled
    told: bool = False  # whether the last line is to tell where the next page begins

    @property
    def as_found(self) -> bool:
        """Whether entries are shown in the order in which they are found, so that each can be sent at once."""
        return self.newest_first == self.cursor.back


@dataclass(frozen=True)
class TailQuestion:
    """What is followed, and where that begins: with the newest `last` ones, with those since a time (in the filter), or now."""

    filter: Filter
    last: int | None = None


def parse_question(parameters: Mapping[str, str], now_s: float) -> Question:
    """Read a query's parameters.

    Args:
        parameters: names and values; `format` is not looked at.
        now_s: seconds since 1970, for times such as `5m` (ago).

    Raises:
        InvalidInput: a parameter that is not known or not valid; `field` names it.
    """
    _check_names(parameters, PAGES)
    get = parameters.get
    begin, order, cursor = get("from", ""), get("order", ""), _cursor(get("cursor", ""))
    if order not in ("", "asc", "desc"):
        raise _invalid("order", f"{order[:40]!r} is neither asc (oldest first) nor desc (newest first)")
    if begin not in ("", "oldest", "newest"):
        raise _invalid("from", f"{begin[:40]!r} is neither newest nor oldest")
    if cursor is None:
        cursor = Cursor(0, back=False) if begin == "oldest" else Cursor(MAX_POSITION, back=True)
    if order == "desc" and not cursor.back:
        raise _invalid("order", "desc is not possible for a page that goes forth; leave it out")
    limit = _count(get("limit", ""), "limit", 1, DEFAULT_LIMIT)
    return Question(_filter(parameters, now_s), limit, order == "desc", cursor, _switch(get("page", ""), "page"))


def parse_tail(parameters: Mapping[str, str], now_s: float) -> TailQuestion:
    """Read a tail's parameters.

    Raises:
        InvalidInput: a parameter that is not known or not valid; `field` names it.
    """
    _check_names(parameters, TAILS)
    last = _count(parameters["last"], "last", 0, 0) if parameters.get("last") else None
    return TailQuestion(_filter(parameters, now_s), last)


def _filter(parameters: Mapping[str, str], now_s: float) -> Filter:
    get = parameters.get
    for name in ("q", "re"):
        if len(get(name, "")) > MAX_TEXT_CHARS:
            raise _invalid(name, f"is over {MAX_TEXT_CHARS} characters")
    services = _names(get("service", ""), "service")
    for service in services:
        check_name(service, "service")
    if (extra := get("with", "")) not in ("", "events"):
        raise _invalid("with", f"{extra[:40]!r} is not events")
    any_case = _switch(get("i", ""), "i") and bool(get("q") or get("re"))
    return Filter(
        services=services,
        with_events=extra == "events" and bool(services),
        instances=_names(get("instance", ""), "instance"),
        levels=tuple(level.lower() for level in _names(get("level", ""), "level")),
        since=_moment(get("since", ""), "since", now_s),
        until=_moment(get("until", ""), "until", now_s),
        text=get("q", ""),
        pattern=get("re", ""),
        any_case=any_case,
    )


def _check_names(parameters: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in parameters:
        if name not in known:
            raise InvalidInput(f"there is no parameter {name[:40]!r}; use {', '.join(known)}", code="invalid_query", field=name[:40])


def _names(text: str, field: str) -> tuple[str, ...]:
    names = tuple(sorted({name.strip() for name in text.split(",") if name.strip()}))
    if len(names) > MAX_NAMES or any(len(name) > MAX_ID_CHARS for name in names):
        raise _invalid(field, f"names over {MAX_NAMES}, or one of over {MAX_ID_CHARS} characters")
    return names


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    parts = _CURSOR.fullmatch(text)
    if parts is None:
        raise _invalid("cursor", f"{text[:40]!r} is none that this log has given")
    return Cursor(min(int(parts[2], 16), MAX_POSITION), parts[1] == "b")


def _count(text: str, field: str, least: int, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or not least <= int(text) <= MAX_LIMIT:
        raise _invalid(field, f"{text[:40]!r} is not a whole number from {least} to {MAX_LIMIT}")
    return int(text)


def _switch(text: str, field: str) -> bool:
    if text not in ("", "0", "1"):
        raise _invalid(field, f"{text[:40]!r} is neither 0 nor 1")
    return text == "1"


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


def _invalid(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field} {why}", code="invalid_query", field=field)
