"""Makes runs of entries out of an NDJSON body: all at once where every line is plain, else line by line. Pure.

A body is plain if each line is one JSON object of nothing but an entry's own fields, each in the form in which it is stored, and if all
entries have the same Source and rising Seqs, or none has a Seq. That is what sidecars send; it costs a tenth of the other way, whose
results (`entries.from_line`) are the definition of both.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pillion_common.errors import InvalidInput, TooLarge
from pillion_common.models import Model
from pillion_common.names import check_name
from pillion_log import entries
from pillion_log.entries import MAX_ID_CHARS, MAX_LINE_BYTES, MAX_SEQ, Run
from pillion_log.escapes import escape_json

MAX_LINES = 10_000

_Text = Annotated[str, Meta(max_length=MAX_ID_CHARS)]

_SECOND = len("2026-01-31T12:00:00")
_FRACTIONS = frozenset(f".{millis:03d}Z" for millis in range(1000))


class Rejected(Model, frozen=True, omit_defaults=False):
    """A line that is no entry: its number, from 1, and why."""

    line: int
    error: str


class _Plain(msgspec.Struct, rename="pascal", forbid_unknown_fields=True, kw_only=True, gc=False):
    """An entry of a plain body, its fields in the order in which they are stored."""

    time: _Text = ""
    received: str = ""
    service: _Text = entries.UNKNOWN_SERVICE
    level: _Text = entries.DEFAULT_LEVEL
    message: Annotated[str, Meta(min_length=1)]
    instance: _Text | UnsetType = UNSET


class _Unnumbered(_Plain, kw_only=True):
    source: _Text | UnsetType = UNSET


class _Numbered(_Plain, kw_only=True):
    source: Annotated[_Text, Meta(min_length=1)]
    seq: Annotated[int, Meta(ge=0, le=MAX_SEQ)]


_decode_unnumbered = msgspec.json.Decoder(_Unnumbered).decode_lines
_decode_numbered = msgspec.json.Decoder(_Numbered).decode_lines
_encode_lines = msgspec.json.Encoder().encode_lines
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_batch(body: bytes, received: str) -> tuple[list[Run], list[Rejected]]:
    """Return the entries of a body, in their order, and a verdict on each line that is none. Empty lines are passed over, but counted.

    Args:
        body: JSON objects, one a line.
        received: the time now, as `stamp` writes it.

    Raises:
        TooLarge: it has over 10,000 lines.
    """
    lines = body.count(b"\n") + (not body.endswith(b"\n"))
    if lines > MAX_LINES:
        raise TooLarge(f"the batch has over {MAX_LINES} lines; send less at a time", code="too_many_lines")
    plain = _read_whole(body, lines, received)
    return _read_lines(body, received) if plain is None else ([plain], [])


def _read_lines(body: bytes, received: str) -> tuple[list[Run], list[Rejected]]:
    good: list[Run] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line or line.isspace():
            continue
        try:
            good.append(entries.from_line(line, received))
        except InvalidInput as exc:
            rejected.append(Rejected(number, exc.message))
    return good, rejected


def _read_whole(body: bytes, lines: int, received: str) -> Run | None:
    """Return all entries of a plain body of so many lines, or None if it is not plain."""
    try:
        unnumbered = _decode_unnumbered(body)  # at the first line with a Seq this ends
    except _BROKEN:
        pass
    else:
        return _make_run(body, lines, unnumbered, received)
    try:
        numbered = _decode_numbered(body)
    except _BROKEN:
        return None
    seqs = _rising([entry.seq for entry in numbered])
    if not seqs or len(sources := {entry.source for entry in numbered}) > 1:
        return None
    run = _make_run(body, lines, numbered, received)
    return run and msgspec.structs.replace(run, source=sources.pop(), seqs=seqs)


def _make_run(body: bytes, lines: int, plain: Sequence[_Plain], received: str) -> Run | None:
    if len(plain) != lines or not _is_one_a_line(body, lines):
        return None
    services = {entry.service for entry in plain}
    times = {entry.time for entry in plain}
    if not _are_canonical(plain, services, times):
        return None
    for entry in plain:
        entry.received = received
        if not entry.time:
            entry.time = received
    stored = escape_json(_encode_lines(plain))
    if len(services) > 1:
        return Run(stored, len(plain))
    times = {time or received for time in times}
    return Run(stored, len(plain), "", (), services.pop(), received, min(times), max(times))


def _rising(seqs: list[int]) -> Sequence[int]:
    """Return the numbers in as little memory as possible if each is higher than the one before it, else nothing."""
    if not seqs:
        return ()
    consecutive = range(seqs[0], seqs[0] + len(seqs))
    if seqs == list(consecutive):
        return consecutive
    return seqs if all(map(operator.lt, seqs, seqs[1:])) else ()


def _is_one_a_line(body: bytes, lines: int) -> bool:
    """Return whether the flat JSON objects, as many as the body has lines, stand on a line each that is not too long."""
    # No string holds a line end: each of these stands between two objects. As there are no other line ends, nothing else does.
    if body.count(b"}\n{") != lines - 1:
        return False
    start = 0
    while len(body) - start > MAX_LINE_BYTES:
        start = body.rfind(b"\n", start, start + MAX_LINE_BYTES + 1) + 1
        if not start:
            return False
    return True


def _are_canonical(plain: Sequence[_Plain], services: set[str], times: set[str]) -> bool:
    """Return whether all names and times are valid, and all of it stands there as it is to be stored."""
    try:
        for service in services:
            check_name(service, "Service")
        seconds = {time[:_SECOND] for time in times if time}
        if not {time[_SECOND:] for time in times if time} <= _FRACTIONS:
            return False
        whole = {second + ".000Z" for second in seconds}  # few stand for many
        if any(entries.canonical_time(time, "Time") != time for time in whole):
            return False
    except InvalidInput:
        return False
    return all(level == entries.canonical_level(level) for level in {entry.level for entry in plain})
