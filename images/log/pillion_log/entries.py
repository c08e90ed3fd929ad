"""What an entry is, and how what clients send becomes one. Pure.

An entry is stored, and shown as NDJSON, as one line:
`{"Time":"2026-01-31T12:00:00.123Z","Received":"…","Service":"GradingService","Level":"info","Message":"…","Instance":"grading-1",
"Source":"grading-1/8f2c","Seq":7,"student":3}`.
Instance, Source and Seq stand there only if they were sent; other fields follow, as they are and in their order. Three mean something:
`Cut`, how many bytes were left out (see cuts.py); `Gap`, how many entries are missing, which only a numbered source may say of itself; and
`Unverified`, on what came without the token where there is one.
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
from pillion_log.cuts import MAX_ENTRY_BYTES, MAX_FIELDS, cut_text, fit, mark
from pillion_log.escapes import escape_json

MAX_LINE_BYTES = 64 * 1024  # of a line that is looked at no closer
MAX_DEPTH = 64
MAX_LEVEL_CHARS = 16
MAX_ID_CHARS = 256
MAX_SEQ = 2**63 - 1

UNKNOWN_SERVICE = "unknown"
DEFAULT_LEVEL = "info"

_ORIGIN = ("Instance", "Source", "Seq")
OWN = frozenset(("Time", "Received", "Service", "Level", "Message", *_ORIGIN))
_MAX_BRACKETS = len("[] - ") + 63
_QUOTED_AS_THEY_ARE = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
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


def from_long_text(body: bytes, received: str) -> Run:
    """Make an entry of a classic message that is over 64 KB: its end is left out."""
    kept = cut_text(body, MAX_ENTRY_BYTES)
    missing = len(body) - len(kept)
    return with_field(from_text(kept + mark(missing).encode(), received), b'"Cut":%d' % missing)


def from_texts(texts: Sequence[bytes], received: str) -> list[Run]:
    """Make entries of many classic messages: what `from_text` makes of each, all at once where that is possible.

    Args:
        texts: each without line ends at its start and its end, and not empty.
        received: see from_text.

    Returns:
        One run, if all are plain texts of one service; else one for each.
    """
    first = texts[0]
    prefix = first[: first.find(b"] - ", 0, _MAX_BRACKETS) + len("] - ")]
    if service := _service_of(prefix.decode("latin-1")):
        whole = b"\n".join(texts)
        between = whole.translate(None, _QUOTED_AS_THEY_ARE)
        # Only the line ends between them are left, and behind each of them the same service is named.
        if len(between) == between.count(b"\n") == whole.count(b"\n" + prefix) == len(texts) - 1:
            head = _head(received, service) + b'"'
            lines = head + whole[len(prefix) :].replace(b"\n" + prefix, b'"}\n' + head) + b'"}\n'
            return [Run(lines, len(texts), "", (), service, received)]
    return [from_text(text, received) for text in texts]


def from_line(line: bytes, received: str) -> Run:
    """Make an entry of one NDJSON line.

    Raises:
        InvalidInput: the line is no entry; the message says why.
    """
    fields = decode_object(line, "the line")
    message = fields.get("Message")
    if not isinstance(message, str) or not message:
        raise InvalidInput("Message must be a text that is not empty", field="Message")
    if len(fields) > MAX_FIELDS and (more := len(fields.keys() - OWN)) > MAX_FIELDS:
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
    if "Unverified" in fields or "Gap" in fields:
        fields = _without_false_claims(fields)
    if len(line) > MAX_LINE_BYTES:
        checked["Message"], fields = fit(message, {name: value for name, value in fields.items() if name not in OWN})
    return to_run({**checked, **fields, **checked}, source, seq)  # first for their place, last for their value


def to_run(stored: dict[str, Any], source: str = "", seq: int | None = None) -> Run:
    """Return an entry whose fields are all valid, as the store takes it."""
    known = (stored["Service"], stored["Received"], stored["Time"], stored["Time"]) if "Gap" not in stored else ()
    return Run(escape_json(_encode(stored)) + b"\n", 1, source, () if seq is None else (seq,), *known)


def with_field(run: Run, field: bytes) -> Run:
    """Return the run with one more field in each entry.

    Args:
        field: in JSON, e.g. `"Unverified":true`; no entry has one of that name.
    """
    # No string holds a line end: each of these is the end of an entry.
    return msgspec.structs.replace(run, lines=run.lines.replace(b"}\n", b",%b}\n" % field))


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
        return written(moment.astimezone(UTC) if moment.tzinfo else moment)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{field} {text[:40]!r} is not an RFC 3339 time; write it like 2026-01-31T12:00:00.123Z", field=field) from None


@lru_cache(maxsize=16)
def _stamp_ms(epoch_ms: int) -> str:
    return written(datetime.fromtimestamp(epoch_ms / 1000, UTC))


def written(moment: datetime) -> str:
    """Return a moment in UTC as entries have it."""
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


def _without_false_claims(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with `Unverified` under another name, and `Gap` too if it is not a numbered source's word about what it dropped."""
    gap, seq = fields.get("Gap"), fields.get("Seq")
    counts = type(gap) is int and type(seq) is int and 1 <= gap <= seq
    false = ("Unverified",) if counts else ("Unverified", "Gap")
    return {(f"{name}_" if name in false else name): value for name, value in fields.items()}


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


def decode_object(text: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object; broken characters in it are replaced.

    Raises:
        InvalidInput: it is none; the message begins with `what`.
    """
    try:
        try:
            return _decode_strictly(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _decode_leniently(text)
    except (ValueError, RecursionError) as exc:  # every decoder's error is a ValueError
        raise InvalidInput(f"{what} is not a JSON object: {exc}") from exc


def _decode_leniently(line: bytes) -> dict[str, Any]:
    """Decode a line that is refused for nothing but broken characters (lone surrogates, bytes that are no UTF-8): those are replaced."""
    value = json.loads(line.decode("utf-8", "replace"), parse_constant=_refuse)
    text = json.dumps(value, ensure_ascii=False)
    return _decode_strictly(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
