"""Notices that the network namespace this sidecar shares with its app was lost, because the app's container was restarted.

The engine then takes the interfaces away (only `lo` is left) and makes a new namespace for the app. The old one never comes back, so the
sidecar has to end, and its restart policy joins it to the new one; but only while the app runs, or the engine gives up for good. When that
is shows in files which the engine writes and both containers share: `resolv.conf` is written anew, twice or thrice, while a namespace is
made, and `hosts` lists the container as long as it has its addresses. If the app's container was removed, these files have no name any
more. See ADR 4.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

from pillion_common.logs import EventLog

_log = EventLog("namespace")

TICK_S = 0.5
LOST_TICK_S = 0.1
# The engine writes its files up to half a second before the app's container counts as running; more on a busy machine.
SETTLE_S = 1.0
MAX_SETTLE_S = 8.0


class EngineFiles:
    """The files an engine makes for a container's network. All of it can be read where there is no engine, too.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: str | os.PathLike[str] = "/etc") -> None:
        self._resolver = os.path.join(folder, "resolv.conf")
        self._hosts = os.path.join(folder, "hosts")
        self._hostname = os.path.join(folder, "hostname")

    def shared(self) -> bool:
        """Return whether they come from outside, as an engine's do."""
        return os.path.ismount(self._hosts)

    def stamp(self) -> tuple[int, int]:
        """Return when the resolver file and the hosts file were last written, in nanoseconds; 0 for one that is not there."""
        return _written(self._resolver), _written(self._hosts)

    def removed(self) -> bool:
        """Return whether the container they were made for is gone: a mounted file outlives its name."""
        try:
            return os.stat(self._resolver).st_nlink == 0
        except OSError:
            return False

    def lists_us(self) -> bool:
        """Return whether the hosts file gives this container an address on a network."""
        name = _read(self._hostname).strip()
        for line in _read(self._hosts).splitlines():
            address, *names = line.split() or [""]
            if name in names and address != "::1" and not address.startswith("127."):
                return True
        return False


class NamespaceWatch:
    """Watches for the loss.

    Args:
        interfaces: the names of the network interfaces.
        files: the engine's.
    """

    def __init__(self, interfaces: Callable[[], list[str]] | None = None, files: EngineFiles | None = None) -> None:
        self._interfaces = interfaces or (lambda: [name for _, name in socket.if_nameindex()])
        self._files = files or EngineFiles()
        self._had_network = len(self._interfaces()) > 1
        self._shared = self._files.shared()
        self._listed = self._files.lists_us()
        self._written = self._files.stamp() if self._had_network else (-1, -1)
        self._said_removed = False
        self.lost = False

    async def until_replaced(self) -> None:
        """Return when the namespace is lost and another stands in its place; never, where there was no network to lose.

        An app that goes again while this waits is given twice the time to stay, each time, so that one that crashes at every start does
        not get its sidecar ended just while it is away.
        """
        settle_s = SETTLE_S
        while True:
            while not self._replaced():
                await asyncio.sleep(LOST_TICK_S if self.lost else TICK_S)
            if await self._stays(settle_s):
                return
            settle_s = min(2 * settle_s, MAX_SETTLE_S)

    async def _stays(self, settle_s: float) -> bool:
        """Return whether nothing is written any more for so long, and the app is still there then."""
        stamp, since = self._files.stamp(), time.monotonic()
        while time.monotonic() - since < settle_s:
            await asyncio.sleep(LOST_TICK_S)
            if not self._replaced():
                return False
            if self._files.stamp() != stamp:
                stamp, since = self._files.stamp(), time.monotonic()
        return True

    def _replaced(self) -> bool:
        """Return whether the namespace is lost and the app seems to have another."""
        if not self._look():
            return False
        if self._files.removed():
            self._say_removed()
            return False
        return self._files.stamp()[0] != self._written[0] and (not self._listed or self._files.lists_us())

    def _look(self) -> bool:
        stamp = self._files.stamp()
        try:
            lost = self._interfaces() == ["lo"] and (self._had_network or self._joined_too_late())
        except OSError:
            return self.lost  # no descriptor left to ask with says nothing about the network
        if lost and not self.lost:
            _log.warning("namespace_lost", "the app's container has gone and took the network along; waiting for its return")
        if not lost:
            self._written = stamp  # read before the interfaces were: it is not yet the next namespace's
        self.lost = lost
        return lost

    def _joined_too_late(self) -> bool:
        """Return whether the app's container went while this sidecar was starting, and is back: it has an address, but not here."""
        return self._shared and self._files.lists_us()

    def _say_removed(self) -> None:
        if not self._said_removed:
            self._said_removed = True
            _log.error(
                "app_container_removed",
                "the app's container was removed, so this sidecar cannot follow it; make a new one beside the new container: "
                "docker compose up --detach, without a service's name or with the sidecar's",
            )


def _written(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""
