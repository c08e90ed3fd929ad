"""The connection to real NATS servers: it waits for them, says what is missing, and comes back after kills and pauses."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from nats_lab import DROPS_CONNECTIONS, nats_servers, store_uri

from pillion_common.nats_link import NatsLink, parse_place

pytestmark = DROPS_CONNECTIONS
LONG_S = 30.0


async def until(look: object, timeout_s: float = LONG_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not look():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def first(link: NatsLink, stream: str) -> bytes | None:
    """Return the first message of a stream, once its servers have elected."""
    async with asyncio.timeout(LONG_S):
        while True:
            with suppress(nats.errors.TimeoutError, nats.js.errors.ServiceUnavailableError):
                return (await link.jetstream().get_msg(stream, 1)).data


async def test_it_waits_for_servers_and_outlives_their_end(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as [server]:
        server.kill()
        told: list[bool] = []
        link = NatsLink(parse_place(store_uri([server])), "test", on_change=told.append)
        opening = asyncio.create_task(link.open())
        await asyncio.sleep(0.5)
        assert not opening.done()
        assert server.address in (link.fault() or "")
        server.start()
        await asyncio.wait_for(opening, LONG_S)
        assert link.stands
        assert link.fault() is None
        server.kill()
        await until(lambda: not link.stands)
        assert "has not been reached" in (link.fault() or "")
        server.start()
        await until(lambda: link.stands)
        await link.close()
        await link.close()
        assert told == [True, False, True]


async def test_a_server_that_is_paused_is_left_for_another(tmp_path: Path) -> None:
    with nats_servers(tmp_path, 3) as servers:
        link = NatsLink(parse_place(store_uri(servers)), "test")
        await link.open()
        url = link.client.connected_url
        assert url is not None
        first = next(server for server in servers if server.port == url.port)
        first.send(signal.SIGSTOP)
        try:
            await until(lambda: link.stands and link.client.connected_url != url)
        finally:
            first.send(signal.SIGCONT)
        await link.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_jetstream_keeps_what_it_acknowledged(tmp_path: Path, count: int) -> None:
    with nats_servers(tmp_path, count) as servers:
        link = NatsLink(parse_place(store_uri(servers)), "test")
        await link.open()
        stream = link.jetstream()
        await stream.add_stream(name="kept", subjects=["kept.>"], num_replicas=link.place.replicas)
        await stream.publish("kept.one", b"1")
        for server in servers:
            server.kill()
        for server in servers:
            server.start()
        await until(lambda: all(server.is_ready() for server in servers))
        await until(lambda: link.stands)
        assert await first(link, "kept") == b"1"
        await link.close()
