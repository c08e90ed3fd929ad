"""Feeds a Tornado Application from the core, through Tornado's own documented interface (httputil.HTTPServerConnectionDelegate).

The sidecar never imports this module: it has no Tornado.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tornado import httputil
from tornado.iostream import StreamClosedError

from pillion_common.errors import InvalidInput, PillionError
from pillion_common.http.interfaces import AnswerStream
from pillion_common.http.message import Request, error_response


class _Context:
    """What HTTPServerRequest wants to know of a connection."""

    def __init__(self, peer: str) -> None:
        self.remote_ip = peer
        self.protocol = "http"


class _Exchange(httputil.HTTPConnection):
    """One request and its answer, as Tornado's handlers see it."""

    def __init__(self, request: Request, connection: AnswerStream) -> None:
        self.context = _Context(request.peer)
        self.done = asyncio.Event()
        self.broken = ""
        self.begun = False
        self._request = request
        self._connection = connection
        self._chunked = False
        self._bodiless = request.method == "HEAD"
        self._missing: int | None = None  # bytes the Content-Length promises that are not written yet

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Let a handler know that its client has gone."""

        def closed() -> None:
            self.done.set()
            if callback is not None:
                callback()

        self._connection.on_close = closed

    def write_headers(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Write the head, and the first piece of the body.

        Raises:
            ValueError: a header holds a line end or what latin-1 does not have, or the Content-Length is not a number.
            HTTPOutputError: the piece is longer than the Content-Length.
        """
        assert isinstance(start_line, httputil.ResponseStartLine)
        try:
            head = self._head(start_line, headers)
        except ValueError as exc:
            self._give_up(str(exc))  # the handler takes its head for written, and will not finish
            raise
        self.begun = True
        self._connection.write(head + self._framed(chunk or b""))
        return self._drained()

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write a piece of the body.

        Raises:
            HTTPOutputError: it is longer than the Content-Length.
        """
        self._connection.write(self._framed(chunk))
        return self._drained()

    def finish(self) -> None:
        """End the answer.

        Raises:
            HTTPOutputError: it is shorter than the Content-Length.
        """
        if self._missing and not self.done.is_set():
            self._give_up(f"Tried to write {self._missing} bytes less than Content-Length")
            raise httputil.HTTPOutputError(self.broken)
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self.done.set()

    def _head(self, start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders) -> bytes:
        self._bodiless = self._bodiless or start_line.code < 200 or start_line.code in (204, 304)
        length = headers.get("Content-Length")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise ValueError(f"the Content-Length {length!r} is not a number")
        self._missing = None if self._bodiless or length is None else int(length)
        self._chunked = not self._bodiless and length is None and self._request.version == "1.1"
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not self._bodiless and length is None:
            self._request.keep_alive = False  # the end of the connection is the end of the body
        self._say_what_becomes_of_the_connection(headers)
        lines = [f"HTTP/1.1 {start_line.code} {start_line.reason}", *(f"{name}: {value}" for name, value in headers.get_all())]
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("a header holds a line end")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def _say_what_becomes_of_the_connection(self, headers: httputil.HTTPHeaders) -> None:
        if headers.get("Connection", "").lower() == "close":
            self._request.keep_alive = False
        elif self._request.version == "1.0":
            if self._request.keep_alive:
                headers["Connection"] = "Keep-Alive"
        elif not self._request.keep_alive:
            headers["Connection"] = "close"

    def _framed(self, chunk: bytes) -> bytes:
        if self._bodiless or not chunk:
            return b""
        if self._missing is not None:
            self._missing -= len(chunk)
            if self._missing < 0 and not self.done.is_set():
                self._give_up("Tried to write more data than Content-Length")
                raise httputil.HTTPOutputError(self.broken)
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def _give_up(self, why: str) -> None:
        """End the exchange: its client must not take the answer for a whole one."""
        self.broken = why
        self.done.set()

    def _drained(self) -> asyncio.Future[None]:
        future = asyncio.ensure_future(_drain(self._connection))
        future.add_done_callback(_swallow)
        return future


async def _drain(connection: AnswerStream) -> None:
    try:
        await connection.drained()
    except ConnectionResetError as exc:
        raise StreamClosedError(exc) from exc  # what Tornado's handlers know


def _swallow(future: asyncio.Future[Any]) -> None:
    """A handler that does not await its flush must not leave an exception nobody fetched."""
    if not future.cancelled():
        future.exception()


class TornadoBridge:
    """A streaming handler for the core's Server that serves a Tornado Application.

    Bodies are handed over whole, in one piece. What Tornado's HTTPServer offers beyond its documented interface (detach, stream, limits
    per request) is not there.
    """

    def __init__(self, application: httputil.HTTPServerConnectionDelegate) -> None:
        self._application = application

    async def __call__(self, request: Request, connection: AnswerStream) -> None:
        """Hand one whole request to the application and wait until its answer is written or the client has gone.

        Raises:
            PillionError: the application broke off its answer; the connection cannot go on.
        """
        exchange = _Exchange(request, connection)
        delegate = self._application.start_request(connection, exchange)
        exchange.set_close_callback(delegate.on_connection_close)
        try:
            await _hand_over(request, delegate, exchange)
        except httputil.HTTPInputError as exc:
            if exchange.begun:
                raise
            request.keep_alive = False
            response = error_response(InvalidInput(f"the request cannot be read: {exc}", code="bad_request"))
            head = response.head(False, connection.date)
            connection.write(head if request.method == "HEAD" else head + response.body)
            return
        await exchange.done.wait()
        if exchange.broken:
            raise PillionError(exchange.broken)


async def _hand_over(request: Request, delegate: httputil.HTTPMessageDelegate, exchange: _Exchange) -> None:
    """Give the delegate the head, the body and the end, each when it is ready for it; no more once it has answered."""
    target = (request.raw_path + (b"?" + request.raw_query if request.raw_query else b"")).decode("latin-1")
    headers = httputil.HTTPHeaders()
    for name, value in request.headers:
        headers.add(name.decode("latin-1"), value.decode("latin-1"))
    ready = delegate.headers_received(httputil.RequestStartLine(request.method, target, f"HTTP/{request.version}"), headers)
    if ready is not None:
        await ready
    if request.body and not exchange.done.is_set():
        ready = delegate.data_received(request.body)
        if ready is not None:
            await ready
    if not exchange.done.is_set():
        delegate.finish()
