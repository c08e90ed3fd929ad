"""How to look at an app: by a TCP connection or an HTTP request. `exec_look.py` has a third way, for those who ask for it.

A look says what it found; what that means is AppCheck's to decide.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pillion_common.errors import OwnLimit, PeerError, PeerRefused
from pillion_common.http.client import Channel
from pillion_common.names import Url

PASS, WARN, CRITICAL = "pass", "warn", "critical"
OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

OnHint = Callable[[], None]


class Finding(NamedTuple):
    """What a look found: `pass`, `warn` (it serves, but something is amiss) or `critical`, and why.

    `final` says that there is no doubt: nobody listens there.
    """

    state: str
    reason: str = ""
    final: bool = False


class Look(Protocol):
    """One way to look at an app."""

    async def look(self) -> Finding:
        """Look once.

        Raises:
            OwnLimit: we could not even ask; that says nothing about the app.
        """

    def let_go(self) -> None:
        """Hold no connection from now on: an app that is told to end may wait until all of them are closed."""

    def close(self) -> None:
        """Give up what is held."""


class _Tripwire(asyncio.Protocol):
    def __init__(self, on_cut: OnHint) -> None:
        self._on_cut: OnHint | None = on_cut
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._on_cut is not None:
            self._on_cut()

    def disarm(self) -> None:
        self._on_cut = None
        if self._transport is not None:
            self._transport.abort()


class TcpLook:
    """Connects to the app's port, and holds the connection until the next look.

    Args:
        timeout_s: for one look.
        on_hint: called when the app closes the connection: it may have died.
    """

    def __init__(self, host: str, port: int, timeout_s: float, on_hint: OnHint) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._on_hint = on_hint
        self._wire: _Tripwire | None = None
        self._holding = True

    async def look(self) -> Finding:
        """See Look."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, wire = await loop.create_connection(lambda: _Tripwire(self._on_hint), self._host, self._port)
        except TimeoutError:
            return Finding(CRITICAL, f"port {self._port} took no connection within {self._timeout_s:g} s")
        except OSError as exc:
            if exc.errno in OWN_LIMITS:
                raise OwnLimit(f"the app's port cannot be dialled: {os.strerror(exc.errno or 0)}") from exc
            self.close()  # it takes no more, but may wait for the end of those it has
            why = os.strerror(exc.errno) if exc.errno else str(exc)
            return Finding(CRITICAL, f"port {self._port} took no connection: {why}", isinstance(exc, ConnectionRefusedError))
        self.close()
        self._wire = wire
        if not self._holding:
            self.close()
        return Finding(PASS)

    def let_go(self) -> None:
        """See Look."""
        self._holding = False
        self.close()

    def close(self) -> None:
        """See Look."""
        if self._wire is not None:
            self._wire.disarm()
            self._wire = None


class HttpLook:
    """Asks the app for a path, over a connection that stays open if the app lets it.

    Args:
        statuses: pairs of the lowest and the highest status that are well.
        timeout_s: for one look.
        on_hint: called when the app closes the idle connection.
    """

    def __init__(self, url: Url, statuses: tuple[tuple[int, int], ...], timeout_s: float, on_hint: OnHint) -> None:
        self._url = url
        self._statuses = statuses
        self._timeout_s = timeout_s
        self._channel = Channel(url, on_closed=on_hint)
        self._headers: tuple[str, ...] = ()

    async def look(self) -> Finding:
        """See Look."""
        channel = self._channel
        try:
            answer = await channel.request("GET", self._url.target, headers=self._headers, timeout_s=self._timeout_s)
        except OwnLimit:
            raise
        except PeerError as exc:
            if channel is not self._channel:
                return await self.look()  # let_go closed it under way: that says nothing about the app
            return Finding(CRITICAL, exc.message, isinstance(exc, PeerRefused))
        if any(low <= answer.status <= high for low, high in self._statuses):
            return Finding(PASS)
        return Finding(CRITICAL, f"{self._url.target} answered {answer.status}")

    def let_go(self) -> None:
        """See Look."""
        self._channel.close()
        self._channel = Channel(self._url)
        self._headers = ("Connection: close",)

    def close(self) -> None:
        """See Look."""
        self._channel.close()
