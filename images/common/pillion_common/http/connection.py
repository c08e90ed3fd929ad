"""One client's connection on the server side: bytes in, whole requests to a handler, bytes out.

Keep-alive, pipelining, chunked bodies, Expect: 100-continue, bounds on head and body, time-outs, and a goodbye that does not overtake the
answer. Knows nothing of routes: a handler is `request -> Response`, or a coroutine of one; a streaming handler writes its answer itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import httptools

from pillion_common.errors import HeadTooLarge, InvalidInput, PillionError, TooLarge, Unavailable
from pillion_common.http.interfaces import Handler, HotHandler, Limits, StreamingHandler
from pillion_common.http.message import Request, Response, error_response
from pillion_common.logs import EventLog

_log = EventLog("http")


class Home(Protocol):
    """What a connection needs of the server it belongs to."""

    handler: Handler
    hot: Mapping[bytes, HotHandler]
    streaming: StreamingHandler | None
    limits: Limits
    stopping: bool
    now: float
    date: bytes

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in; False if there are too many."""

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered in order, one at a time."""

    def __init__(self, server: Home) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._request: Request | None = None
        self._answering: asyncio.Future[Any] | None = None
        self._last_words: PillionError | None = None  # a refusal that waits until the answers before it are out
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._deadline = 0.0
        self._unsent = 0
        self._closing = False
        self._ended = False
        self._read_paused = False
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.peer = ""
        self.on_close: Callable[[], None] | None = None
        self._reset()

    # From the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.transport = transport  # type: ignore[assignment]
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self._expect_within(self._limits.head_s)
        if not self._server.admit(self):
            self._refuse(Unavailable("too many connections; try again soon", code="too_many_connections"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._closing = True
        self._can_write.set()
        self._server.forget(self)
        if self._answering is not None:
            if self.on_close is not None:
                self.on_close()
            else:
                self._answering.cancel()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._closing or self._last_words is not None:
            return  # what still comes is read and thrown away
        if self._raw_left:
            self._take_raw(data)
            return
        if not self._head_done:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._decline_upgrade(data[exc.args[0] :])
        except httptools.HttpParserCallbackError as exc:
            cause = exc.__context__
            self._refuse(cause if isinstance(cause, PillionError) else InvalidInput("the request cannot be read", code="bad_request"))
        except httptools.HttpParserError as exc:
            self._refuse(InvalidInput(f"this is not valid HTTP: {exc}", code="bad_request"))
        else:
            if not self._head_done and self._head_size > self._limits.head_bytes:
                self._refuse(_head_too_large(self._limits))

    def eof_received(self) -> bool:  # noqa: D102
        self._ended = True  # a half-closed client still gets the answers it waits for
        return self._answering is not None and not self._closing

    def pause_writing(self) -> None:  # noqa: D102
        self._can_write.clear()
        self._pause_reading()
        self._expect_within(self._limits.write_s)

    def resume_writing(self) -> None:  # noqa: D102
        self._can_write.set()
        self._expect_next()
        self._resume_reading()
        self._next()

    # From the parser.

    def on_message_begin(self) -> None:  # noqa: D102
        self._reset()
        self._expect_within(self._limits.head_s)

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        name = name.lower()
        self._headers.append((name, value))
        self._headers_size += len(name) + len(value) + 4
        if len(self._headers) > self._limits.head_count or self._headers_size > self._limits.head_bytes:
            raise _head_too_large(self._limits)
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self._wants_go_ahead = value.lower() == b"100-continue"
        elif name == b"content-length" and value.isdigit() and int(value) > self._limits.body_bytes:
            raise self._body_too_large()

    def on_headers_complete(self) -> None:  # noqa: D102
        self._head_done = True
        if self._headers_size + len(self._target) > self._limits.head_bytes:
            raise _head_too_large(self._limits)
        version = self._parser.get_http_version()
        if self._hosts > 1 or (version == "1.1" and not self._hosts):
            raise InvalidInput(f"the request has {self._hosts or 'no'} Host headers; send one", code="bad_request")
        method = self._parser.get_method().decode("latin-1")
        self._request = Request(method, self._target, self._headers, self.peer, version, self._parser.should_keep_alive())
        self._expect_within(self._limits.body_s)
        if self._wants_go_ahead and self._answering is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:  # noqa: D102
        self._body_size += len(piece)
        if self._body_size > self._limits.body_bytes:
            raise self._body_too_large()
        self._body.append(piece)

    def on_message_complete(self) -> None:  # noqa: D102
        if not self._parser.should_upgrade():  # then feed_data is about to raise, and the body comes as it is
            self._finish_request()

    # Answers.

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol as the plain one it is; the parser leaves its body to us."""
        request = self._request
        if request is None:
            return
        if request.header(b"transfer-encoding"):
            self._refuse(InvalidInput("an offer to upgrade cannot have a chunked body", code="bad_request"))
            return
        request.keep_alive = False
        self._raw_left = int(request.header(b"content-length") or 0)
        if self._raw_left:
            self._take_raw(rest)
        else:
            self._finish_request()

    def _take_raw(self, data: bytes) -> None:
        piece = data[: self._raw_left]
        self._body.append(piece)
        self._raw_left -= len(piece)
        if not self._raw_left:
            self._finish_request()

    def _finish_request(self) -> None:
        request, self._request = self._request, None
        if request is None:
            return
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._deadline = 0.0
        if self._answering is not None or self._waiting:
            self._waiting.append(request)
            if len(self._waiting) >= self._limits.pipelined:
                self._pause_reading()
        else:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        try:
            hot = self._server.hot.get(request.raw_path)
            outcome = hot(request) if hot is not None else None
            if outcome is None:
                streaming = self._server.streaming
                if streaming is not None:
                    self._answering = asyncio.ensure_future(streaming(request, self))
                    self._answering.add_done_callback(partial(self._streamed, request))
                    return
                outcome = self._server.handler(request)
        except Exception as exc:  # the outermost guard: a fault of ours must not end the connection without a word
            outcome = _explain(request, exc)
        if isinstance(outcome, Response):
            self._respond(request, outcome)
        else:
            self._answering = asyncio.ensure_future(outcome)
            self._answering.add_done_callback(partial(self._answered, request))

    def _answered(self, request: Request, done: asyncio.Future[Response]) -> None:
        self._answering = None
        if done.cancelled():
            self._gave_up()
            return
        exc = done.exception()
        self._respond(request, done.result() if exc is None else _explain(request, exc))
        self._next()

    def _streamed(self, request: Request, done: asyncio.Future[None]) -> None:
        self._answering = None
        self.on_close = None
        if done.cancelled():
            self._gave_up()
        elif (exc := done.exception()) is not None:
            _explain(request, exc)
            self._gave_up()  # part of the answer may be out, so the connection cannot go on
        elif self._stays(request):
            self._expect_next()
            self._next()
        else:
            self._close()

    def _gave_up(self) -> None:
        if not self._closing:
            self.transport.abort()

    def _next(self) -> None:
        """Go on with what waits, once the last answer is out and the client takes it."""
        while self._waiting and self._answering is None and self._can_write.is_set() and not self._closing:
            self._serve(self._waiting.popleft())
        if not self._waiting and self._answering is None:
            if self._last_words is not None:
                self._refuse(self._last_words)
            else:
                self._resume_reading()

    def _respond(self, request: Request, response: Response) -> None:
        if self._closing:
            return
        keep_alive = self._stays(request)
        head = response.head(keep_alive, self._server.date)
        if request.version == "1.0" and keep_alive:
            head = head[:-2] + b"Connection: keep-alive\r\n\r\n"
        self.transport.write(head if request.method == "HEAD" else head + response.body)
        if keep_alive:
            self._expect_next()
        else:
            self._close()

    def write(self, data: bytes) -> None:
        """Write a piece of a streamed answer; await `drained` before the next large one."""
        if not self._closing:
            self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionResetError: the client has gone.
        """
        await self._can_write.wait()
        if self._closing:
            raise ConnectionResetError("the client has gone")

    @property
    def date(self) -> bytes:
        """Return the Date header's value."""
        return self._server.date

    def _stays(self, request: Request) -> bool:
        return request.keep_alive and not self._server.stopping and (not self._ended or bool(self._waiting))

    def _refuse(self, error: PillionError) -> None:
        """Answer an error and close, without reading the rest of the request."""
        if self._answering is not None or self._waiting:
            self._last_words = error
            return
        _log.debug("request_refused", error.message, peer=self.peer, status=error.status)
        response = error_response(error)
        self.transport.write(response.head(False, self._server.date) + response.body)
        self._close()

    def _close(self) -> None:
        """Say goodbye, then read on for a moment: a reset must not overtake the answer."""
        if not self._closing:
            self._closing = True
            self._expect_next()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._resume_reading()

    # Time.

    def shut_when_idle(self) -> None:
        """For the server's shutdown: close now if nothing is in flight, else after the answer."""
        if self._answering is None and not self._waiting and self._request is None:
            self._closing = True
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Close if this connection's time is over."""
        if self._deadline and now > self._deadline:
            unsent = self.transport.get_write_buffer_size()
            if unsent and unsent != self._unsent:
                self._unsent = unsent  # the client takes it, slowly
                self._deadline = now + self._limits.write_s
            elif self._request is not None and not self._closing:
                self._refuse(InvalidInput("the request did not arrive in time", code="request_timeout"))
            else:
                self.transport.abort()

    def _expect_next(self) -> None:
        """Set the time within which the client has to do its part: close, take the answer, or send the next request."""
        if self._closing:
            self._expect_within(self._limits.linger_s)
        elif not self._can_write.is_set():
            self._expect_within(self._limits.write_s)
        elif self._answering is not None:
            self._deadline = 0.0
        else:
            self._expect_within(self._limits.idle_s)

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._server.now + seconds

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._closing:
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and self._can_write.is_set() and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    def _reset(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_size = 0
        self._hosts = 0
        self._wants_go_ahead = False
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = 0
        self._raw_left = 0
        self._head_done = False

    def _body_too_large(self) -> TooLarge:
        return TooLarge(f"the body is over {self._limits.body_bytes} bytes; send less at a time")


def _explain(request: Request, exc: BaseException) -> Response:
    """Return the answer to an error; one that nobody expected is logged and not told."""
    if isinstance(exc, PillionError):
        return error_response(exc)
    _log.fault("request_failed", f"{request.method} {request.path} failed: {type(exc).__name__}: {exc}", exc)
    return error_response(PillionError("a fault of this program; its log has the details"))


def _head_too_large(limits: Limits) -> HeadTooLarge:
    return HeadTooLarge(f"the request's head is over {limits.head_bytes} bytes or {limits.head_count} headers")
