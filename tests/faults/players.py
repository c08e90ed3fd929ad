"""Providers and dependents that this process plays, each on a listener of its own, at an address of its own.

An address for each keeps ports free of others while a provider is away: 127.A.0.1, 127.A.0.2 and so on, all at one port.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any, cast

from truth import Truth

PORT = 7070
BACKLOG = 64
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 409: b"Conflict"}


def address(number: int) -> str:
    """Return the address of a player of this process."""
    return f"127.{10 + os.getpid() % 200}.{number // 250}.{number % 250 + 1}"


class Player:
    """Listens, and answers what it is asked with a status."""

    def __init__(self, number: int) -> None:
        self.host = address(number)
        self.url = f"http://{self.host}:{PORT}"
        self.incarnation = 0
        self._server: asyncio.Server | None = None
        self.lines: set[_Line] = set()

    @property
    def listens(self) -> bool:
        return self._server is not None

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Line(self), self.host, PORT, backlog=BACKLOG)

    def die(self) -> None:
        """End as a killed process does: connections are closed, and refused from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for line in list(self.lines):
            line.transport.abort()

    def registration(self, name: str, **more: Any) -> bytes:
        """Return what it would POST."""
        said = {"ServiceName": name, "ServiceURL": self.url, "HeartbeatURL": f"{self.url}/heartbeat"}
        return json.dumps(said | more).encode()

    def answer(self, method: bytes, path: bytes, body: bytes) -> int:
        """Return the status for a request."""
        return 200 if (method, path) == (b"GET", b"/heartbeat") else 404


class Dependent(Player):
    """Takes patches, and says what it took.

    Args:
        name: in the account.
        requires: names of services.
        classic: it appends what is added, and takes no notice of revisions.
    """

    def __init__(
        self, number: int, requires: tuple[str, ...], classic: bool, truth: Truth, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(number)
        self.name = f"{'classic' if classic else 'second'}-{number}"
        self.requires = requires
        self.classic = classic
        self.patches = self.fulls = self.gaps = 0
        self._truth = truth
        self._clock = clock
        self._at: tuple[Any, Any] = (None, None)  # epoch and revision

    def words(self) -> bytes:
        """Return its registration."""
        more: dict[str, Any] = {"RequiredServices": list(self.requires), "ServiceUpdateURL": f"{self.url}/services"}
        return self.registration("Watcher", **more, **({} if self.classic else {"Protocol": 2, "Incarnation": 1}))

    def answer(self, method: bytes, path: bytes, body: bytes) -> int:
        if (method, path) != (b"POST", b"/services"):
            return super().answer(method, path, body)
        patch = json.loads(body)
        self.patches += 1
        if self.classic:
            self._change(patch)
            return 200
        return self._take(patch)

    def _take(self, patch: dict[str, Any]) -> int:
        """Take a patch as a sidecar does: one that starts from elsewhere is refused."""
        epoch, revision = patch.get("Epoch"), patch.get("Revision")
        if patch.get("Full"):
            self.fulls += 1
            entries = [(entry["Name"], entry["URL"]) for entry in patch.get("Added") or ()]
            self._truth.replaced(self.name, patch.get("Services") or (), entries, self._clock())
        elif (epoch, patch.get("Previous")) != self._at:
            self.gaps += 1
            return 409
        else:
            self._change(patch)
        self._at = epoch, revision
        return 200

    def _change(self, patch: dict[str, Any]) -> None:
        """Take in what is added, then what is removed, in a classic client's order."""
        now = self._clock()
        removed = [(entry["Name"], entry["URL"]) for entry in patch.get("Removed") or ()]
        added = [(entry["Name"], entry["URL"]) for entry in patch.get("Added") or ()]
        if not self.classic:  # a sidecar removes first
            for name, url in removed:
                self._truth.removed(self.name, name, url, now)
        for name, url in added:
            self._truth.added(self.name, name, url, now, self.classic)
        if self.classic:
            for name, url in removed:
                self._truth.removed(self.name, name, url, now)


class _Line(asyncio.Protocol):
    """One connection to a player."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._player.listens:
            self.transport.abort()  # it was taken in the moment in which the player died
        self._player.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._player.lines.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            head = data[:end]
            length = _LENGTH.search(head)
            whole = end + (int(length[1]) if length else 0)
            if len(data) < whole:
                break
            method, path, _ = head.split(b" ", 2)
            self._say(self._player.answer(method, path, data[end:whole]))
            data = data[whole:]
        self._data = data

    def _say(self, status: int) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n" % (status, _REASONS[status]))
