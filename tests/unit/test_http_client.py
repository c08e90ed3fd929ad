"""Channel, the client side of the core: what it makes of good and bad answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from async_peer import OK, Peer, Reader, Writer, answers, channel, get, opened, peer_that

from pillion_common.errors import PeerBroken, PeerClosed


@pytest.fixture(autouse=True)
async def close_all() -> AsyncIterator[None]:
    yield
    while opened:
        opened.pop().close()
    await asyncio.sleep(0.01)


async def test_one_connection_serves_many_requests_one_after_another() -> None:
    async with peer_that(answers(OK)) as peer:
        one = channel(peer)
        found = await asyncio.gather(*(one.request("GET", f"/{n}", timeout_s=2.0) for n in range(10)))
        assert {answer.body for answer in found} == {b"ok"}
        assert peer.connections == 1
        assert [head.split()[1] for head in peer.heads] == [b"/%d" % n for n in range(10)]


async def test_the_request_has_host_length_and_the_given_lines() -> None:
    async with peer_that(answers(OK)) as peer:
        one = channel(peer)
        await one.request("POST", "/services?a=b", body=b"", headers=("X-A: b",), timeout_s=1.0)
        host = peer.url.removeprefix("http://").encode()
        assert peer.heads == [b"POST /services?a=b HTTP/1.1\r\nHost: %b\r\nX-A: b\r\nContent-Length: 0\r\n\r\n" % host]


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"], b"abcde"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], b"ok"),
        ([b"HTTP", b"/1.1 200 O", b"K\r\nContent-Le", b"ngth: 2\r\n\r\no", b"k"], b"ok"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], b""),
    ],
    ids=["chunked", "continue", "in pieces", "empty"],
)
async def test_answers_of_every_framing(pieces: list[bytes], body: bytes) -> None:
    async with peer_that(answers(*pieces)) as peer:
        answer = await get(peer)
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello",
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_a_body_that_ends_with_its_connection_is_whole(answer: bytes) -> None:
    async with peer_that(answers(answer, close=True)) as peer:
        got = await get(peer)
        assert (got.status, got.body) == (200, b"hello")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nServer: x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        ),
    ],
)
async def test_a_connection_that_ends_before_the_answer_is_whole_is_closed(answer: bytes) -> None:
    async with peer_that(answers(answer, close=True)) as peer:
        with pytest.raises(PeerClosed):
            await get(peer)


@pytest.mark.parametrize("answer", [b"220 mail ready\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_what_is_not_http_is_broken(answer: bytes) -> None:
    async with peer_that(answers(answer)) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)


async def test_an_answer_with_too_many_headers_is_broken() -> None:
    async with peer_that(answers(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n")) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)


async def test_one_endless_header_is_broken_before_it_fills_the_memory() -> None:
    sent = 0

    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await peer.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(2000):
            writer.write(b"y" * 10_000)
            await writer.drain()
            sent += 10_000

    async with peer_that(behave) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)
    assert sent < 8_000_000


async def test_an_oversized_answer_counts_with_its_status_and_is_cut() -> None:
    async with peer_that(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * 1_000_000)) as peer:
        answer = await get(peer, max_answer=1000)
        assert (answer.status, answer.body) == (200, b"x" * 1000)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with peer_that(answers(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")) as peer:
        answer = await get(peer)
        assert answer.status == 302
        assert peer.connections == 1
