"""Makes entries of OpenTelemetry's log records, as OTLP/HTTP sends them in JSON (opentelemetry-proto, logs/v1; OTLP 1.x, "JSON Protobuf
Encoding"). Pure.

`{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"GradingService"}}]},
"scopeLogs":[{"scope":{"name":"grades"},"logRecords":[{"timeUnixNano":"1769860800123000000","severityNumber":9,
"body":{"stringValue":"started"}}]}]}]}`
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from pillion_common.errors import InvalidInput, TooLarge
from pillion_log.batches import MAX_LINES
from pillion_log.composing import Parts, compose, service_name
from pillion_log.entries import Run, decode_object, written

MAX_STORED_BYTES = 24 * 1024 * 1024  # of all entries of a request: each repeats what its resource says
MAX_DEPTH = 32

_LEVELS = ("trace", "debug", "info", "warning", "error", "fatal")  # of severity numbers 1 to 4, 5 to 8, …
_MAX_NANOS = 253_402_300_799 * 10**9  # the calendar's last second

_encode = msgspec.json.Encoder().encode


class Origin(NamedTuple):
    """What the records of one scope have in common."""

    service: str
    instance: str
    fields: dict[str, Any]


def read_records(body: bytes, received: str) -> tuple[list[Run], list[str]]:
    """Return the entries of a request's log records, in their order, and why others are none.

    Args:
        body: an ExportLogsServiceRequest in JSON.
        received: the time now, as `stamp` writes it.

    Raises:
        InvalidInput: it is no such request. TooLarge: over 10,000 records, or too much to store at once.
    """
    good: list[Run] = []
    bad: list[str] = []
    size = 0
    for origin, record in _records(decode_object(body, "the body")):
        if len(good) + len(bad) >= MAX_LINES:
            raise TooLarge(f"the request has over {MAX_LINES} log records; send fewer at a time", code="too_many_lines")
        try:
            run = compose(_read_record(origin, record), received)
        except InvalidInput as exc:
            bad.append(exc.message)
            continue
        good.append(run)
        size += len(run.lines)
        if size > MAX_STORED_BYTES:
            raise TooLarge(f"the request's entries are over {MAX_STORED_BYTES} bytes; send fewer log records at a time")
    return good, bad


def _records(request: dict[str, Any]) -> Iterator[tuple[Origin, Any]]:
    for group in _list(request, "resourceLogs"):
        attributes = _attributes(_dict(_dict(group).get("resource")))
        for scoped in _list(_dict(group), "scopeLogs"):
            origin = _read_origin(attributes, _dict(_dict(scoped).get("scope")))
            for record in _list(_dict(scoped), "logRecords"):
                yield origin, record


def _read_origin(attributes: dict[str, Any], scope: dict[str, Any]) -> Origin:
    rest = dict(attributes)
    service, instance = _as_text(rest.pop("service.name", "")), _as_text(rest.pop("service.instance.id", ""))
    if service and service_name(service) != service:
        rest = {"service.name": service, **rest}
    fields: dict[str, Any] = {"Resource": rest} if rest else {}
    if name := _as_text(scope.get("name") or ""):
        fields["Scope"] = name
    return Origin(service, instance, fields)


def _read_record(origin: Origin, record: Any) -> Parts:
    if not isinstance(record, dict):
        raise InvalidInput("the log record is no object")
    fields = _attributes(record)
    for name, key in (("TraceId", "traceId"), ("SpanId", "spanId"), ("EventName", "eventName")):
        if isinstance(value := record.get(key), str) and value:
            fields[name] = value
    level, severity = _read_level(record)
    if severity:
        fields["SeverityText"] = severity
    body = _as_text(_value(record.get("body"))) or _as_text(record.get("eventName") or "")
    time = _read_time(record.get("timeUnixNano")) or _read_time(record.get("observedTimeUnixNano"))
    return Parts(body, origin.service, origin.instance, level, time, {**fields, **origin.fields})


def _read_level(record: dict[str, Any]) -> tuple[str, str]:
    """Return the level, and the sender's own word for it if that says more."""
    number, text = record.get("severityNumber"), _as_text(record.get("severityText") or "")
    if type(number) is not int or not 1 <= number <= 4 * len(_LEVELS):
        return text, ""
    level = _LEVELS[(number - 1) // 4]
    return level, text if text.lower() != level else ""


def _read_time(nanos: Any) -> str:
    """Return a time in nanoseconds since 1970 as entries have it; nothing if there is none."""
    number = _whole(nanos)
    if number is None or not 0 < number <= _MAX_NANOS:
        return ""
    seconds, rest = divmod(number, 10**9)
    return written(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000))


def _attributes(owner: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    found = {}
    for pair in _list(owner, "attributes"):
        if isinstance(pair, dict) and isinstance(key := pair.get("key"), str) and key:
            found[key] = _value(pair.get("value"), depth)
    return found


def _value(value: Any, depth: int = 0) -> Any:
    """Return what an AnyValue stands for, as JSON has it; bytes stay base64.

    Raises:
        InvalidInput: it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the log record is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict) or not value:
        return None
    kind, inner = next(iter(value.items()))
    if kind == "intValue":
        number = _whole(inner)
        return inner if number is None else number
    if kind == "arrayValue":
        return [_value(item, depth + 1) for item in _list(_dict(inner), "values")]
    if kind == "kvlistValue":
        return _attributes({"attributes": _list(_dict(inner), "values")}, depth + 1)
    return inner if isinstance(inner, str | int | float | bool) else None


def _whole(value: Any) -> int | None:
    """Return a 64 bit number, which JSON has as a text or a number; None if it is none."""
    if isinstance(value, str) and len(value) <= len(str(-(2**63))) and value.removeprefix("-").isdecimal() and value.isascii():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**64 else None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value).decode()


def _list(owner: dict[str, Any], name: str) -> list[Any]:
    found = owner.get(name)
    return found if isinstance(found, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
