"""One client's connection on the server side: bytes in, requests to whoever answers them, bytes out.

Keep-alive, pipelining, Expect: 100-continue, time-outs, back-pressure, and a goodbye that does not overtake the answer. What a request is
belongs to the parser; who answers it, to the server's route. A request whose head was seen before goes straight to its handler.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pillion_common.errors import InvalidInput, PillionError, Unavailable
from pillion_common.http.heads import END, MAX_HEAD_BYTES, KnownHead, KnownHeads
from pillion_common.http.interfaces import Handler, Limits, StreamingHandler
from pillion_common.http.message import Request, Response, error_response
from pillion_common.http.parsing import RequestParser, Stage
from pillion_common.http.promise import Promise
from pillion_common.http.reading import read_less_at_once
from pillion_common.http.taker import Taker
from pillion_common.logs import EventLog

_log = EventLog("http")


class Home(Protocol):
    """What a connection needs of the server it belongs to."""

    streaming: StreamingHandler
    known: KnownHeads
    limits: Limits
    stopping: bool
    now: float
    date: bytes

    def route(self, request: Request) -> Handler | None:
        """Find what answers a request, from its head; None leaves it to `streaming`."""

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in; False if there are too many."""

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered in order, one at a time."""

    __slots__ = (
        "_answering",
        "_begun",
        "_closing",
        "_deadline",
        "_drain",
        "_ended",
        "_found",
        "_last_words",
        "_limits",
        "_parser",
        "_read_paused",
        "_server",
        "_stage",
        "_unsent",
        "_waiting",
        "_writable",
        "on_close",
        "peer",
        "transport",
    )

    def __init__(self, server: Home) -> None:
        self._server = server
        self._limits = server.limits
        self._waiting: deque[Request] = deque()
        self._answering: asyncio.Future[Any] | Promise | KnownHead | None = None
        self._found: tuple[Request, Handler] | None = None  # what the last request was routed to
        self._last_words: PillionError | None = None  # a refusal that waits until the answers before it are out
        self._writable = True
        self._drain: asyncio.Event | None = None
        self._deadline = 0.0
        self._unsent = 0
        self._closing = False
        self._ended = False
        self._read_paused = False
        self._begun = 0
        self._stage = Stage.NONE
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.peer = ""
        self.on_close: Callable[[], None] | None = None

    # From the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.transport = transport  # type: ignore[assignment]
        read_less_at_once(transport)
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self._parser = RequestParser(self._limits, self.peer)
        self._expect_within(self._limits.head_s)
        if not self._server.admit(self):
            self._refuse(Unavailable("too many connections; try again soon", code="too_many_connections"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._closing = True
        self._let_write()
        self._server.forget(self)
        if isinstance(self._answering, asyncio.Future):
            if self.on_close is not None:
                self.on_close()
            else:
                self._answering.cancel()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._closing or self._last_words is not None:
            return  # what still comes is read and thrown away
        if self._parser.stage is not Stage.NONE or self._answering is not None or self._waiting or not self._writable:
            self._take(data)
            return
        end = data.find(END, 0, MAX_HEAD_BYTES) + 4
        known = self._server.known.get(data[:end])
        if known is not None and len(data) - end == known.length:
            if known.taker is not None:
                self._hand_in(known, known.taker, data[end:])
            else:
                self._begin(known.again(self.peer, data[end:]), known.handler)
            return
        self._found = None
        if self._take(data) == 1 and self._found is not None and self._parser.stage is Stage.NONE:
            self._server.known.keep(data, *self._found)

    def eof_received(self) -> bool:  # noqa: D102
        self._ended = True  # a half-closed client still gets the answers it waits for
        return self._answering is not None and not self._closing

    def pause_writing(self) -> None:  # noqa: D102
        self._writable = False
        self._pause_reading()
        self._expect_within(self._limits.write_s)

    def resume_writing(self) -> None:  # noqa: D102
        self._let_write()
        self._expect_next()
        self._resume_reading()
        self._next()

    # Requests.

    def _take(self, data: bytes) -> int:
        """Let the parser have some bytes; return how many requests they completed."""
        parser = self._parser
        requests = parser.feed(data)
        for request in requests:
            if self._closing:
                break  # the one before was the last
            self._deadline = 0.0
            if self._answering is not None or self._waiting or not self._writable:
                self._waiting.append(request)
                if len(self._waiting) >= self._limits.pipelined:
                    self._pause_reading()
            else:
                self._serve(request)
        if parser.fault is not None and not self._closing:
            self._refuse(parser.fault)
        elif not self._closing and (parser.begun, parser.stage) != (self._begun, self._stage):
            self._begun, self._stage = parser.begun, parser.stage
            if self._stage is not Stage.NONE:
                self._expect_within(self._limits.head_s if self._stage is Stage.HEAD else self._limits.body_s)
            if parser.wants_go_ahead and self._stage is Stage.BODY and self._answering is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return len(requests)

    def _serve(self, request: Request) -> None:
        try:
            handler = self._server.route(request)
        except Exception as exc:  # as in _begin
            self._respond(request, _explain(request, exc))
            return
        if handler is not None:
            self._found = request, handler
            self._begin(request, handler)
        else:
            answering = self._answering = asyncio.ensure_future(self._server.streaming(request, self))
            answering.add_done_callback(partial(self._streamed, request))

    def _begin(self, request: Request, handler: Handler) -> None:
        try:
            outcome = handler(request)
        except Exception as exc:  # the outermost guard: a fault of ours must not end the connection without a word
            outcome = _explain(request, exc)
        if isinstance(outcome, Response):
            self._respond(request, outcome)
        elif isinstance(outcome, Promise):
            self._deadline = 0.0
            self._answering = outcome
            outcome.then(partial(self._settled, request))
        else:
            self._deadline = 0.0
            self._answering = answering = asyncio.ensure_future(outcome)
            answering.add_done_callback(partial(self._answered, request))

    def _hand_in(self, known: KnownHead, taker: Taker, body: bytes) -> None:
        """Give a body to the taker that its head belongs to."""
        self._deadline = 0.0
        self._answering = known
        try:
            taker.take(body, self.peer, self._taken)
        except Exception as exc:  # as in _begin
            self._taken(exc)

    def _taken(self, outcome: object) -> None:
        known = self._answering
        if isinstance(known, KnownHead) and known.taker is not None:
            self._settled(known.request, outcome if isinstance(outcome, Exception) else known.taker.receipt)

    def _settled(self, request: Request, outcome: Response | Exception) -> None:
        self._answering = None
        self._respond(request, outcome if isinstance(outcome, Response) else _explain(request, outcome))
        if self._waiting or self._last_words or self._read_paused:
            self._next()

    def _answered(self, request: Request, done: asyncio.Future[Response]) -> None:
        self._answering = None
        if done.cancelled():
            self._give_up()
            return
        exc = done.exception()
        self._respond(request, done.result() if exc is None else _explain(request, exc))
        self._next()

    def _streamed(self, request: Request, done: asyncio.Future[None]) -> None:
        self._answering = None
        self.on_close = None
        if done.cancelled():
            self._give_up()
        elif (exc := done.exception()) is not None:
            _explain(request, exc)
            self._give_up()  # part of the answer may be out, so the connection cannot go on
        elif self._stays(request):
            self._expect_next()
            self._next()
        else:
            self._close()

    def _next(self) -> None:
        """Go on with what waits, once the last answer is out and the client takes it."""
        while self._waiting and self._answering is None and self._writable and not self._closing:
            self._serve(self._waiting.popleft())
        if not self._waiting and self._answering is None:
            if self._last_words is not None:
                self._refuse(self._last_words)
            else:
                self._resume_reading()

    # Answers.

    def _respond(self, request: Request, response: Response) -> None:
        if self._closing:
            return
        date = self._server.date
        if request.plain and not self._server.stopping and not self._ended and self._answering is None:
            self.transport.write(response.to_bytes(date))
            self._deadline = self._server.now + (self._limits.idle_s if self._writable else self._limits.write_s)
            return
        if not self._stays(request):
            head = response.head(False, date)
            self.transport.write(head if request.method == "HEAD" else head + response.body)
            self._close()
            return
        if request.method == "HEAD" or request.version == "1.0":
            head = response.head(True, date)
            if request.version == "1.0":
                head = head[:-2] + b"Connection: keep-alive\r\n\r\n"
            self.transport.write(head if request.method == "HEAD" else head + response.body)
        else:
            self.transport.write(response.to_bytes(date))
        self._expect_next()

    def write(self, data: bytes) -> None:
        """Write a piece of a streamed answer; await `drained` before the next large one."""
        if not self._closing:
            self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionResetError: the client has gone.
        """
        while not self._writable:
            self._drain = self._drain or asyncio.Event()
            await self._drain.wait()
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

    def _give_up(self) -> None:
        if not self._closing:
            self.transport.abort()

    def _close(self) -> None:
        """Say goodbye, then read on for a moment: a reset must not overtake the answer."""
        if not self._closing:
            self._closing = True
            self._expect_next()
            try:
                if self.transport.can_write_eof():
                    self.transport.write_eof()
            except OSError:
                self.transport.abort()  # the client has gone already
            else:
                self._resume_reading()

    # Time and flow.

    def shut_when_idle(self) -> None:
        """For the server's shutdown: close now if nothing is in flight, else after the answer."""
        if self._answering is None and not self._waiting and self._parser.stage is not Stage.BODY:
            self._closing = True
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Close if this connection's time is over."""
        if self._deadline and now > self._deadline:
            unsent = self.transport.get_write_buffer_size()
            if unsent and unsent != self._unsent:
                self._unsent = unsent  # the client takes it, slowly
                self._deadline = now + self._limits.write_s
            elif self._parser.stage is Stage.BODY and not self._closing:
                self._refuse(InvalidInput("the request did not arrive in time", code="request_timeout"))
            else:
                self.transport.abort()

    def _expect_next(self) -> None:
        """Set the time within which the client has to do its part: close, take the answer, or send the next request."""
        if self._closing:
            self._expect_within(self._limits.linger_s)
        elif not self._writable:
            self._expect_within(self._limits.write_s)
        elif self._answering is not None:
            self._deadline = 0.0
        else:
            self._expect_within(self._limits.idle_s)

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._server.now + seconds

    def _let_write(self) -> None:
        self._writable = True
        if self._drain is not None:
            self._drain.set()
            self._drain = None

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._closing:
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and self._writable and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()


def _explain(request: Request, exc: BaseException) -> Response:
    """Return the answer to an error; one that nobody expected is logged and not told."""
    if isinstance(exc, PillionError):
        return error_response(exc)
    _log.fault("request_failed", f"{request.method} {request.path} failed: {type(exc).__name__}: {exc}", exc)
    return error_response(PillionError("a fault of this program; its log has the details"))
