"""Watches the app: is it there and well? Owns the state that the heartbeat answers with.

A connection to the app's port stays open between two checks as a tripwire: when the app dies, its kernel closes it, and the next check is
made at once instead of at the next tick.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from pillion_common.errors import PeerError
from pillion_common.http.client import Channel
from pillion_common.names import Url
from pillion_sidecar.settings import Check

OnChange = Callable[[bool, str], None]

# A tripwire that is cut again and again (an app that closes idle connections) must not turn the check into a busy loop.
MIN_PAUSE_S = 0.05
COMING_UP_S = 0.25


class _Tripwire(asyncio.Protocol):
    def __init__(self, on_cut: Callable[[], None]) -> None:
        self._on_cut: Callable[[], None] | None = on_cut
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


class AppCheck:
    """Checks one app for ever.

    Args:
        check: what to do.
        host, port: where the app listens.
        interval_s, timeout_s: between checks, and for one.
        on_change: told (well, reason) at each change.
    """

    def __init__(self, check: Check, host: str, port: int, *, interval_s: float, timeout_s: float, on_change: OnChange) -> None:
        self._check = check
        self._host = host
        self._port = port
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._hint = asyncio.Event()
        self._wire: _Tripwire | None = None
        self._channel = Channel(Url("http", host, port, check.path), on_closed=self._hint.set)
        self.well = check.kind == "none"
        self.reason = "" if self.well else "it was not checked yet"

    async def run(self) -> None:
        """Check at each interval, and at once when the tripwire is cut."""
        if self._check.kind == "none":
            await asyncio.Event().wait()
        while True:
            self._hint.clear()
            self._note(await self._look())
            await asyncio.sleep(MIN_PAUSE_S)
            try:
                # An app that is coming up should not have to wait for its turn.
                async with asyncio.timeout(self._interval_s if self.well else min(self._interval_s, COMING_UP_S)):
                    await self._hint.wait()
            except TimeoutError:
                pass

    def close(self) -> None:
        """Let go of the app's port."""
        self._channel.close()
        self._drop_wire()

    def _note(self, fault: str) -> None:
        changed = self.well is bool(fault)
        self.well, self.reason = not fault, fault
        if changed:
            self._on_change(self.well, fault)

    async def _look(self) -> str:
        """Return what is wrong with the app; empty when it is well."""
        if self._check.kind == "http":
            return await self._look_http()
        return await self._look_tcp()

    async def _look_http(self) -> str:
        try:
            answer = await self._channel.request("GET", self._check.path, timeout_s=self._timeout_s)
        except PeerError as exc:
            return exc.message
        return "" if 200 <= answer.status < 400 else f"{self._check.path} answered {answer.status}"

    async def _look_tcp(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, wire = await loop.create_connection(lambda: _Tripwire(self._hint.set), self._host, self._port)
        except TimeoutError:
            return f"port {self._port} took no connection within {self._timeout_s:g} s"
        except OSError as exc:
            return f"port {self._port} took no connection: {os.strerror(exc.errno) if exc.errno else exc}"
        self._drop_wire()
        self._wire = wire
        return ""

    def _drop_wire(self) -> None:
        if self._wire is not None:
            self._wire.disarm()
            self._wire = None
