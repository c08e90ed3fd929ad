"""HTTP by raw bytes, as an old client speaks it: a peer over a plain socket, and the core's Server in a thread to speak to.

`with RawPeer(port) as peer: peer.send(b"GET / HTTP/1.1\\r\\n…"); assert peer.answer().status == 200`
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pillion_common.config import Address
from pillion_common.http.server import Server

WAIT_S = 5.0


class RawAnswer(NamedTuple):
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawPeer:
    """A client that sends what it is told, byte for byte."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), WAIT_S)
        self._read = b""

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, head_only: bool = False) -> RawAnswer:
        """Read one answer; of one to HEAD only its head."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if head_only or status < 200 or status in (204, 304):
            return RawAnswer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return RawAnswer(status, headers, self._chunks())
        if "content-length" in headers:
            return RawAnswer(status, headers, self._take(int(headers["content-length"])))
        return RawAnswer(status, headers, self.rest())

    def rest(self) -> bytes:
        """Read until the other side closes."""
        while piece := self.socket.recv(65536):
            self._read += piece
        rest, self._read = self._read, b""
        return rest

    def closed(self) -> bool:
        """Return whether the other side closes, without another byte, within the time."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError(f"closed in the middle of an answer; so far: {self._read[:200]!r}")
        self._read += piece

    def _take(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    def _line(self) -> bytes:
        while b"\r\n" not in self._read:
            self._more()
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._line(), 16):
            body += self._take(size)
            assert self._take(2) == b"\r\n"
        assert self._line() == b""
        return body


def request(port: int, method: str, target: str, body: bytes = b"", *headers: str) -> RawAnswer:
    """Send one plain request on a connection of its own and return its answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: registry:3000", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    with RawPeer(port) as peer:
        peer.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return peer.answer(head_only=method == "HEAD")


class Serving(NamedTuple):
    """A Server that runs in a thread of its own."""

    server: Server
    loop: asyncio.AbstractEventLoop
    port: int

    def close(self, grace_s: float = WAIT_S) -> None:
        """Shut the server down, and wait for it."""
        asyncio.run_coroutine_threadsafe(self.server.close(grace_s), self.loop).result(WAIT_S + grace_s)

    def close_soon(self, grace_s: float = WAIT_S) -> Any:
        """Begin to shut down; returns the future of its end."""
        return asyncio.run_coroutine_threadsafe(self.server.close(grace_s), self.loop)


@contextmanager
def serving(make: Callable[[], Server]) -> Iterator[Serving]:
    """Run the Server that `make` returns, on a free port of loopback, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server under test")
    thread.start()

    async def start() -> tuple[Server, int]:
        server = make()
        url = await server.listen(Address("127.0.0.1", 0))
        return server, int(url.rpartition(":")[2])

    async def end(server: Server) -> None:
        await server.close(0.0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.02)  # the cut connections' own good-byes

    try:
        server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_S)
        try:
            yield Serving(server, loop, port)
        finally:
            asyncio.run_coroutine_threadsafe(end(server), loop).result(WAIT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
