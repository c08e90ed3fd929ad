"""Channel's connection: kept, lost, given up; its errors; and that answers are never mixed up. On asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from async_peer import OK, Peer, Reader, Writer, answers, channel, get, opened, peer_that, silent

from pillion_common.errors import PeerClosed, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_common.http.client import Channel
from pillion_common.names import parse_url


@pytest.fixture(autouse=True)
async def close_all() -> AsyncIterator[None]:
    yield
    while opened:
        opened.pop().close()
    await asyncio.sleep(0.01)


async def test_nobody_listening_is_refused() -> None:
    async with peer_that(answers(OK)) as peer:
        url = peer.url
    with pytest.raises(PeerRefused):
        await Channel(parse_url(url, "u")).request("GET", "/", timeout_s=1.0)


async def test_no_answer_is_timed_out_within_the_time() -> None:
    async with peer_that(silent) as peer:
        one, started = channel(peer), time.monotonic()
        with pytest.raises(PeerTimedOut):
            await one.request("GET", "/", timeout_s=0.2)
        assert 0.15 < time.monotonic() - started < 0.6


async def test_the_time_counts_the_wait_for_the_connections_turn_as_well() -> None:
    async with peer_that(silent) as peer:
        one, started = channel(peer), time.monotonic()
        found = await asyncio.gather(*(one.request("GET", "/", timeout_s=0.2) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(error, PeerTimedOut) for error in found)
        assert time.monotonic() - started < 0.8


async def test_the_next_request_after_a_time_out_never_gets_the_late_answer() -> None:
    async def late_first(peer: Peer, reader: Reader, writer: Writer) -> None:
        while True:
            head = await peer.head(reader)
            if b"/first" in head:
                await asyncio.sleep(0.15)
            target = head.split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with peer_that(late_first) as peer:
        one = channel(peer)
        with pytest.raises(PeerTimedOut):
            await one.request("GET", "/first", timeout_s=0.1)
        assert (await one.request("GET", "/second", timeout_s=1.0)).body == b"/second"


async def test_nor_does_it_when_the_time_out_came_in_the_second_try() -> None:
    """The idle connection dies as it is used; the try on a new connection times out; its late answer must go to nobody."""

    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        if peer.connections == 1:
            await peer.head(reader)
            writer.write(OK)
            await peer.head(reader)
            return
        while True:
            head = await peer.head(reader)
            if b"/second" in head:
                await asyncio.sleep(0.15)
            target = head.split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with peer_that(behave) as peer:
        one = channel(peer)
        await one.request("GET", "/one", timeout_s=1.0)
        with pytest.raises(PeerTimedOut):
            await one.request("GET", "/second", timeout_s=0.1)
        assert (await one.request("GET", "/third", timeout_s=1.0)).body == b"/third"


async def closes_when_used_again(peer: Peer, reader: Reader, writer: Writer) -> None:
    await peer.head(reader)
    writer.write(OK)
    await peer.head(reader)


async def test_a_get_on_a_connection_that_died_while_idle_is_tried_once_more() -> None:
    async with peer_that(closes_when_used_again) as peer:
        one = channel(peer)
        await one.request("GET", "/1", timeout_s=1.0)
        assert (await one.request("GET", "/2", timeout_s=1.0)).status == 200
        assert peer.connections == 2


async def test_a_post_on_a_connection_that_died_while_idle_is_not() -> None:
    async with peer_that(closes_when_used_again) as peer:
        one = channel(peer)
        await one.request("GET", "/1", timeout_s=1.0)
        with pytest.raises(PeerClosed):
            await one.request("POST", "/2", body=b"x", timeout_s=1.0)
        assert peer.connections == 1


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    stale = b"HTTP/1.1 500 Stale\r\nContent-Length: 5\r\n\r\nstale"
    for more in (stale, stale[:-5], stale[:5]):
        async with peer_that(answers(OK + more)) as peer:
            one = channel(peer)
            for _ in range(3):
                assert (await one.request("GET", "/", timeout_s=1.0)).body == b"ok"
            assert peer.connections == 3


async def test_on_closed_is_called_when_the_peer_closes_an_idle_connection() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        writer.write(OK)
        await asyncio.sleep(0.05)

    calls: list[float] = []
    async with peer_that(behave) as peer:
        one = channel(peer, on_closed=lambda: calls.append(time.monotonic()))
        await one.request("GET", "/", timeout_s=1.0)
        assert calls == []
        await asyncio.sleep(0.15)
        assert len(calls) == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"]
)
async def test_on_closed_is_not_called_for_a_peer_that_said_it_would_close(answer: bytes) -> None:
    calls: list[int] = []
    async with peer_that(answers(answer, close=True)) as peer:
        one = channel(peer, on_closed=lambda: calls.append(1))
        await one.request("GET", "/", timeout_s=1.0)
        await asyncio.sleep(0.05)
        assert calls == []


async def test_on_closed_is_not_called_when_we_gave_the_connection_up_ourselves() -> None:
    calls: list[int] = []
    async with peer_that(silent) as peer:
        one = channel(peer, on_closed=lambda: calls.append(1))
        with pytest.raises(PeerTimedOut):
            await one.request("GET", "/", timeout_s=0.05)
        await asyncio.sleep(0.05)
    async with peer_that(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * 1_000_000)) as peer:
        await get(peer, max_answer=1000, on_closed=lambda: calls.append(2))
        two = channel(peer, max_answer=1000, on_closed=lambda: calls.append(3))
        await two.request("GET", "/", timeout_s=1.0)
        await asyncio.sleep(0.05)
    assert calls == []


async def test_a_forbidden_address_is_never_dialled() -> None:
    async with peer_that(answers(OK)) as peer:
        for url in (peer.url, peer.url.replace("127.0.0.1", "localhost")):
            one = Channel(parse_url(url, "u"), allow=lambda address: False)
            with pytest.raises(PeerUnreachable, match="PILLION_TARGETS"):
                await one.request("GET", "/", timeout_s=1.0)
        assert peer.connections == 0


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pytest.raises((PeerUnreachable, PeerTimedOut)):
        await Channel(parse_url("http://no-such-host.invalid/", "u")).request("GET", "/", timeout_s=3.0)


async def test_close_ends_a_request_that_is_under_way() -> None:
    async with peer_that(silent) as peer:
        one = channel(peer)
        under_way = asyncio.create_task(one.request("GET", "/", timeout_s=5.0))
        await asyncio.sleep(0.05)
        one.close()
        with pytest.raises(PeerClosed):
            await under_way


async def test_a_closed_channel_never_dials_again() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        writer.write(OK)
        await peer.head(reader)
        await asyncio.sleep(30)

    async with peer_that(behave) as peer:
        one = channel(peer)
        await one.request("GET", "/1", timeout_s=1.0)
        under_way = asyncio.create_task(one.request("GET", "/2", timeout_s=0.5))
        await asyncio.sleep(0.05)
        one.close()
        with pytest.raises(PeerClosed):
            await under_way
        assert peer.connections == 1
