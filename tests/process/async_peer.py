"""A peer for the client side of the core: a small server in the test's own loop, with any behaviour, and channels to it.

`async with peer_that(answers(OK)) as peer: await channel(peer).request("GET", "/", timeout_s=1.0)`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pillion_common.http.client import Answer, Channel
from pillion_common.names import parse_url

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Behaviour = Callable[["Peer", Reader, Writer], Awaitable[None]]


class Peer:
    """A peer whose behaviour is given; counts connections and keeps the request heads it read."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def head(self, reader: Reader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head


@asynccontextmanager
async def peer_that(behaviour: Behaviour) -> AsyncIterator[Peer]:
    peer = Peer()
    writers: list[Writer] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        peer.connections += 1
        writers.append(writer)
        try:
            await behaviour(peer, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def answers(*pieces: bytes, close: bool = False) -> Behaviour:
    """Answer every request with the pieces; then close if told so."""

    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        while True:
            await peer.head(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)
            if close:
                return

    return behave


async def silent(peer: Peer, reader: Reader, writer: Writer) -> None:
    await peer.head(reader)
    await asyncio.sleep(30)


opened: list[Channel] = []


def channel(peer: Peer, **more: object) -> Channel:
    opened.append(Channel(parse_url(peer.url, "u"), **more))  # type: ignore[arg-type]
    return opened[-1]


async def get(peer: Peer, **more: object) -> Answer:
    return await channel(peer, **more).request("GET", "/heartbeat", timeout_s=1.0)
