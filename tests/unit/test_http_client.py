"""Channel, the client side of the core: what it makes of good and bad answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from async_peer import OK, Peer, Reader, Writer, answers, channel, get, opened, peer_that

from pillion_common.errors import PeerBroken, PeerClosed
from pillion_common.http import answers as module


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


async def test_many_messages_that_lead_nowhere_are_broken() -> None:
    async with peer_that(answers(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000)) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)


async def test_trailers_without_end_are_broken_before_they_fill_the_memory() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ")
        for _ in range(2000):
            writer.write(b"y" * 10_000)
            await writer.drain()

    async with peer_that(behave) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)


async def test_a_switch_of_protocols_is_broken() -> None:
    async with peer_that(answers(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")) as peer:
        with pytest.raises(PeerBroken):
            await get(peer)


async def test_an_answer_is_told_from_all_others_however_alike_and_however_often() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        while True:
            number = int((await peer.head(reader)).split()[1][1:])
            body = b"%04d" % (number % 7)
            writer.write(b"HTTP/1.1 %d OK\r\nX: %d\r\nContent-Length: 4\r\n\r\n%b" % (200 + number % 2, number % 3, body))

    async with peer_that(behave) as peer:
        channels = [channel(peer) for _ in range(3)]
        for number in range(200):
            answer = await channels[number % 3].request("GET", f"/{number}", timeout_s=1.0)
            assert (answer.status, answer.headers[0], answer.body) == (
                200 + number % 2,
                (b"x", b"%d" % (number % 3)),
                b"%04d" % (number % 7),
            )


async def test_only_whole_answers_with_a_length_are_remembered_and_no_more_than_the_bound() -> None:
    for answer in (
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        OK + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
    ):
        module.memo.clear()
        async with peer_that(answers(answer)) as peer:
            await get(peer)
        assert list(module.memo) == ([OK] if answer == OK else [])
    for number in range(module.MEMO_ANSWERS + 1):
        module.remember(b"%d" % number, module.Answer(200, (), b""))
    assert 1 <= len(module.memo) <= module.MEMO_ANSWERS
    module.memo.clear()


async def test_the_bound_on_an_answer_holds_for_remembered_ones_too() -> None:
    async with peer_that(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh")) as peer:
        assert (await get(peer)).body == b"abcdefgh"
        assert (await get(peer, max_answer=3)).body == b"abc"


async def test_a_part_of_an_answer_that_looks_like_a_whole_one_is_a_part() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK)
    async with peer_that(answers(OK)) as peer:
        assert (await get(peer)).body == b"ok"
    async with peer_that(answers(whole, OK)) as peer:
        assert (await get(peer)).body == OK
