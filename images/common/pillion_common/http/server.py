"""The server side of the core: listens, holds the connections, keeps their time, and shuts down without cutting what is in flight."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping

from pillion_common.clock import http_date
from pillion_common.config import Address
from pillion_common.http.connection import Connection
from pillion_common.http.heads import KnownHeads
from pillion_common.http.interfaces import AnswerStream, Handler, Limits, Route, StreamingHandler
from pillion_common.http.listener import Listener
from pillion_common.http.message import Request, Response
from pillion_common.names import is_address

CLOSING_TICK_S = 0.01
SWEEP_S = 0.5


class Server:
    """Listens, holds the connections, keeps their time.

    Args:
        handler: answers whatever no route takes; or `streaming` does.
        streaming: the same, writing its answers piece by piece.
        hot: routes by path: those handlers answer straight from bytes.
        route: the same for all paths.
        limits: bounds and times.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        streaming: StreamingHandler | None = None,
        hot: Mapping[bytes, Route] | None = None,
        route: Route | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._hot = hot or {}
        self._rest = route or (lambda request: handler)
        self.streaming = streaming or _nothing_here
        self.known = KnownHeads()
        self.limits = limits or Limits()
        self.stopping = False
        self.now = time.monotonic()
        self.date = http_date()
        self._connections: set[Connection] = set()
        self._listeners: list[Listener] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, address: Address) -> str:
        """Start listening.

        Args:
            address: port 0 lets the system choose.

        Returns:
            The URL listened on, with the real port.

        Raises:
            OSError: the address is taken or not ours.
        """
        first = len(self._listeners)
        try:
            for family, where in await _addresses(address):
                self._listeners.append(Listener(family, where, lambda: Connection(self)))
        except OSError as exc:
            raise OSError(exc.errno, f"cannot listen on {address}: {(exc.strerror or str(exc)).lower()}") from exc
        for listener in self._listeners[first:]:
            listener.start()
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep(), name="http-sweeper")
        return f"http://{Address(address.host, self._listeners[first].port)}"

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop listening, let what is in flight finish for at most grace_s, then cut."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.shut_when_idle()
        try:
            async with asyncio.timeout(grace_s):
                while self._connections:
                    await asyncio.sleep(CLOSING_TICK_S)
        except TimeoutError:
            pass
        for connection in list(self._connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def route(self, request: Request) -> Handler | None:
        """Find what answers a request, from its head."""
        hot = self._hot.get(request.raw_path)
        return (hot(request) if hot is not None else None) or self._rest(request)

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in; False if there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""
        self._connections.discard(connection)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now = time.monotonic()
            date = http_date()
            if date != self.date:
                self.date = date  # a new object only when it is another date: what was made into bytes stays good
            for connection in list(self._connections):
                connection.sweep(self.now)


async def _addresses(address: Address) -> list[tuple[int, tuple[object, ...]]]:
    """Return the family and the socket address of each address meant; a name is resolved in a thread, a literal needs none."""
    if is_address(address.host):
        return [(socket.AF_INET6 if ":" in address.host else socket.AF_INET, (address.host, address.port))]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


async def _nothing_here(request: Request, connection: AnswerStream) -> None:
    request.keep_alive = False
    connection.write(Response(404).head(False, connection.date))
