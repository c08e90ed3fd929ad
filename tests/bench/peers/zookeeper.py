"""ZooKeeper: one server with its default forceSync, and the few words of its wire protocol that the benches need (jute frames).

The client is ours, on asyncio: it keeps up with the server, but its own CPU is part of the latencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, cast

from machine import free_port

from peers.process import find, server

NAME = "zookeeper"
JAR = Path("/usr/share/java/zookeeper.jar")  # where Debian's package has it
EPHEMERAL = 1
EVENT = b"\xff" * 12  # the header of a watch's event: xid -1, zxid -1

_OPEN_ACL = struct.pack(">ii", 1, 31) + struct.pack(">i5s", 5, b"world") + struct.pack(">i6s", 6, b"anyone")


class ZooKeeper(NamedTuple):
    """A running server: its port and its process."""

    port: int
    process: subprocess.Popen[bytes]


def installed() -> bool:
    return find("java") is not None and JAR.exists()


@contextlib.asynccontextmanager
async def zookeeper(folder: Path) -> AsyncIterator[ZooKeeper]:
    """Run a server."""
    port = free_port()
    settings = folder / "zoo.cfg"
    settings.write_text(
        f"tickTime=1000\ndataDir={folder / 'data'}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "maxClientCnxns=0\nadmin.enableServer=false\nmaxSessionTimeout=600000\n"
    )
    words = [str(find("java")), "-cp", str(JAR), "org.apache.zookeeper.server.ZooKeeperServerMain", str(settings)]

    async def ready() -> bool:
        (await connect(port)).transport.abort()
        return True

    async with server(words, folder, ready) as process:
        yield ZooKeeper(port, process)


def create(xid: int, path: str, data: bytes = b"", flags: int = 0) -> bytes:
    return _framed(struct.pack(">ii", xid, 1) + _text(path) + struct.pack(">i", len(data)) + data + _OPEN_ACL + struct.pack(">i", flags))


def children(xid: int, path: str, watch: bool = False) -> bytes:
    return _framed(struct.pack(">ii", xid, 8) + _text(path) + bytes([watch]))


def delete(xid: int, path: str) -> bytes:
    return _framed(struct.pack(">ii", xid, 2) + _text(path) + struct.pack(">i", -1))


def ping() -> bytes:
    return _framed(struct.pack(">ii", -2, 11))


class Session(asyncio.Protocol):
    """One session. `on_frame` is given every frame after the first, without its length."""

    def __init__(self, on_frame: Callable[[Session, bytes], None], timeout_ms: int) -> None:
        self._on_frame = on_frame
        self._timeout_ms = timeout_ms
        self._left = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send(_framed(struct.pack(">iqiqi16s?", 0, 0, self._timeout_ms, 0, 16, b"", False)))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("the server closed the connection"))

    def send(self, frame: bytes) -> None:
        self.transport.write(frame)

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            frame, data = data[4:end], data[end:]
            if self.opened.done():
                self._on_frame(self, frame)
            else:
                self.opened.set_result(None)
        self._left = data


async def connect(port: int, on_frame: Callable[[Session, bytes], None] = lambda *_: None, timeout_ms: int = 60_000) -> Session:
    """Open a session."""
    loop = asyncio.get_running_loop()
    session = (await loop.create_connection(lambda: Session(on_frame, timeout_ms), "127.0.0.1", port))[1]
    await asyncio.wait_for(session.opened, 30)
    return session


def check(frame: bytes) -> None:
    """Raise RuntimeError when an answer tells of an error."""
    if error := struct.unpack_from(">i", frame, 12)[0]:
        raise RuntimeError(f"ZooKeeper answered with error {error}")


def _text(plain: str) -> bytes:
    return struct.pack(">i", len(plain)) + plain.encode()


def _framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload
