"""`GET /events`: server-sent events about what changes here, for apps that would rather be told than ask.

A stream begins with a `snapshot` of the whole table; then a `providers` event carries all providers of a service whenever they changed, and
a `registry` event tells whether the table is stale. Events say how things are, not what happened: a slow reader is sent the newest state of
what changed meanwhile, and costs no memory. Who connects again begins with a new snapshot.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable

from pillion_common.errors import Unavailable
from pillion_common.http.interfaces import AnswerStream
from pillion_common.http.message import Request, Response
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import shown

MAX_STREAMS = 64
TICK_S = 1.0
KEEP_ALIVE_S = 15.0
HEAD = {b"Content-Type": b"text/event-stream", b"Cache-Control": b"no-store"}


class _Stream:
    """What one reader has not been told yet."""

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.something = asyncio.Event()


class Events:
    """All streams (a StreamingHandler).

    Args:
        stale: whether the table may be old.
    """

    def __init__(self, table: ProviderTable, stale: Callable[[], bool]) -> None:
        self._table = table
        self._stale = stale
        self._streams: set[_Stream] = set()
        self._closed = False

    def changed(self, names: Iterable[str]) -> None:
        """Tell all streams that the providers of these services changed."""
        for stream in self._streams:
            stream.dirty.update(dict.fromkeys(names))
            stream.something.set()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for stream in self._streams:
            stream.something.set()

    def admit(self) -> None:
        """Let one more stream begin.

        Raises:
            Unavailable: there are too many.
        """
        if len(self._streams) >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} event streams are open here already; close one", code="too_many_streams", retry_after_s=5)

    async def __call__(self, request: Request, connection: AnswerStream) -> None:
        """Write events until the reader goes or the sidecar ends."""
        request.keep_alive = False  # the stream's end is the connection's
        connection.write(_head(connection.date))
        if request.method == "HEAD":
            return
        stream = _Stream()
        self._streams.add(stream)
        try:
            await self._feed(stream, connection)
        except ConnectionResetError:
            pass
        finally:
            self._streams.discard(stream)

    async def _feed(self, stream: _Stream, connection: AnswerStream) -> None:
        stale = self._stale()
        everything = {name: self._shown(name) for name in self._table.names()}
        connection.write(_event("snapshot", {"Providers": everything, "Stale": stale}))
        wrote_at = time.monotonic()
        while not self._closed:
            await connection.drained()
            try:
                async with asyncio.timeout(TICK_S):
                    await stream.something.wait()
            except TimeoutError:
                pass
            stream.something.clear()
            said = b""
            while stream.dirty:
                name = next(iter(stream.dirty))
                del stream.dirty[name]
                said += _event("providers", {"Name": name, "Providers": self._shown(name)})
            if stale != self._stale():
                stale = not stale
                said += _event("registry", {"Stale": stale})
            if not said and time.monotonic() - wrote_at > KEEP_ALIVE_S:
                said = b": still here\n\n"
            if said:
                wrote_at = time.monotonic()
                connection.write(said)

    def _shown(self, name: str) -> list[dict[str, object]]:
        return [shown(provider) for provider in self._table.all(name)]


def _head(date: bytes) -> bytes:
    lines = Response(200, headers=HEAD).head(False, date)
    return lines.replace(b"Content-Length: 0\r\n", b"")


def _event(name: str, data: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
