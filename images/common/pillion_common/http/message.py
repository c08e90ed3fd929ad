"""Requests and responses as the core passes them on. No I/O.

A Request is whole (its body is read and bounded) when a handler sees it; header names are lower case bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from pillion_common.errors import InvalidInput, MethodNotAllowed, PillionError

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

# What the standard library has in http.HTTPStatus, whose members would cost every sidecar 75 KB.
REASONS = {
    100: b"Continue",
    101: b"Switching Protocols",
    102: b"Processing",
    103: b"Early Hints",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    203: b"Non-Authoritative Information",
    204: b"No Content",
    205: b"Reset Content",
    206: b"Partial Content",
    207: b"Multi-Status",
    208: b"Already Reported",
    226: b"IM Used",
    300: b"Multiple Choices",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    305: b"Use Proxy",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Request Entity Too Large",
    414: b"Request-URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Requested Range Not Satisfiable",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    422: b"Unprocessable Entity",
    423: b"Locked",
    424: b"Failed Dependency",
    425: b"Too Early",
    426: b"Upgrade Required",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    451: b"Unavailable For Legal Reasons",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    506: b"Variant Also Negotiates",
    507: b"Insufficient Storage",
    508: b"Loop Detected",
    510: b"Not Extended",
    511: b"Network Authentication Required",
}


class Request:
    """One request. `peer` is the other side's IP address."""

    __slots__ = ("body", "headers", "keep_alive", "method", "peer", "plain", "raw_path", "raw_query", "version")

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], peer: str, version: str, keep_alive: bool) -> None:
        self.method = method
        self.raw_path, _, self.raw_query = target.partition(b"?")
        self.headers = headers
        self.peer = peer
        self.version = version
        self.keep_alive = keep_alive
        self.plain = False  # of the kind that KnownHeads keeps: its answer needs no second thought
        self.body = b""

    def again(self, peer: str, body: bytes) -> Request:
        """Return a request with the same head."""
        other = Request.__new__(Request)
        other.method = self.method
        other.raw_path = self.raw_path
        other.raw_query = self.raw_query
        other.headers = self.headers
        other.version = self.version
        other.keep_alive = other.plain = True
        other.peer = peer
        other.body = body
        return other

    @property
    def path(self) -> str:
        """Return the path without its query, percent-decoded."""
        path = self.raw_path.decode("latin-1")
        if "%" not in path:
            return path
        from urllib.parse import unquote

        return unquote(path)

    def header(self, name: bytes) -> bytes:
        """Return the first header of that (lower case) name, or b""."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    def query(self) -> dict[str, str]:
        """Return the query's parameters.

        Raises:
            InvalidInput: one is given twice, or there are more than 32.
        """
        if not self.raw_query:
            return {}
        from urllib.parse import parse_qs  # a sidecar whose app asks without a query does without

        try:
            pairs = parse_qs(self.raw_query.decode("latin-1"), keep_blank_values=True, max_num_fields=32)
        except ValueError as exc:
            raise InvalidInput("the query has more than 32 parameters", code="invalid_query") from exc
        for name, values in pairs.items():
            if len(values) > 1:
                raise InvalidInput(f"the parameter {name} is given {len(values)} times; give it once", code="invalid_query", field=name)
        return {name: values[0] for name, values in pairs.items()}


class Response:
    """One whole response. It does not change once it was sent, so that one which is sent often is made into bytes once a second."""

    __slots__ = ("_bytes", "_date", "body", "content_type", "headers", "status")

    def __init__(
        self, status: int = 200, body: bytes = b"", content_type: bytes = JSON, headers: Mapping[bytes, bytes] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self._date = b""
        self._bytes = b""

    def to_bytes(self, date: bytes) -> bytes:
        """Return all of it for a connection that stays open.

        Args:
            date: the Date header's value; the same object as long as it has not changed.
        """
        if self._date is not date:
            self._date, self._bytes = date, self.head(True, date) + self.body
        return self._bytes

    def head(self, keep_alive: bool, date: bytes) -> bytes:
        """Return the status line and header lines, up to and with the empty line."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, REASONS.get(self.status, b"Unknown")), b"Date: " + date]
        if self.status != 204:
            lines.append(b"Content-Length: %d" % len(self.body))
            if self.body:
                lines.append(b"Content-Type: " + self.content_type)
        if self.headers:
            lines += [name + b": " + value for name, value in self.headers.items()]
        if not keep_alive:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"


def error_response(error: PillionError) -> Response:
    """Map an error to its answer; the one place where statuses come from errors."""
    headers: dict[bytes, bytes] = {}
    if error.retry_after_s is not None:
        headers[b"Retry-After"] = b"%d" % error.retry_after_s
    if isinstance(error, MethodNotAllowed):
        headers[b"Allow"] = ", ".join(error.allowed).encode()
    if error.status == 401:
        headers[b"WWW-Authenticate"] = b"Bearer"
    return Response(error.status, error.to_body(), headers=headers)
