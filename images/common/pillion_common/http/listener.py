"""One listening socket: takes new connections in, and rests for a moment when descriptors have run out.

asyncio's own listener logs a thousand errors a second then, and libuv's hangs up on whoever comes, without a word in any log.
Here those who come wait in the kernel's queue until there is room again; who is connected already is served on. The last few descriptors
are left alone: files, checks and connections to others need some, too.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Callable

from pillion_common.logs import EventLog

BACKLOG = 1024
AT_ONCE = 128  # connections taken in before others have their turn
REST_S = 0.25
RESERVE = 32  # or a quarter, where there are few

_log = EventLog("http")


class Listener:
    """Listens from its making on, accepts from `start` on.

    Args:
        make: makes the protocol of a new connection.

    Raises:
        OSError: the address is taken or not ours.
    """

    def __init__(self, family: int, address: tuple[object, ...], make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._taking_in: set[asyncio.Task[object]] = set()
        self._rest: asyncio.TimerHandle | None = None
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # The system gives the lowest free number, so a high one says how many are in use.
        self._last = sys.maxsize if most == resource.RLIM_INFINITY else most - min(RESERVE, most // 4)
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise

    @property
    def port(self) -> int:
        """Return the port, which the system may have chosen."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Accept from now on."""
        self._rest = None
        try:
            probe = os.dup(self._socket.fileno())
        except OSError as exc:
            self._pause(exc.strerror)
            return
        os.close(probe)
        if probe >= self._last:
            self._pause("hardly any descriptors are left")
        else:
            self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop listening; what was accepted goes on. A second time does nothing."""
        if self._socket.fileno() < 0:
            return
        if self._rest is not None:
            self._rest.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                new, _peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._pause(exc.strerror)
                return
            new.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(self._take_in(new), name="http-accept")
            self._taking_in.add(task)
            task.add_done_callback(self._taking_in.discard)
            if new.fileno() >= self._last:
                self._pause("hardly any descriptors are left")
                return

    def _pause(self, why: str | None) -> None:
        _log.warn_seldom("accept_failed", f"cannot take new connections in: {why}; those there are go on")
        self._loop.remove_reader(self._socket)
        self._rest = self._loop.call_later(REST_S, self.start)

    async def _take_in(self, new: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, new)
        except OSError as exc:
            new.close()
            _log.warn_seldom("accept_failed", f"cannot take a new connection in: {exc.strerror}")
