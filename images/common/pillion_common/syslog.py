"""Syslog messages: bytes in, a `Message` out, and the frames of a TCP connection. Pure; no I/O, no clock.

    b"<165>1 2026-10-11T22:14:15.003Z web1 shop 8710 ID47 [ex@32473 user=\\"eve\\"] it works"
    b"<34>Oct 11 22:14:15 web1 su[230]: 'su root' failed on /dev/pts/8"
    b"anything else"

RFC 5424 is the protocol, RFC 3164 describes what others send. Nothing is refused: what has no header is a message all the same (RFC 3164,
4.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

MAX_PRI = 191  # facility 23, severity 7 (RFC 5424, 6.2.1)
DEFAULT_PRI = 13  # user.notice: for what has none (RFC 3164, 4.3.3)
MAX_FRAME_BYTES = 64 * 1024
MAX_COUNT = 16 * 1024 * 1024  # of a counted frame; what claims to be longer is no count
MAX_PARAMS = 64  # of structured data, and as many elements; more are left out

# Severities 0 to 7 (RFC 5424, 6.2.1) as levels.
LEVELS = ("error", "error", "error", "error", "warning", "info", "info", "debug")

_PRI = re.compile(rb"<(0|[1-9]\d{0,2})>")
# VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP, printable ASCII with lengths (RFC 5424, 6).
_HEADER = re.compile(rb"1 (\S{1,40}) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) ")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SD_NAME = rb"[!#-<>-\\^-~]{1,32}"  # printable, none of ` `, `=`, `]`, `"` (RFC 5424, 6.3)
_SD_ID = re.compile(rb"\[(" + _SD_NAME + rb")")
_SD_PARAM = re.compile(rb" (" + _SD_NAME + rb')="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_SD_ESCAPE = re.compile(r'\\(["\\\]])')  # before any other character a backslash is a backslash (RFC 5424, 6.3.3)
_BOM = b"\xef\xbb\xbf"

# `Oct 11 22:14:15 ` or `Oct  1 …` (RFC 3164, 4.1.2), with the year or fractions that some add.
_BSD = re.compile(
    rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ \d]?\d) (?:(\d{4}) )?(\d\d):(\d\d):(\d\d)(\.\d{1,6})?(?: (\d{4}))?:? "
)
_ISO_FIRST = re.compile(rb"(\d{4}-\d\d-\d\dT[0-9:.]{8,18}(?:Z|[+-]\d\d:\d\d)) ")  # as Go's log/syslog and rsyslog write it
_HOST = re.compile(rb"([!-9;-Z\\^-~]{1,255}) ")  # one word without `:` or `[`: those are a tag's
_IPV6_HOST = re.compile(rb"([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,40}) ")
_TAG = re.compile(rb"([!-9;-Z\\^-~]{1,48})(?:\[([!-Z\\^-~]{1,128})\])?: ?")
_TAG_WITH_PID = re.compile(rb"([!-9;-Z\\^-~]{1,48})\[(\d{1,10})\]: ?")
_MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}


class Message(NamedTuple):
    """One message. What it does not tell is empty; `time` is RFC 3339 UTC with milliseconds or, where it is finer, microseconds."""

    facility: int
    severity: int
    text: str
    time: str = ""
    host: str = ""
    app: str = ""
    process: str = ""
    kind: str = ""  # MSGID
    data: Mapping[str, Mapping[str, str]] = {}  # structured data: SD-ID -> name -> value

    @property
    def level(self) -> str:
        """Return the severity as an entry's level."""
        return LEVELS[self.severity]


def parse(data: bytes, now_s: float, offset_s: float = 0.0) -> Message:
    """Read one message, as it stood in a datagram or a frame.

    Args:
        data: as it came. A final line end or NUL is no part of it; bytes that are no UTF-8 are replaced.
        now_s: the time, in seconds since 1970: RFC 3164's times lack the year; that year is meant by which they are nearest to now.
        offset_s: what the sender's clock is ahead of UTC, for the same times.
    """
    data = data.rstrip(b"\r\n\0")
    found = _PRI.match(data)
    if not found or int(found[1]) > MAX_PRI:
        return Message(*divmod(DEFAULT_PRI, 8), _text(data))
    pri, rest = int(found[1]), data[found.end() :]
    return _parse_5424(pri, rest) or _parse_3164(pri, rest, now_s, offset_s)


def _parse_5424(pri: int, rest: bytes) -> Message | None:
    """Read what follows the PRI (RFC 5424, 6); None if it is not of that form."""
    header = _HEADER.match(rest)
    if not header:
        return None
    time = canonical_time(_text(header[1])) or ""
    host, app, process, kind = ("" if word == b"-" else word.decode("ascii") for word in header.groups()[1:])
    data, at = _read_data(rest, header.end())
    text = rest[at:].removeprefix(_BOM)  # 6.4: the mark says that it is UTF-8
    return Message(*divmod(pri, 8), _text(text), time, host, app, process, kind, data)


def _read_data(rest: bytes, start: int) -> tuple[dict[str, dict[str, str]], int]:
    """Read structured data (RFC 5424, 6.3); return it and where the text after it begins. What is not well formed is left to the text."""
    data: dict[str, dict[str, str]] = {}
    params, at = 0, start
    while element := _SD_ID.match(rest, at):
        values = data.setdefault(element[1].decode("ascii"), {}) if len(data) < MAX_PARAMS else {}
        at = element.end()
        while param := _SD_PARAM.match(rest, at):
            params += 1
            if params <= MAX_PARAMS:
                values[param[1].decode("ascii")] = _SD_ESCAPE.sub(r"\1", _text(param[2]))
            at = param.end()
        if rest[at : at + 1] != b"]":
            return {}, start
        at += 1
    if at == start and rest[at : at + 1] == b"-":
        at += 1
    if at < len(rest) and rest[at : at + 1] != b" ":
        return {}, start
    return data, at + 1


def _parse_3164(pri: int, rest: bytes, now_s: float, offset_s: float) -> Message:
    """Read what follows the PRI as others have it (RFC 3164, 4.1): `TIMESTAMP [HOST] [TAG[PID]:] text`, each part where it can be seen."""
    time, at = _read_time(rest, now_s, offset_s)
    host = app = process = ""
    if time:
        # glibc's syslog() and Go's leave out the host on the way to a local daemon: then the tag comes first.
        if found := _IPV6_HOST.match(rest, at) or (None if _TAG.match(rest, at) else _HOST.match(rest, at)):
            host, at = found[1].decode("ascii"), found.end()
        tag = _TAG.match(rest, at)
    else:
        tag = _TAG_WITH_PID.match(rest, at)  # without a header, `word:` is more likely to be text
    if tag:
        app, process, at = tag[1].decode("ascii"), (tag[2] or b"").decode("ascii"), tag.end()
    return Message(*divmod(pri, 8), _text(rest[at:].removeprefix(_BOM)), time, host, app, process)


def _read_time(rest: bytes, now_s: float, offset_s: float) -> tuple[str, int]:
    """Return the time at the beginning, and where it ends; no time and 0 if there is none (RFC 3164, 4.3.2)."""
    if found := _ISO_FIRST.match(rest):
        time = canonical_time(found[1].decode("ascii"))
        return (time, found.end()) if time else ("", 0)
    if not (found := _BSD.match(rest)):
        return "", 0
    from datetime import UTC, datetime, timedelta  # an idle sidecar does without

    month, day, year, hour, minute, second, fraction, year_after = found.groups()
    micros = round(float(fraction or 0) * 1_000_000) % 1_000_000
    given = year or year_after
    now = datetime.fromtimestamp(now_s, UTC)
    years = (int(given),) if given else (now.year, now.year - 1, now.year + 1)
    moments = []
    for one in years:
        try:
            moment = datetime(one, _MONTHS[month], int(day), int(hour), int(minute), int(second), micros, UTC)
            moments.append(moment - timedelta(seconds=offset_s))
        except (ValueError, OverflowError):
            continue  # the 29th of February, or no time at all
    if not moments:
        return "", 0
    return _written(min(moments, key=lambda moment: abs(moment - now))), found.end()


def canonical_time(text: str) -> str | None:
    """Return an RFC 3339 time, as RFC 5424 (6.2.3) has it, in UTC with milliseconds or microseconds; None if it is no such time."""
    if not _ISO.fullmatch(text):
        return None
    from datetime import UTC, datetime

    try:
        return _written(datetime.fromisoformat(text).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def _written(moment: datetime) -> str:
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class Frame(NamedTuple):
    """One message of a connection, and how many bytes of it were left out since it was too long."""

    data: bytes
    missing: int = 0


class FrameReader:
    """Turns the bytes of one TCP connection into frames (RFC 6587), in bounded memory.

    A frame is either counted, `LENGTH SP <PRI>…` (3.4.1), or ends with LF or, as Python's SysLogHandler writes it, NUL (3.4.2); each for
    itself. Digits that are not followed by ` <` are no count. Empty frames are passed over.

    Args:
        max_bytes: of one frame; what is beyond is left out.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()  # the beginning of a frame
        self._missing = 0  # bytes left out of it
        self._count: int | None = None  # bytes of a counted frame that are still to come; None is a frame that ends with LF or NUL

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that are whole now."""
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            at = self._take_counted(data, at, frames) if self._count is not None else self._take_line(data, at, frames)
        return frames

    def end(self) -> list[Frame]:
        """Take note that nothing more comes; return what is left, as a frame."""
        frames: list[Frame] = []
        self._missing += self._count or 0
        self._finish(frames)
        return frames

    def _take_counted(self, data: bytes, at: int, frames: list[Frame]) -> int:
        assert self._count is not None
        end = min(len(data), at + self._count)
        self._count -= end - at
        self._keep(data[at:end])
        if self._count == 0:
            self._finish(frames)
        return end

    def _take_line(self, data: bytes, at: int, frames: list[Frame]) -> int:
        if not self._missing and len(self._held) < _MAX_PREFIX:
            # The longest count is not yet in: look whether this is one. Too little to tell is held, as the line's beginning.
            begin = bytes(self._held) + data[at : at + _MAX_PREFIX]
            if (found := _COUNT.match(begin)) and int(found[1]) <= MAX_COUNT:
                at += found.end() - len(self._held)
                self._held, self._count = bytearray(), int(found[1])
                return at
        end = _next_end(data, at)
        self._keep(data[at:end])
        if end == len(data):
            return end
        self._finish(frames)
        return end + 1

    def _keep(self, data: bytes) -> None:
        room = max(0, self._max_bytes - len(self._held))
        self._held += data[:room]
        self._missing += len(data[room:])

    def _finish(self, frames: list[Frame]) -> None:
        held = bytes(self._held).rstrip(b"\r\n\0")
        if held:
            frames.append(Frame(held, self._missing))
        self._held, self._missing, self._count = bytearray(), 0, None


_COUNT = re.compile(rb"([1-9]\d{0,7}) (?=<)")
_MAX_PREFIX = len(b"12345678 <")
_END = re.compile(rb"[\n\0]")


def _next_end(data: bytes, at: int) -> int:
    found = _END.search(data, at)
    return found.start() if found else len(data)
