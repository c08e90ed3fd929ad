"""Feeds a Tornado Application from the core, through Tornado's own documented interface (httputil.HTTPServerConnectionDelegate).

The sidecar never imports this module: it has no Tornado.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tornado import httputil

from pillion_common.errors import InvalidInput
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
        self._request = request
        self._connection = connection
        self._chunked = False
        self._bodiless = request.method == "HEAD"

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
        """Write the head, and the first piece of the body."""
        assert isinstance(start_line, httputil.ResponseStartLine)
        self._bodiless = self._bodiless or start_line.code in (204, 304)
        self._chunked = not self._bodiless and "Content-Length" not in headers and "Transfer-Encoding" not in headers
        if self._chunked and self._request.version == "1.0":
            self._chunked = self._request.keep_alive = False  # the end of the connection is the end of the body
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        if headers.get("Connection", "").lower() == "close":
            self._request.keep_alive = False
        elif not self._request.keep_alive:
            headers["Connection"] = "close"
        elif self._request.version == "1.0":
            headers["Connection"] = "keep-alive"
        lines = [f"HTTP/1.1 {start_line.code} {start_line.reason}", *(f"{name}: {value}" for name, value in headers.get_all())]
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("a header holds a line end")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._connection.write(head + self._framed(chunk or b""))
        return self._drained()

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write a piece of the body."""
        self._connection.write(self._framed(chunk))
        return self._drained()

    def finish(self) -> None:
        """End the answer."""
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self.done.set()

    def _framed(self, chunk: bytes) -> bytes:
        if self._bodiless or not chunk:
            return b""
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def _drained(self) -> asyncio.Future[None]:
        future = asyncio.ensure_future(self._connection.drained())
        future.add_done_callback(_swallow)
        return future


def _swallow(future: asyncio.Future[Any]) -> None:
    """A handler that does not await its flush must not leave an exception nobody fetched."""
    if not future.cancelled():
        future.exception()


class TornadoBridge:
    """A streaming handler for the core's Server that serves a Tornado Application."""

    def __init__(self, application: httputil.HTTPServerConnectionDelegate) -> None:
        self._application = application

    async def __call__(self, request: Request, connection: AnswerStream) -> None:
        """Hand one whole request to the application and wait until its answer is written or the client has gone."""
        exchange = _Exchange(request, connection)
        exchange.set_close_callback(None)
        target = (request.raw_path + (b"?" + request.raw_query if request.raw_query else b"")).decode("latin-1")
        headers = httputil.HTTPHeaders()
        for name, value in request.headers:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        delegate = self._application.start_request(connection, exchange)
        try:
            delegate.headers_received(httputil.RequestStartLine(request.method, target, f"HTTP/{request.version}"), headers)
            if request.body:
                delegate.data_received(request.body)
            delegate.finish()
        except httputil.HTTPInputError as exc:
            request.keep_alive = False
            response = error_response(InvalidInput(f"the request cannot be read: {exc}", code="bad_request"))
            connection.write(response.head(False, connection.date) + response.body)
            return
        await exchange.done.wait()
