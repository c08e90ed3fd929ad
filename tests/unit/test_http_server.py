"""The server core, spoken to by raw bytes: framing, order, keep-alive, errors, shutdown."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Awaitable, Iterator

import pytest
from raw_http import RawPeer, Serving, serving

from pillion_common.errors import Conflict, Unavailable
from pillion_common.http.connection import Connection
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


def answer(request: Request) -> Response | Awaitable[Response]:
    """Echo; /slow answers after a moment, /conflict and /fault do not end well, /large is 8 MB."""
    match request.path:
        case "/slow":
            return slow(request)
        case "/conflict":
            raise Conflict("it does not fit")
        case "/later-conflict":
            return later()
        case "/fault":
            raise RuntimeError("a secret detail")
        case "/later-fault":
            return later_fault()
        case "/large":
            return Response(200, b"x" * 8_000_000, b"text/plain")
        case "/none":
            return Response(204)
    return Response(200, f"{request.method} {request.path} ".encode() + request.body, b"text/plain")


async def slow(request: Request) -> Response:
    await asyncio.sleep(0.2)
    return Response(200, b"slow " + request.body, b"text/plain")


async def later() -> Response:
    await asyncio.sleep(0)
    raise Unavailable("not now", retry_after_s=7)


async def later_fault() -> Response:
    await asyncio.sleep(0)
    raise RuntimeError("a secret detail")


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(lambda: Server(answer)) as running:
        yield running


@pytest.fixture
def peer(server: Serving) -> Iterator[RawPeer]:
    with RawPeer(server.port) as peer:
        yield peer


def test_a_connection_serves_many_requests(peer: RawPeer) -> None:
    for number in range(5):
        peer.send(GET % number)
        got = peer.answer()
        assert (got.status, got.body) == (200, b"GET /%d " % number)
        assert "connection" not in got.headers
        assert got.headers["content-type"] == "text/plain"
        assert got.headers["date"].endswith("GMT")


def test_connection_close_is_honoured(peer: RawPeer) -> None:
    peer.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert peer.answer().headers["connection"] == "close"
    assert peer.closed()


def test_pipelined_requests_are_answered_in_order(peer: RawPeer) -> None:
    peer.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1" + b"".join(GET % n for n in range(2, 40)))
    assert peer.answer().body == b"slow 1"
    for number in range(2, 40):
        assert peer.answer().body == b"GET /%d " % number


def test_many_slow_pipelined_requests_lose_none(peer: RawPeer) -> None:
    peer.send(b"".join(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % n for n in range(60)))
    assert [peer.answer().body for _ in range(60)] == [b"POST /later %02d" % n for n in range(60)]


def test_a_request_that_comes_byte_by_byte_is_whole(peer: RawPeer) -> None:
    for byte in b"POST /1?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello":
        peer.send(bytes([byte]))
    assert peer.answer().body == b"POST /1 hello"


def test_chunked_bodies_are_put_together(peer: RawPeer) -> None:
    peer.send(
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n"
        + GET % 2
    )
    assert peer.answer().body == b"POST /c abcdefgh"
    assert peer.answer().body == b"GET /2 "


def test_expect_100_continue_is_answered_before_the_body(peer: RawPeer) -> None:
    peer.send(b"POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert peer.answer().status == 100
    peer.send(b"ok")
    assert peer.answer().body == b"POST /e ok"


def test_http_1_0_is_closed_unless_it_asks_for_more(server: Serving) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"GET /1 HTTP/1.0\r\n\r\n")
        assert peer.answer().body == b"GET /1 "
        assert peer.closed()
    with RawPeer(server.port) as peer:
        for _ in range(2):
            peer.send(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert peer.answer().headers["connection"] == "keep-alive"


def test_head_has_the_length_and_no_body(peer: RawPeer) -> None:
    peer.send(b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 2)
    assert peer.answer(head_only=True).headers["content-length"] == "8"
    assert peer.answer().body == b"GET /2 "


def test_204_has_neither_body_nor_length(peer: RawPeer) -> None:
    peer.send(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 2)
    got = peer.answer()
    assert (got.status, "content-length" in got.headers) == (204, False)
    assert peer.answer().body == b"GET /2 "


@pytest.mark.parametrize("last", [b"Connection: close", b"Connection: keep-alive, close", b"Upgrade: h2c\r\nConnection: upgrade"])
@pytest.mark.parametrize("after", [GET % 2, b"nonsense\r\n\r\n", b"x"], ids=["request", "nonsense", "byte"])
def test_what_follows_the_last_request_is_not_looked_at(peer: RawPeer, caplog: pytest.LogCaptureFixture, last: bytes, after: bytes) -> None:
    peer.send(b"GET /last HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n\r\n" + after)
    assert peer.answer().body == b"GET /last "
    assert peer.closed()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["h2c", "websocket"],
)
def test_an_offer_to_upgrade_is_answered_as_if_it_were_not_there(server: Serving, request_: bytes) -> None:
    with RawPeer(server.port) as peer:
        peer.send(request_)
        first = peer.answer()
        assert (first.status, first.body) == (200, b"GET /1 ")
        if first.headers.get("connection") != "close":
            peer.send(GET % 2)
            assert peer.answer().body == b"GET /2 "


def test_a_post_that_offers_to_upgrade_keeps_its_body(peer: RawPeer) -> None:
    peer.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello")
    assert peer.answer().body == b"POST /1 hello"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_400_with_the_reason_and_closed(peer: RawPeer, data: bytes) -> None:
    peer.send(data)
    got = peer.answer()
    assert got.status == 400
    assert set(got.json()) == {"Error", "Message"}
    assert got.headers["connection"] == "close"
    assert peer.closed()


def test_a_good_request_before_a_bad_one_is_answered(peer: RawPeer) -> None:
    peer.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1" + b"nonsense\r\n\r\n")
    assert peer.answer().body == b"slow 1"


def test_errors_of_a_handler_become_their_status(peer: RawPeer) -> None:
    peer.send(b"GET /conflict HTTP/1.1\r\nHost: a\r\n\r\n")
    got = peer.answer()
    assert (got.status, got.json()) == (409, {"Error": "conflict", "Message": "it does not fit"})
    peer.send(b"GET /later-conflict HTTP/1.1\r\nHost: a\r\n\r\n")
    got = peer.answer()
    assert (got.status, got.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize("path", [b"/fault", b"/later-fault"])
def test_a_fault_is_500_without_its_details_and_the_connection_goes_on(peer: RawPeer, path: bytes) -> None:
    peer.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path + GET % 2)
    got = peer.answer()
    assert got.status == 500
    assert b"secret" not in got.body
    assert peer.answer().body == b"GET /2 "


def test_a_client_that_closed_its_side_still_gets_its_answers(server: Serving) -> None:
    for path in (b"/slow", b"/quick"):
        with RawPeer(server.port) as peer:
            peer.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            peer.half_close()
            assert peer.answer().status == 200
            assert peer.closed()


def test_a_half_closed_client_gets_all_its_pipelined_answers(server: Serving) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + GET % 3)
        peer.half_close()
        assert [peer.answer().body for _ in range(3)] == [b"slow ", b"slow ", b"GET /3 "]
        assert peer.closed()


def test_a_large_answer_is_whole_for_a_client_that_reads_late(peer: RawPeer) -> None:
    peer.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 2)
    time.sleep(0.3)
    assert len(peer.answer().body) == 8_000_000
    assert peer.answer().body == b"GET /2 "


def test_a_client_that_goes_away_ends_its_handler_and_harms_nobody(server: Serving) -> None:
    for _ in range(10):
        with RawPeer(server.port) as peer:
            peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            time.sleep(0.01)
    with RawPeer(server.port) as peer:
        peer.send(GET % 1)
        assert peer.answer().status == 200


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return True


async def test_a_client_that_goes_away_at_once_leaves_no_handler_half_started() -> None:
    connection = Connection(Server(answer))
    connection.connection_made(Wire())
    connection.data_received(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.connection_lost(None)
    await asyncio.sleep(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await asyncio.sleep(0)
        del connection
        gc.collect()
    assert [str(one.message) for one in caught] == []


def test_shutdown_finishes_what_is_in_flight_and_lets_nobody_in() -> None:
    with serving(lambda: Server(answer)) as running:
        with RawPeer(running.port) as busy, RawPeer(running.port) as idle:
            idle.send(GET % 1)
            idle.answer()
            busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.05)
            ending = running.close_soon()
            assert idle.closed()
            got = busy.answer()
            assert (got.body, got.headers["connection"]) == (b"slow ", "close")
            busy.socket.close()
            ending.result(5)
        with pytest.raises(ConnectionRefusedError):
            RawPeer(running.port)


def test_shutdown_cuts_what_does_not_end_within_the_grace() -> None:
    async def hang(request: Request) -> Response:
        await asyncio.sleep(60)
        return Response()

    with serving(lambda: Server(hang)) as running, RawPeer(running.port) as peer:
        peer.send(GET % 1)
        time.sleep(0.05)
        started = time.monotonic()
        running.close(grace_s=0.2)
        assert time.monotonic() - started < 1.0
        assert peer.closed()
