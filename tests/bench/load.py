"""Load from one process: connections that send the next request as soon as the last is answered; and single calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

CALL_TIMEOUT_S = 60.0


class Result(NamedTuple):
    """What a load brought: requests a second, latencies in seconds (sorted), answers that were not 200."""

    per_second: float
    latencies: list[float]
    failures: int

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def request(method: str, url: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """Return a whole HTTP/1.1 request."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    if body:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class _Client(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self._requests = requests
        self._until = until
        self._parser = httptools.HttpResponseParser(self)
        self.latencies: list[float] = []
        self.failures = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failures += self._parser.get_status_code() != 200
        if now < self._until:
            self._parser = httptools.HttpResponseParser(self)
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))


async def drive(url: str, requests: Iterator[bytes], connections: int, seconds: float) -> Result:
    """Send requests over persistent connections for some seconds."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: _Client(requests, started + seconds), parts.hostname or "", parts.port or 0))[1]
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 30)
    elapsed = time.perf_counter() - started
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Result(len(latencies) / elapsed, latencies, sum(client.failures for client in clients))


class Caller(asyncio.Protocol):
    """One persistent connection for single calls: `status, body = await caller.call("GET", url)`."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.headers: dict[bytes, bytes] = {}

    @classmethod
    async def connect(cls, url: str) -> Caller:
        """Connect to a URL's host and port."""
        parts = urlsplit(url)
        return (await asyncio.get_running_loop().create_connection(cls, parts.hostname or "", parts.port or 0))[1]

    async def call(self, method: str, url: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        """Make a request, send it, and return status and body; `headers` are those of the last answer."""
        return await self.send(request(method, url, body, kind))

    async def send(self, whole: bytes) -> tuple[int, bytes]:
        """Send one whole request and return status and body."""
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self.headers = {}
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(whole)
        return await asyncio.wait_for(self._answer, CALL_TIMEOUT_S)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), bytes(self._body)))


async def call(method: str, url: str, body: bytes = b"") -> bytes:
    """Make one call on a connection of its own and return the answer's body.

    Raises:
        RuntimeError: it was not 200.
    """
    caller = await Caller.connect(url)
    try:
        status, answer = await caller.call(method, url, body)
    finally:
        caller.close()
    if status != 200:
        raise RuntimeError(f"{method} {url} was answered {status}: {answer[:300]!r}")
    return answer
