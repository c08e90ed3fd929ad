"""Bodies that are handed in without a request being made: the same answers as by the long way, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from pillion_common.errors import Conflict, InvalidInput
from pillion_common.http.connection import Connection
from pillion_common.http.heads import KnownHeads
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_common.http.taker import Taker, Tell

HEAD = b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
OTHERS = [
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcd",
    b"POST /take HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"nonsense\r\n\r\n",
]


class Wire:
    """A transport in memory."""

    def __init__(self) -> None:
        self.said = b""
        self.open = True

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.7", 1)

    def write(self, data: bytes) -> None:
        self.said += data

    def abort(self) -> None:
        self.open = False

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return not self.open

    def pause_reading(self) -> None:
        pass

    resume_reading = close = pause_reading


class Shelf:
    """What was taken in, and who waits for a word."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str]] = []
        self.waiting: list[Tell] = []

    def take(self, body: bytes, peer: str, tell: Tell) -> None:
        if body.startswith(b"!"):
            raise InvalidInput("not this one")
        if body.startswith(b"#"):
            raise ValueError("a fault")
        self.taken.append((body, peer))
        self.waiting.append(tell)

    def tell_all(self, outcome: object) -> None:
        waiting, self.waiting = self.waiting, []
        for tell in waiting:
            tell(outcome)

    def route(self, request: Request) -> Handler:
        if request.path == "/take":
            return self.taker
        return lambda request: Response(200, request.body)

    @property
    def taker(self) -> Taker:
        return Taker(self.take, Response(200, b"taken", b"text/plain"))


class NeverSeen(KnownHeads):
    """Keeps no head: every request takes the long way."""

    def keep(self, data: bytes, request: Request, handler: Handler) -> None:
        pass


def connect(shelf: Shelf, known: KnownHeads) -> tuple[Connection, Wire]:
    server = Server(route=shelf.route)
    server.date = b"today"
    server.known = known
    connection, wire = Connection(server), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection, wire


def whole(body: bytes) -> bytes:
    return HEAD % len(body) + body


def test_a_body_under_a_known_head_is_taken_without_a_request() -> None:
    shelf = Shelf()
    connection, wire = connect(shelf, KnownHeads())
    for number in range(3):
        wire.said = b""
        connection.data_received(whole(b"%03d" % number))
        assert wire.said == b""
        shelf.tell_all(None)
        assert wire.said == b"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\ntaken"
    assert shelf.taken == [(b"000", "10.0.0.7"), (b"001", "10.0.0.7"), (b"002", "10.0.0.7")]


def test_what_comes_behind_a_body_that_is_being_taken_waits_for_its_answer() -> None:
    shelf = Shelf()
    connection, wire = connect(shelf, KnownHeads())
    connection.data_received(whole(b"one"))
    shelf.tell_all(None)
    connection.data_received(whole(b"two"))
    connection.data_received(OTHERS[0])
    wire.said = b""
    shelf.tell_all(None)
    assert [part.rpartition(b"\r\n")[2] for part in wire.said.split(b"HTTP/1.1 200 OK")[1:]] == [b"taken", b"abc"]


def test_a_word_that_comes_twice_answers_once() -> None:
    shelf = Shelf()
    connection, wire = connect(shelf, KnownHeads())
    connection.data_received(whole(b"one"))
    shelf.tell_all(None)
    connection.data_received(whole(b"two"))
    (tell,) = shelf.waiting
    wire.said = b""
    tell(None)
    tell(None)
    assert wire.said.count(b"HTTP/1.1 200 OK") == 1


def test_a_word_for_a_client_that_has_gone_harms_nobody() -> None:
    shelf = Shelf()
    connection, wire = connect(shelf, KnownHeads())
    connection.data_received(whole(b"one"))
    shelf.tell_all(None)
    connection.data_received(whole(b"two"))
    wire.said = b""
    connection.connection_lost(None)
    shelf.tell_all(None)
    assert wire.said == b""


@pytest.mark.parametrize("seed", range(10))
def test_the_short_way_answers_what_the_long_way_answers(seed: int) -> None:
    async def run() -> None:
        chance = random.Random(seed)
        for _ in range(150):
            short, long = Shelf(), Shelf()
            known = KnownHeads()
            one, one_wire = connect(short, known)
            for body in (b"abc", b"abcd"):  # heads that were seen
                one.data_received(whole(body))
                short.tell_all(None)
            one_wire.said, short.taken = b"", []
            other, other_wire = connect(long, NeverSeen())
            for _ in range(chance.randint(1, 5)):
                bodies = [whole(body) for body in (b"abc", b"abcd", b"!ab", b"#ab", b"", b"five5")]
                data = b"".join(chance.choices(bodies * 3 + OTHERS, k=chance.choice((1, 1, 1, 2, 3))))
                cut = chance.choice((len(data), len(data), chance.randint(0, len(data))))
                for piece in (data[:cut], data[cut:]):
                    if piece:
                        one.data_received(piece)
                        other.data_received(piece)
                if chance.random() < 0.8:
                    outcome = chance.choice((None, None, Conflict("no")))
                    short.tell_all(outcome)
                    long.tell_all(outcome)
            assert (one_wire.said, one_wire.open, short.taken) == (other_wire.said, other_wire.open, long.taken)

    asyncio.run(run())
