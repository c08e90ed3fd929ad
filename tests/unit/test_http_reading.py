"""What is read from a socket at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from pillion_common.config import Address
from pillion_common.http.client import Channel
from pillion_common.http.message import Response
from pillion_common.http.server import Server
from pillion_common.names import parse_url

LARGE = b"x" * 900_000
SMALL_ENOUGH = 128 * 1024  # from here on the C library maps memory for each read (mallopt(3), M_MMAP_THRESHOLD)


@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_large_body_arrives_whole(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> None:
        server = Server(lambda request: Response(200, b"%d" % len(request.body)))
        channel = Channel(parse_url(await server.listen(Address("127.0.0.1", 0)), "URL"))
        try:
            assert (await channel.request("POST", "/", body=LARGE, timeout_s=5)).body == b"900000"
        finally:
            channel.close()
            await server.close(0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


def test_neither_side_asks_asyncio_for_so_much_that_memory_is_mapped_for_it() -> None:
    transports: list[Any] = []

    async def run() -> None:
        server = Server(lambda request: Response(200))
        channel = Channel(parse_url(await server.listen(Address("127.0.0.1", 0)), "URL"))
        await channel.request("GET", "/", timeout_s=5)
        transports.extend(connection.transport for connection in server._connections)
        assert channel._wire is not None
        transports.append(channel._wire._transport)
        channel.close()
        await server.close(0)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(run())
    assert len(transports) == 2
    assert all(transport.max_size < SMALL_ENOUGH for transport in transports)
