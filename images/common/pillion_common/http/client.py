"""The client side of the core: one persistent connection to one origin.

A Channel sends one request at a time, bounds the answer, follows no redirect, and says at once when the peer closes the connection.
Errors are PeerError's subclasses, so that a caller can tell evidence of death (PeerRefused) from silence (PeerTimedOut).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import NamedTuple

import httptools

from pillion_common.errors import OwnLimit, PeerBroken, PeerClosed, PeerError, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_common.names import Url, address_of

MAX_ANSWER_BYTES = 10 * 1024
MAX_HEAD_BYTES = 64 * 1024

AddressRule = Callable[[str], bool]


class Answer(NamedTuple):
    """What the peer answered; `body` is cut at the channel's bound."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Wire(asyncio.Protocol):
    """One TCP connection; at most one request is under way."""

    def __init__(self, max_answer: int, on_lost: Callable[[_Wire, bool], None]) -> None:
        self._max_answer = max_answer
        self._on_lost = on_lost
        self._pending: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.open = True

    def send(self, data: bytes) -> asyncio.Future[Answer]:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._head_bytes = 0
        self._head_done = False
        self._pending = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._pending

    def abort(self) -> None:
        self.open = False
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._pending is None:
            self.abort()  # an answer nobody asked for: this connection cannot be trusted any more
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self._head_done and self._head_bytes > MAX_HEAD_BYTES:
                self._fail(PeerBroken(f"the answer's head is over {MAX_HEAD_BYTES} bytes"))
                self.abort()
        except httptools.HttpParserError as exc:
            self._fail(PeerBroken(f"the answer is not valid HTTP: {exc}"))
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        # An answer that said "close", or an end of our own making, is no sign of death.
        surprising = self.open and self._pending is None
        self.open = False
        if self._pending is not None and self._head_done and not {b"content-length", b"transfer-encoding"} & dict(self._headers).keys():
            self._complete()  # a body that ends with its connection
        self._fail(PeerClosed("the connection was closed before the answer was whole"))
        self._on_lost(self, surprising)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        if len(self._headers) > 100:
            self._fail(PeerBroken("the answer has over 100 headers"))
            self.abort()

    def on_headers_complete(self) -> None:
        self._head_done = self._parser.get_status_code() >= 200

    def on_body(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > self._max_answer:
            # Reading on would let one peer fill our memory; the status is known, so the answer counts.
            del self._body[self._max_answer :]
            self._complete()
            self.abort()

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._headers = []
            return
        if not self._parser.should_keep_alive():
            self.open = False
        self._complete()
        if not self.open:
            self.transport.close()

    def _complete(self) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_result(Answer(self._parser.get_status_code(), self._headers, bytes(self._body)))
        self._pending = None

    def _fail(self, error: PeerError) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(error)
        self._pending = None


class Channel:
    """A persistent connection to one origin, opened when first used and again when lost.

    Args:
        url: any URL of the origin.
        allow: says of an IP address whether it may be called; checked after name resolution. None allows all.
        on_closed: called when the peer closes a connection on which nothing is under way.
        max_answer: bytes of an answer's body that are read.
    """

    def __init__(
        self, url: Url, *, allow: AddressRule | None = None, on_closed: Callable[[], None] | None = None, max_answer: int = MAX_ANSWER_BYTES
    ) -> None:
        self._url = url
        self._allow = allow
        self._on_closed = on_closed
        self._max_answer = max_answer
        self._wire: _Wire | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def request(self, method: str, target: str, *, body: bytes = b"", headers: tuple[str, ...] = (), timeout_s: float) -> Answer:
        """Send one request and return its answer.

        Args:
            method, target: as in the request line.
            body: sent with its Content-Length.
            headers: more header lines, without line ends.
            timeout_s: bound on all of it: waiting for the connection's turn, resolving, connecting, sending, and the answer.

        Raises:
            PeerRefused, PeerTimedOut, PeerClosed, PeerUnreachable, PeerBroken, OwnLimit.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._url.authority}", *headers]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                return await self._exchange(data, retry=method in ("GET", "HEAD"))
        except TimeoutError as exc:
            raise PeerTimedOut(f"{self._url.authority} did not answer within {timeout_s:g} s") from exc

    def close(self) -> None:
        """Close the connection for good; a request under way fails with PeerClosed."""
        self._closed = True
        if self._wire is not None:
            self._wire.abort()

    async def _exchange(self, data: bytes, retry: bool) -> Answer:
        reused = self._wire is not None and self._wire.open
        try:
            return await _converse(self._wire if reused and self._wire else await self._connect(), data)
        except PeerClosed:
            if not (reused and retry):
                raise
        # The peer let an idle connection go just as it was used.
        return await _converse(await self._connect(), data)

    async def _connect(self) -> _Wire:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
        if self._closed:
            raise PeerClosed(f"the connection to {self._url.authority} was given up here")
        addresses = await self._resolve()
        error: PeerError = PeerUnreachable(f"{self._url.host} has no address")
        for address in addresses:
            try:
                wire = await self._open(address)
                if self._closed:
                    wire.abort()
                    raise PeerClosed(f"the connection to {self._url.authority} was given up here")
                self._wire = wire
                return wire
            except OSError as exc:
                error = _translate(exc, self._url)
        raise error

    async def _open(self, address: str) -> _Wire:
        context = None
        if self._url.scheme == "https":
            import ssl  # costs 7 MB; only those who call https pay

            context = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        name = self._url.host if context else None
        _, wire = await loop.create_connection(
            lambda: _Wire(self._max_answer, self._lost), address, self._url.port, ssl=context, server_hostname=name
        )
        raw = wire.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return wire

    async def _resolve(self) -> list[str]:
        host = self._url.host
        if address_of(host) is not None:
            found = [host]
        else:
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, self._url.port, type=socket.SOCK_STREAM)
            except OSError as exc:
                raise PeerUnreachable(f"{host} does not resolve: {exc}") from exc
            found = [str(info[4][0]) for info in infos]
        allowed = [address for address in found if self._allow is None or self._allow(address)]
        if found and not allowed:
            raise PeerUnreachable(f"{host} ({', '.join(found)}) is not an address this program may call; see PILLION_TARGETS")
        return allowed

    def _lost(self, wire: _Wire, surprising: bool) -> None:
        if wire is self._wire:
            self._wire = None
            if surprising and self._on_closed is not None and not self._closed:
                self._on_closed()


async def _converse(wire: _Wire, data: bytes) -> Answer:
    try:
        return await wire.send(data)
    except asyncio.CancelledError:
        wire.abort()  # its answer may still come: nobody may mistake it for the next one's
        raise


def _translate(exc: OSError, url: Url) -> PeerError:
    if isinstance(exc, ConnectionRefusedError):
        return PeerRefused(f"{url.authority} refused the connection")
    if isinstance(exc, ConnectionError):
        return PeerClosed(f"{url.authority} closed the connection: {exc}")
    if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL):
        return OwnLimit(f"no connection to {url.authority} could be opened here: {exc.strerror}; raise the limit of open files")
    if exc.errno == errno.ETIMEDOUT:
        return PeerTimedOut(f"{url.authority} did not take the connection in time")
    return PeerUnreachable(f"{url.authority} cannot be reached: {exc}")
