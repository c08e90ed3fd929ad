"""Many connections to one server, on each of which news is awaited: the dependents of those peers that are asked instead of telling."""

from __future__ import annotations

import asyncio
import time
from typing import cast
from urllib.parse import urlsplit

TIMEOUT_S = 60.0
CONNECTING = 64


class Taps:
    """Open connections, and which of them have read a marker.

    `await taps.open(url, 1000)`, `taps.send(request)`, `news = taps.expect(b"marker")`, `await news`: the time the last one read it.
    """

    def __init__(self) -> None:
        self._taps: list[_Tap] = []
        self._marker = b""
        self._waiting: set[_Tap] = set()
        self._met: asyncio.Future[float] | None = None

    async def open(self, url: str, count: int) -> None:
        """Connect `count` times to a URL's host and port."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        while len(self._taps) < count:
            more = min(CONNECTING, count - len(self._taps))
            host, port = parts.hostname or "", parts.port or 0
            pairs = await asyncio.gather(*(loop.create_connection(lambda: _Tap(self), host, port) for _ in range(more)))
            self._taps += [tap for _, tap in pairs]

    def send(self, request: bytes) -> None:
        """Send the same on all."""
        for tap in self._taps:
            tap.transport.write(request)

    def expect(self, marker: bytes) -> asyncio.Future[float]:
        """Return what is done, with the perf_counter of that moment, when all have read the marker."""
        self._marker = marker
        self._waiting = set(self._taps)
        for tap in self._taps:
            tap.tail = b""
        self._met = asyncio.get_running_loop().create_future()
        return self._met

    async def wait(self, news: asyncio.Future[float], timeout_s: float = TIMEOUT_S) -> float:
        """Return when the last one had read it.

        Raises:
            RuntimeError: some did not.
        """
        try:
            return await asyncio.wait_for(news, timeout_s)
        except TimeoutError:
            raise RuntimeError(f"{len(self._waiting)} of {len(self._taps)} did not read {self._marker!r}") from None

    def close(self) -> None:
        for tap in self._taps:
            tap.transport.abort()

    def read(self, tap: _Tap, data: bytes) -> None:
        if tap not in self._waiting:
            return
        tap.tail += data
        if self._marker in tap.tail:
            self._waiting.discard(tap)
            if not self._waiting and self._met is not None and not self._met.done():
                self._met.set_result(time.perf_counter())


class _Tap(asyncio.Protocol):
    def __init__(self, taps: Taps) -> None:
        self._taps = taps
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._taps.read(self, data)
