"""Syslog over TCP (RFC 6587): one connection's frames become entries, and it is read no further while they wait for the store.

The protocol knows no acknowledgement: what a sender wrote and we had not read when we stop is lost, and only the sender could tell.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol

from pillion_common.syslog import MAX_FRAME_BYTES, Frame, FrameReader
from pillion_log.entries import Run
from pillion_log.intake import Intake
from pillion_log.syslog.outbox import Outbox
from pillion_log.syslog.reading import Reading

MAX_WAITING_BYTES = 256 * 1024  # of a connection
SLICE_BYTES = 8 * 1024  # taken apart at once
IDLE_S = 600.0


class Home(Protocol):
    """What a connection needs of the service it belongs to."""

    intake: Intake
    reading: Reading

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in; False, with a word in the log, if it may not be, or if there are too many."""

    def forget(self, connection: Connection) -> None:
        """Let a connection go that is closed and whose entries are kept."""


class Connection(asyncio.Protocol):
    """One sender's connection.

    Args:
        home: the service it belongs to.
        idle_s: how long it may say nothing before it is closed.
    """

    def __init__(self, home: Home, idle_s: float = IDLE_S) -> None:
        self._home = home
        self._idle_s = idle_s
        self._frames = FrameReader(MAX_FRAME_BYTES)
        self._outbox = Outbox(home.intake, MAX_WAITING_BYTES, self._work_on)
        self._unread: deque[bytes] = deque()  # what came and was not taken apart yet
        self._working = False
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._heard_s = 0.0
        self._paused = False
        self._lost = False
        self.peer = ""

    # From the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = transport  # type: ignore[assignment]
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self._heard_s = asyncio.get_running_loop().time()
        if not self._home.admit(self):
            transport.abort()  # type: ignore[attr-defined]
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._heard_s = asyncio.get_running_loop().time()
        self._unread.extend(data[start : start + SLICE_BYTES] for start in range(0, len(data), SLICE_BYTES))
        self._work_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._lost = True
        self._work_on()

    # From its service.

    def close(self) -> None:
        """Read no more; what was read is kept."""
        self._transport.close()

    def give_up(self) -> None:
        """Try no longer to have kept what waits."""
        self._outbox.close()

    def sweep(self, now_s: float) -> None:
        """Close if it has said nothing for too long.

        Args:
            now_s: the loop's time.
        """
        if not self._lost and not self._paused and now_s - self._heard_s > self._idle_s:
            self._transport.close()

    # Inside.

    def _work_on(self) -> None:
        """Take the next slice apart, unless what waits has to be kept first; others have their turn between two slices."""
        if self._working:
            return
        if self._unread and not self._outbox.full:
            self._put(self._frames.feed(self._unread.popleft()))
        if self._unread and not self._outbox.full:
            self._working = True
            asyncio.get_running_loop().call_soon(self._again)
        if self._lost:
            self._leave_when_done()
        elif (bool(self._unread) or self._outbox.full) is not self._paused and not self._transport.is_closing():
            self._paused = not self._paused
            (self._transport.pause_reading if self._paused else self._transport.resume_reading)()

    def _again(self) -> None:
        self._working = False
        self._work_on()

    def _put(self, frames: list[Frame]) -> None:
        runs: list[Run] = [self._home.reading.read(frame.data, self.peer, frame.missing) for frame in frames]
        if runs:
            self._working = True  # the store may tell at once
            self._outbox.put(runs)
            self._working = False

    def _leave_when_done(self) -> None:
        if not self._unread:
            self._put(self._frames.end())
        if not self._unread and self._outbox.empty:
            self._home.forget(self)
