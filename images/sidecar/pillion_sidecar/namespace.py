"""Notices that the network namespace this sidecar shares with its app was lost, because the app's container was restarted.

The engine then takes the interfaces away (only `lo` is left) and makes a new namespace for the app. The old one never comes back, so the
sidecar has to end, and its restart policy joins it to the new one; but not before the app is there again, or the engine gives up. That
moment shows: the engine writes `/etc/resolv.conf`, which both containers share, anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pillion_common.logs import EventLog

_log = EventLog("namespace")

TICK_S = 0.5
SETTLE_S = 1.0  # the engine writes the file a moment before the app's container counts as running


class NamespaceWatch:
    """Watches for the loss.

    Args:
        interfaces: the names of the network interfaces.
        resolver_file: written anew by the engine whenever it makes the namespace.
    """

    def __init__(self, interfaces: Callable[[], list[str]] | None = None, resolver_file: Path = Path("/etc/resolv.conf")) -> None:
        self._interfaces = interfaces or (lambda: [name for _, name in socket.if_nameindex()])
        self._resolver_file = resolver_file
        self._written = self._stamp()
        self._shared = len(self._interfaces()) > 1
        self.lost = False

    async def until_replaced(self) -> None:
        """Return when the namespace is lost and another stands in its place; never, where there was no network to lose."""
        while not (self._look() and self._stamp() != self._written):
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(SETTLE_S)

    def _look(self) -> bool:
        lost = self._shared and self._interfaces() == ["lo"]
        if lost and not self.lost:
            _log.warning("namespace_lost", "the app's container has gone and took the network along; waiting for its return")
        self.lost = lost
        return lost

    def _stamp(self) -> int:
        try:
            return os.stat(self._resolver_file).st_mtime_ns
        except OSError:
            return 0
