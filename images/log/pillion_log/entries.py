"""What an entry is, and how what clients send becomes one. Pure.

An entry is stored, and shown as NDJSON, as one line:
`{"Time":"2026-01-31T12:00:00.123Z","Received":"…","Service":"GradingService","Level":"info","Message":"…","Instance":"grading-1",
"Source":"grading-1/8f2c","Seq":7,"student":3}`.
Instance, Source and Seq stand there only if they were sent; other fields follow, as they are and in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from pillion_common.errors import InvalidInput
from pillion_common.names import check_name
from pillion_log.escapes import escape_json

MAX_LINE_BYTES = 64 * 1024
MAX_FIELDS = 64
MAX_DEPTH = 64
MAX_LEVEL_CHARS = 16
MAX_ID_CHARS = 256
MAX_SEQ = 2**63 - 1

UNKNOWN_SERVICE = "unknown"
DEFAULT_LEVEL = "info"

_ORIGIN = ("Instance", "Source", "Seq")
_OWN = frozenset(("Time", "Received", "Service", "Level", "Message", *_ORIGIN))
_MAX_BRACKETS = len("[] - ") + 63
_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)

_decode_strictly = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class Run(msgspec.Struct, frozen=True, gc=False):
    """Neighbouring entries, ready for the store.

    Either all of them have a Seq, each higher than the one before it, and the same Source; or none has one, and no repeat is recognised.
    """

    lines: bytes  # each ends with its newline
    length: int = 1
    source: str = ""
    seqs: Sequence[int] = ()
    # What spares the store a look at the lines. Without a service it looks at each; so it must if there is a gap entry among them.
    service: str = ""  # of all entries
    received: str = ""
    first_time: str = ""  # the least and the greatest Time; without them it is `received`
    last_time: str = ""


def from_text(body: bytes, received: str) -> Run:
    """Make an entry of a classic message, `[GradingService] - message` or any other text.

    Args:
        body: the message; bytes that are no UTF-8 are replaced.
        received: the time now, as `stamp` writes it.

    Raises:
        InvalidInput: there is nothing in it.
    """
    text = body.decode("utf-8", "replace").strip("\r\n")
    if not text:
        raise InvalidInput("the body is empty; send one message as text/plain", code="empty")
    service = UNKNOWN_SERVICE
    end = text.find("] - ", 0, _MAX_BRACKETS) + 4
    if named := _service_of(text[:end]):
        service, text = named, text[end:]
    return Run(_head(received, service) + escape_json(_encode(text)) + b"}\n", 1, "", (), service, received)


def from_line(line: bytes, received: str) -> Run:
    """Make an entry of one NDJSON line.

    Raises:
        InvalidInput: the line is no entry; the message says why.
    """
    if len(line) > MAX_LINE_BYTES:
        raise InvalidInput(f"the line is over {MAX_LINE_BYTES} bytes")
    fields = _decode(line)
    message = fields.get("Message")
    if not isinstance(message, str) or not message:
        raise InvalidInput("Message must be a text that is not empty", field="Message")
    if len(fields) > MAX_FIELDS and (more := len(fields.keys() - _OWN)) > MAX_FIELDS:
        raise InvalidInput(f"the entry has {more} fields of its own; {MAX_FIELDS} are possible")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(fields, MAX_DEPTH):
        raise InvalidInput(f"the line is nested deeper than {MAX_DEPTH} levels")  # it would break readers whose stack is smaller
    time, source, seq = _text(fields, "Time"), _text(fields, "Source"), fields.get("Seq")
    _text(fields, "Instance")
    if seq is not None and (type(seq) is not int or not 0 <= seq <= MAX_SEQ or not source):
        raise InvalidInput("Seq must be a whole number from 0, with a Source whose entries it counts", field="Seq")
    checked = {
        "Time": canonical_time(time, "Time") if time else received,
        "Received": received,
        "Service": check_name(_text(fields, "Service") or UNKNOWN_SERVICE, "Service"),
        "Level": canonical_level(_text(fields, "Level")),
        "Message": message,
        **{name: fields[name] for name in _ORIGIN if name in fields},
    }
    stored = {**checked, **fields, **checked}  # first for their place, last for their value
    known = (checked["Service"], received, checked["Time"], checked["Time"]) if "Gap" not in fields else ()
    return Run(escape_json(_encode(stored)) + b"\n", 1, source, () if seq is None else (seq,), *known)


def stamp(epoch_s: float) -> str:
    """Return a time as entries have it, e.g. 2026-01-31T12:00:00.123Z."""
    return _stamp_ms(round(epoch_s * 1000))


def canonical_level(text: str) -> str:
    """Return a level as entries have it: lower case, at most 16 characters, info if there is none."""
    return text[:MAX_LEVEL_CHARS].lower() or DEFAULT_LEVEL


def canonical_time(text: str, field: str) -> str:
    """Return an RFC 3339 time in UTC, with milliseconds or, if it is finer, microseconds. Without an offset it is UTC.

    Two such texts without their final Z compare as the times do.

    Raises:
        InvalidInput: it is not such a time.
    """
    try:
        if _CANONICAL.fullmatch(text):
            datetime.fromisoformat(text)  # most clients write it so: it need only exist
            return text
        if not _RFC3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
        return _written(moment.astimezone(UTC) if moment.tzinfo else moment)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{field} {text[:40]!r} is not an RFC 3339 time; write it like 2026-01-31T12:00:00.123Z", field=field) from None


@lru_cache(maxsize=16)
def _stamp_ms(epoch_ms: int) -> str:
    return _written(datetime.fromtimestamp(epoch_ms / 1000, UTC))


def _written(moment: datetime) -> str:
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


@lru_cache(maxsize=1024)
def _service_of(brackets: str) -> str | None:
    """Return the name in `[name] - `, or None if it is something else: then it belongs to the message."""
    try:
        return check_name(brackets[1:-4], "Service") if brackets[0] == "[" else None
    except InvalidInput:
        return None


@lru_cache(maxsize=256)
def _head(received: str, service: str) -> bytes:
    return f'{{"Time":"{received}","Received":"{received}","Service":"{service}","Level":"{DEFAULT_LEVEL}","Message":'.encode()


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_ID_CHARS:
        raise InvalidInput(f"{name} must be a text of at most {MAX_ID_CHARS} characters", field=name)
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))


def _decode(line: bytes) -> dict[str, Any]:
    try:
        try:
            return _decode_strictly(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _decode_leniently(line)
    except (ValueError, RecursionError) as exc:  # every decoder's error is a ValueError
        raise InvalidInput(f"the line is not a JSON object: {exc}") from exc


def _decode_leniently(line: bytes) -> dict[str, Any]:
    """Decode a line that is refused for nothing but broken characters (lone surrogates, bytes that are no UTF-8): those are replaced."""
    value = json.loads(line.decode("utf-8", "replace"), parse_constant=_refuse)
    text = json.dumps(value, ensure_ascii=False)
    return _decode_strictly(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
