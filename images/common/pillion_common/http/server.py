"""The server side of the core: listens, holds the connections, keeps their time, and shuts down without cutting what is in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate

from pillion_common.config import Address
from pillion_common.http.connection import Connection
from pillion_common.http.interfaces import Handler, HotHandler, Limits, StreamingHandler
from pillion_common.http.message import Request, Response

CLOSING_TICK_S = 0.01
SWEEP_S = 0.5


class Server:
    """Listens, holds the connections, keeps their time. Give it a handler, or a streaming one.

    Args:
        handler, streaming: one of them answers what no hot route does.
        hot: handlers by path that are asked first, and answer straight from bytes.
        limits: bounds and times.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        streaming: StreamingHandler | None = None,
        hot: Mapping[bytes, HotHandler] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.hot = hot or {}
        self.handler: Handler = handler or _nothing_here
        self.streaming = streaming
        self.limits = limits or Limits()
        self.stopping = False
        self.now = time.monotonic()
        self.date = formatdate(usegmt=True).encode()
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
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
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(self), address.host, address.port, backlog=1024)
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep(), name="http-sweeper")
        return f"http://{Address(address.host, listener.sockets[0].getsockname()[1])}"

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
            self.date = formatdate(usegmt=True).encode()
            for connection in list(self._connections):
                connection.sweep(self.now)


def _nothing_here(request: Request) -> Response:
    return Response(404)
