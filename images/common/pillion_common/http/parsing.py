"""Turns a connection's bytes into whole, bounded requests, and says what is wrong with those that are none. No I/O.

On httptools, which refuses ambiguous lengths, bare line ends and folded headers; what it lets pass and we do not is refused here.
"""

from __future__ import annotations

import enum
import re

import httptools

from pillion_common.errors import HeadTooLarge, InvalidInput, PillionError, TooLarge, WrongVersion
from pillion_common.http.interfaces import Limits
from pillion_common.http.message import Request

HOST = re.compile(rb"(?:[\w.~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?")  # RFC 9110, 7.2, without the comma that joined lines leave
TARGET = re.compile(rb"(?:/|http://)[^#]*")
FRAMING = 8  # bytes on the wire for each byte of a body: chunks of one byte take six


class Stage(enum.Enum):
    """How far the request that is coming in has got."""

    NONE = "between two requests"
    HEAD = "in its head"
    BODY = "in its body"


class RequestParser:
    """Reads the requests of one connection.

    Args:
        peer: the other side's IP address.
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self._limits = limits
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[Request] = []
        self._request: Request | None = None
        self._raw_left = 0
        self._body: bytes | bytearray = b""
        self._chunked = False
        self._reset()
        self.stage = Stage.NONE
        self.begun = 0  # requests that have begun so far
        self.fault: PillionError | None = None  # why nothing more can be read; set once
        self.wants_go_ahead = False  # it waits for a 100 Continue before it sends its body

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes in; return the requests that became whole. Look at `fault` afterwards."""
        self._ready = []
        if self._raw_left:
            self._take_raw(data)
            return self._ready
        self._taken += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._decline_upgrade(data[exc.args[0] :])
        except httptools.HttpParserCallbackError as exc:
            cause = exc.__context__
            self.fault = cause if isinstance(cause, PillionError) else InvalidInput("the request cannot be read", code="bad_request")
        except httptools.HttpParserError as exc:
            self.fault = InvalidInput(f"this is not valid HTTP: {exc}", code="bad_request")
        else:
            if self._taken > self._limits.head_bytes + FRAMING * self._body_size:
                self.fault = self._head_too_large()  # or an endless chunk extension or trailer
        return self._ready

    # From httptools.

    def on_message_begin(self) -> None:  # noqa: D102
        self._reset()
        self.begun += 1
        self.stage = Stage.HEAD

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self.stage is Stage.BODY:
            return  # a trailer: what checked the headers has not seen it
        name, value = name.lower(), value.strip(b" \t")
        self._headers.append((name, value))
        self._headers_size += len(name) + len(value) + 4
        if len(self._headers) > self._limits.head_count or self._headers_size > self._limits.head_bytes:
            raise self._head_too_large()
        if name == b"host":
            self._hosts += 1
            if not HOST.fullmatch(value):
                raise InvalidInput("the Host header is not a host", code="bad_request")
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                raise InvalidInput("the only Transfer-Encoding understood here is chunked, once", code="bad_request")
            self._chunked = True
        elif name == b"expect":
            self.wants_go_ahead = value.lower() == b"100-continue"
        elif name == b"content-length" and value.isdigit() and int(value) > self._limits.body_bytes:
            raise self._body_too_large()

    def on_headers_complete(self) -> None:  # noqa: D102
        self.stage = Stage.BODY
        if self._headers_size + len(self._target) > self._limits.head_bytes:
            raise self._head_too_large()
        version = self._parser.get_http_version()
        method = self._parser.get_method().decode("latin-1")
        if version not in ("1.0", "1.1"):
            raise WrongVersion(f"HTTP/{version} is not spoken here; use HTTP/1.1")
        if self._chunked and version == "1.0":
            raise InvalidInput("HTTP/1.0 has no Transfer-Encoding", code="bad_request")
        if not TARGET.fullmatch(self._target) and (method, self._target) != ("OPTIONS", b"*") and method != "CONNECT":
            raise InvalidInput("the request's target is not a path", code="bad_request")
        if self._hosts > 1 or (version == "1.1" and not self._hosts):
            raise InvalidInput(f"the request has {self._hosts or 'no'} Host headers; send one", code="bad_request")
        self._request = Request(method, self._target, self._headers, self._peer, version, self._parser.should_keep_alive())

    def on_body(self, piece: bytes) -> None:  # noqa: D102
        self._body_size += len(piece)
        if self._body_size > self._limits.body_bytes:
            raise self._body_too_large()
        self._add(piece)

    def on_message_complete(self) -> None:  # noqa: D102
        if not self._parser.should_upgrade():  # then feed_data is about to raise, and the body comes as it is
            self._finish()

    # Inside.

    def _finish(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.body = bytes(self._body)
            self._ready.append(request)
        self._reset()
        self.stage = Stage.NONE

    def _decline_upgrade(self, rest: bytes) -> None:
        """Take a request that offers another protocol as the plain one it is; httptools leaves its body to us."""
        request = self._request
        if request is None:
            return
        if request.header(b"transfer-encoding"):
            self.fault = InvalidInput("an offer to upgrade cannot have a chunked body", code="bad_request")
            return
        request.keep_alive = False
        self._raw_left = int(request.header(b"content-length") or 0)
        if self._raw_left:
            self._take_raw(rest)
        else:
            self._finish()

    def _take_raw(self, data: bytes) -> None:
        piece = data[: self._raw_left]
        self._add(piece)
        self._raw_left -= len(piece)
        if not self._raw_left:
            self._finish()

    def _add(self, piece: bytes) -> None:
        if not self._body:
            self._body = piece  # most bodies are one piece
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += piece

    def _reset(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_size = 0
        self._hosts = 0
        self._chunked = False
        self._body = b""
        self._body_size = 0
        self._taken = 0
        self.wants_go_ahead = False

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request's head is over {self._limits.head_bytes} bytes or {self._limits.head_count} headers")

    def _body_too_large(self) -> TooLarge:
        return TooLarge(f"the body is over {self._limits.body_bytes} bytes; send less at a time")
