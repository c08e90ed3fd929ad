"""Load from one process: connections that send the next request as soon as the last is answered, and what a server used meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What a process has used so far: CPU seconds, and resident bytes now."""

    cpu_s: float
    resident: int


class Result(NamedTuple):
    """What a load brought: requests a second, latencies in seconds (sorted), answers that were not 200."""

    per_second: float
    latencies: list[float]
    failures: int

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def usage(pid: int) -> Usage:
    """Read a process's CPU time and resident memory from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


def request(method: str, url: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """Return a whole HTTP/1.1 request."""
    parts = urlsplit(url)
    head = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
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
        self._transport = transport
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
        (await loop.create_connection(lambda: _Client(requests, started + seconds), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 30)
    elapsed = time.perf_counter() - started
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Result(len(latencies) / elapsed, latencies, sum(client.failures for client in clients))
