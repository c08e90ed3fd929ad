"""Hot routes: what is found from a head is found once, and promised answers come in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from raw_http import RawPeer, Serving, serving

from pillion_common.errors import Conflict, NotFound
from pillion_common.http.heads import MAX_HEADS, KnownHeads
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import Request, Response
from pillion_common.http.promise import Outcome, Promise
from pillion_common.http.server import Server

PAUSE_S = 0.01  # lets what was sent arrive as a piece of its own
ECHO = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


class Desk:
    """Routes that count how often they were asked."""

    def __init__(self) -> None:
        self.routed = 0
        self.promises: list[Promise] = []

    def route(self, request: Request) -> Handler:
        self.routed += 1
        path = request.path
        if path == "/missing":
            raise NotFound("not here")
        if path == "/promise":
            return lambda request: self._promise()
        if path == "/settle":
            return lambda request: self._settle(Response(200, request.body))
        if path == "/fail":
            return lambda request: self._settle(Conflict("it does not fit"))
        if path == "/slow":
            return self._slow
        return lambda request: Response(200, path.encode() + b" " + request.body, b"text/plain")

    def _promise(self) -> Promise:
        self.promises.append(Promise())
        return self.promises[-1]

    def _settle(self, outcome: Outcome) -> Response:
        for promise in self.promises:
            promise.settle(outcome)
        return Response(200, b"%d" % len(self.promises))

    async def _slow(self, request: Request) -> Response:
        await asyncio.sleep(0.05)
        return Response(200, b"slow " + request.body)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def server(desk: Desk) -> Iterator[Serving]:
    with serving(lambda: Server(route=desk.route)) as running:
        yield running


def test_a_head_is_routed_once_and_each_body_is_its_own(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer, RawPeer(server.port) as other:
        for number in range(5):
            for one in (peer, other):
                one.send(ECHO + b"%03d" % number)
                assert one.answer().body == b"/echo %03d" % number
    assert desk.routed == 1


def test_a_body_that_comes_later_than_its_known_head_is_waited_for(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer:
        for body in (b"abc", b"def"):
            peer.send(ECHO + body)
            assert peer.answer().body == b"/echo " + body
        for cut in range(1, len(ECHO) + 3):
            data = ECHO + b"%03d" % cut
            peer.send(data[:cut])
            time.sleep(PAUSE_S)
            peer.send(data[cut:])
            assert peer.answer().body == b"/echo %03d" % cut


def test_known_heads_in_one_piece_are_answered_one_by_one(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer:
        peer.send(ECHO + b"aaa")
        assert peer.answer().body == b"/echo aaa"
        peer.send(ECHO + b"bbb" + ECHO + b"ccc")
        assert [peer.answer().body for _ in range(2)] == [b"/echo bbb", b"/echo ccc"]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1024 + b"\r\n\r\n",
        b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_what_is_not_plain_goes_to_the_parser_each_time(desk: Desk, server: Serving, head: bytes) -> None:
    with RawPeer(server.port) as peer:
        for number in range(1, 4):
            peer.send(head)
            assert peer.answer(head_only=head.startswith(b"HEAD")).status == 200
            assert desk.routed == number


def test_a_route_that_fails_is_asked_again(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer:
        for number in range(1, 4):
            peer.send(b"GET /missing HTTP/1.1\r\nHost: a\r\n\r\n")
            assert peer.answer().status == 404
            assert desk.routed == number


def test_a_promise_is_answered_when_it_is_kept_and_what_came_behind_it_afterwards(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer, RawPeer(server.port) as other:
        peer.send(b"GET /promise HTTP/1.1\r\nHost: a\r\n\r\n" + ECHO + b"abc")
        time.sleep(PAUSE_S)
        other.send(b"POST /settle HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
        assert other.answer().body == b"1"
        assert [peer.answer().body for _ in range(2)] == [b"ok", b"/echo abc"]


def test_an_error_a_promise_ends_with_is_its_answer(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer, RawPeer(server.port) as other:
        peer.send(b"GET /promise HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(PAUSE_S)
        other.send(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.answer().status == 200
        assert peer.answer().status == 409


def test_a_promise_whose_client_went_harms_nobody(desk: Desk, server: Serving) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"GET /promise HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(PAUSE_S)
    with RawPeer(server.port) as other:
        other.send(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.answer().body == b"1"


def test_a_promise_may_be_kept_before_anybody_listens_and_only_once() -> None:
    promise, heard = Promise(), []
    promise.settle(Response(200, b"first"))
    promise.settle(Response(200, b"second"))
    promise.then(heard.append)
    assert [one.body for one in heard if isinstance(one, Response)] == [b"first"]


def test_the_known_heads_are_bounded() -> None:
    known = KnownHeads()
    for number in range(MAX_HEADS + 1):
        head = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
        known.keep(head, Request("GET", b"/%d" % number, [(b"host", b"a")], "", "1.1", True), lambda request: Response())
    assert len(known) == 1
