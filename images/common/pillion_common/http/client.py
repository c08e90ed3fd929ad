"""The client side of the core: one persistent connection to one origin.

A Channel sends one request at a time, bounds the answer, follows no redirect, and says at once when the peer closes the connection.
Errors are PeerError's subclasses, so that a caller can tell evidence of death (PeerRefused) from silence (PeerTimedOut). A call costs no
task, no timer and no lock; an idle channel is a few slots and its transport.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pillion_common.errors import OwnLimit, PeerBroken, PeerClosed, PeerError, PeerTimedOut
from pillion_common.http.answers import MEMO_ANSWER_BYTES, Answer, AnswerReader, memo
from pillion_common.http.deadlines import Deadlines
from pillion_common.http.resolver import AddressRule, Dial, Dialer
from pillion_common.logs import EventLog
from pillion_common.names import Url

MAX_ANSWER_BYTES = 10 * 1024
MAX_QUEUED = 16

_log = EventLog("client")


OnDone = Callable[[Answer | PeerError], None]


def encode_request(url: Url, method: str, target: str, body: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    """Return the bytes of a whole request, to be sent as often as needed.

    Args:
        url: any URL of the origin, for the Host header.
        method, target: as in the request line.
        body: sent with its Content-Length.
        headers: more header lines, without line ends.
    """
    head = encode_head(url, method, target, headers)
    return head + encode_body(body) if body or method in ("POST", "PUT") else head + b"\r\n"


def encode_head(url: Url, method: str, target: str, headers: tuple[str, ...] = ()) -> bytes:
    """Return the head of a request without its end, for bodies that change; `encode_body` is the rest."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {url.authority}", *headers, ""]
    return "\r\n".join(lines).encode("latin-1")


def encode_body(body: bytes) -> bytes:
    """Return a body with what goes before it: the same for all who are sent it."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class _Wire(asyncio.Protocol):
    """One TCP connection. It belongs to its channel until either gives up the other; at most one request is under way."""

    __slots__ = ("_channel", "_max_answer", "_reader", "_transport", "answering", "busy")

    def __init__(self, channel: Channel, max_answer: int) -> None:
        self._channel: Channel | None = channel
        self._max_answer = max_answer
        self._reader: AnswerReader | None = None
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.answering = False  # some of the answer has come

    @property
    def open(self) -> bool:
        return self._channel is not None

    def send(self, data: bytes) -> None:
        self.busy = True
        self._transport.write(data)  # type: ignore[union-attr]

    def abort(self) -> None:
        self._channel = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if self._channel is None:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._channel is None:
            return
        if not self.answering and self.busy and len(data) <= MEMO_ANSWER_BYTES and len(data) <= self._max_answer:
            answer = memo.get(data)
            if answer is not None:
                self.busy = False
                self._channel.answered(answer)
                return
        self._read(self._channel, data)

    def eof_received(self) -> None:
        if self._channel is not None and not self.busy:
            self._leave().lost(self)  # now, and not when the transport has closed: a request sent in between would be lost

    def connection_lost(self, exc: Exception | None) -> None:
        if self._channel is None:
            return
        answer = self._reader.end() if self._reader is not None and self.answering else None
        channel = self._leave()
        if answer is not None:
            channel.answered(answer, keep=False)
        else:
            channel.lost(self)

    def _leave(self) -> Channel:
        channel, self._channel = self._channel, None
        assert channel is not None
        return channel

    def _read(self, channel: Channel, data: bytes) -> None:
        if not self.busy:
            self.abort()  # an answer nobody asked for: this connection cannot be trusted any more
            channel.lost(self, surprising=False)
            return
        reader = self._reader = self._reader or AnswerReader(self._max_answer)
        self.answering = True
        try:
            answer = reader.feed(data)
        except PeerBroken as error:
            self.abort()
            channel.answered(error, keep=False)
            return
        if answer is not None:
            self.busy = self.answering = False
            if not reader.keep:
                self.abort()
            channel.answered(answer, reader.keep)


class _Call:
    """One request on its way; `on_done` is called once."""

    __slots__ = ("_channel", "_on_done", "data", "deadline", "done", "retry", "timeout_s")

    def __init__(self, channel: Channel, data: bytes, on_done: OnDone, timeout_s: float, retry: bool) -> None:
        self._channel: Channel | None = channel
        self._on_done: OnDone | None = on_done
        self.data = data
        self.timeout_s = timeout_s
        self.retry = retry
        self.deadline = 0.0
        self.done = False

    def finish(self, outcome: Answer | PeerError) -> None:
        on_done = self._on_done
        self.done = True
        self._on_done = self._channel = None  # a finished call may stay among the deadlines for a while
        self.data = b""
        if on_done is not None:
            try:
                on_done(outcome)
            except Exception as exc:
                # Whoever asked is at fault; the connection, and the calls of others, are not.
                _log.fault("callback_failed", f"what follows an answer failed with {type(exc).__name__}: {exc}", exc)

    def expire(self) -> None:
        if self._channel is not None:
            self._channel.expired(self)


class _Home(NamedTuple):
    """What all channels of one loop share."""

    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines
    dialer: Dialer


_homes: dict[asyncio.AbstractEventLoop, _Home] = {}


def _find_home() -> _Home:
    loop = asyncio.get_running_loop()
    home = _homes.get(loop)
    if home is None:
        for ended in [other for other in _homes if other.is_closed()]:
            del _homes[ended]
        home = _homes[loop] = _Home(loop, Deadlines(loop.call_later, time.monotonic), Dialer())
    return home


class Channel:
    """A persistent connection to one origin, opened when first used and again when lost.

    Args:
        url: any URL of the origin.
        allow: says of an IP address whether it may be called; checked after name resolution. None allows all.
        on_closed: called when the peer closes a connection on which nothing is under way.
        max_answer: bytes of an answer's body that are read.
        dialer: opens the connections; None is the one that all channels of the loop share.
    """

    __slots__ = (
        "_allow",
        "_call",
        "_closed",
        "_dial",
        "_dialer",
        "_home",
        "_max_answer",
        "_on_closed",
        "_queue",
        "_silent",
        "_url",
        "_wire",
    )

    def __init__(
        self,
        url: Url,
        *,
        allow: AddressRule | None = None,
        on_closed: Callable[[], None] | None = None,
        max_answer: int = MAX_ANSWER_BYTES,
        dialer: Dialer | None = None,
    ) -> None:
        self._url = url
        self._allow = allow
        self._on_closed = on_closed
        self._max_answer = max_answer
        self._dialer = dialer
        self._home: _Home | None = None
        self._wire: _Wire | None = None  # only while it is open
        self._dial: Dial[_Wire] | None = None
        self._call: _Call | None = None  # the one whose turn it is
        self._queue: tuple[_Call, ...] = ()
        self._silent = False  # the last try to connect got no answer
        self._closed = False

    @property
    def connected(self) -> bool:
        """Return whether a connection is open."""
        return self._wire is not None

    def send(self, data: bytes, on_done: OnDone, timeout_s: float, *, retry: bool = False) -> None:
        """Send a prepared request, at once if the connection is open and idle, else in its turn; at most MAX_QUEUED wait.

        Args:
            data: from encode_request.
            on_done: called exactly once, from the loop, never before this returns, with the answer or the error; see request().
            timeout_s: bound on all of it: waiting for the connection's turn, resolving, connecting, sending, and the answer. If more than
                half of it went by in queues of our own dialer or resolver, its end is an OwnLimit and not the peer's silence.
            retry: whether it may be sent again, on a new connection, when a connection used before is closed before any of the answer came.
        """
        self._submit(_Call(self, data, on_done, timeout_s, retry))

    async def request(self, method: str, target: str, *, body: bytes = b"", headers: tuple[str, ...] = (), timeout_s: float) -> Answer:
        """Send one request and return its answer. See encode_request and send for the arguments.

        Raises:
            PeerRefused, PeerTimedOut, PeerClosed, PeerUnreachable, PeerBroken, OwnLimit.
        """
        future: asyncio.Future[Answer | PeerError] = asyncio.get_running_loop().create_future()
        on_done = partial(_settle, future)
        call = _Call(self, encode_request(self._url, method, target, body, headers), on_done, timeout_s, method in ("GET", "HEAD"))
        self._submit(call)
        try:
            outcome = await future
        except asyncio.CancelledError:
            if not call.done:
                self._drop(call)
                call.finish(PeerClosed("the call was given up here"))
            raise
        if isinstance(outcome, PeerError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Close the connection for good; requests under way end with PeerClosed."""
        self._closed = True
        calls = (self._call, *self._queue) if self._call is not None else ()
        self._call, self._queue = None, ()
        self._hang_up()
        for call in calls:
            self._finish_soon(call, self._given_up())

    # From its wire, its dial and its calls.

    def answered(self, outcome: Answer | PeerError, keep: bool = True) -> None:
        """Take the answer to the call whose turn it is; keep says whether the wire can be used on."""
        call = self._call
        if not keep:
            self._wire = None
        self._next()
        if call is not None:
            call.finish(outcome)

    def lost(self, wire: _Wire, surprising: bool = True) -> None:
        """Take the end of the wire, without an answer to what was sent on it."""
        if wire is not self._wire:
            return  # its dial is under way still, or was cancelled just as it succeeded
        self._wire = None
        call = self._call
        if call is None:
            if surprising and self._on_closed is not None:
                self._on_closed()
        elif call.retry and not wire.answering:
            self._start(call)  # the peer let an idle connection go just as it was used
        else:
            self.answered(PeerClosed("the connection was closed before the answer was whole"))

    def expired(self, call: _Call) -> None:
        """Take the end of a call's time."""
        waited_s = self._dial.waited_s() if self._dial is not None and call is self._call else 0.0
        name = self._url.authority
        error: PeerError = PeerTimedOut(f"{name} did not answer within {call.timeout_s:g} s")
        if waited_s > call.timeout_s / 2:
            error = OwnLimit(f"too many connections are being opened here; {name} had to wait {waited_s:.1f} s of {call.timeout_s:g} s")
        elif self._dial is not None:
            self._silent = True
        self._drop(call)
        call.finish(error)

    def _dialled(self, outcome: _Wire | PeerError) -> None:
        self._dial = None
        self._silent = isinstance(outcome, PeerTimedOut)
        if isinstance(outcome, PeerError):
            self.answered(outcome, keep=False)
        elif not outcome.open:
            self.answered(PeerClosed(f"{self._url.authority} closed the connection at once"), keep=False)
        else:
            self._wire = outcome
            if self._call is not None:
                self._call.retry = False  # what fails on a new connection is not tried again
                outcome.send(self._call.data)

    # The turns.

    def _submit(self, call: _Call) -> None:
        home = self._home
        if home is None:
            home = self._home = _find_home()
        if self._closed:
            self._finish_soon(call, self._given_up())
        elif len(self._queue) >= MAX_QUEUED:
            self._finish_soon(call, OwnLimit(f"{MAX_QUEUED} requests to {self._url.authority} are waiting already"))
        else:
            home.deadlines.add(call, call.timeout_s)
            if self._call is None:
                self._call = call
                self._start(call)
            else:
                self._queue += (call,)

    def _start(self, call: _Call) -> None:
        if self._wire is not None:
            self._wire.send(call.data)
            return
        assert self._home is not None
        dialer = self._dialer or self._home.dialer
        self._dial = dialer.dial(self._url, self._allow, partial(_Wire, self, self._max_answer), self._dialled, suspect=self._silent)

    def _next(self) -> None:
        self._call = self._pop()
        if self._call is not None:
            self._start(self._call)

    def _pop(self) -> _Call | None:
        if not self._queue:
            return None
        call, self._queue = self._queue[0], self._queue[1:]
        return call

    def _drop(self, call: _Call) -> None:
        """Give a call up; if it is under way its answer may still come, and nobody may mistake it for the next one's."""
        if call is self._call and self._dial is not None and self._queue:
            self._call = self._pop()  # nothing was sent yet: the connection that is being opened will do for the next one
        elif call is self._call:
            self._hang_up()
            self._next()
        else:
            self._queue = tuple(other for other in self._queue if other is not call)

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        dial, self._dial = self._dial, None
        if wire is not None:
            wire.abort()
        if dial is not None:
            dial.cancel()

    def _finish_soon(self, call: _Call, error: PeerError) -> None:
        assert self._home is not None
        call.done = True
        self._home.loop.call_soon(call.finish, error)

    def _given_up(self) -> PeerClosed:
        return PeerClosed(f"the connection to {self._url.authority} was given up here")


def _settle(future: asyncio.Future[Answer | PeerError], outcome: Answer | PeerError) -> None:
    if not future.done():
        future.set_result(outcome)
