"""No request smuggling: what two readers could read in two ways is refused, closed, and nothing after it is answered.

The same holds on a connection whose head was seen before, however the bytes are cut: the way past the parser and the way through it agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from raw_http import RawAnswer, RawPeer, Serving, serving

from pillion_common.http.connection import Connection
from pillion_common.http.interfaces import Limits
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server

LIMITS = Limits(head_bytes=4000, head_count=50, body_bytes=10_000)
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
GOOD_POST = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CANARY = b"GET /canary HTTP/1.1\r\nHost: a\r\n\r\n"
seen: list[tuple[str, bytes]] = []


def post(lines: bytes, body: bytes = b"hello") -> bytes:
    return b"POST /bad HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n" + body


def get(lines: bytes) -> bytes:
    return b"GET /bad HTTP/1.1\r\n" + lines + b"\r\n\r\n"


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body)


def upgraded(lines: bytes) -> bytes:
    return post(b"Connection: upgrade\r\nUpgrade: h2c\r\n" + lines, b"5\r\nhello\r\n0\r\n\r\n")


LENGTHS = {
    "two lengths that agree": post(b"Content-Length: 5\r\nContent-Length: 5"),
    "two lengths that do not": post(b"Content-Length: 5\r\nContent-Length: 6"),
    "a list of lengths": post(b"Content-Length: 5, 5"),
    "a list of other lengths": post(b"Content-Length: 5,6"),
    "a negative length": post(b"Content-Length: -5"),
    "a signed length": post(b"Content-Length: +5"),
    "a hexadecimal length": post(b"Content-Length: 0x5"),
    "an underscore": post(b"Content-Length: 1_0"),
    "two numbers": post(b"Content-Length: 5 5"),
    "a superscript": post(b"Content-Length: \xb2"),
    "no length at all": post(b"Content-Length:"),
    "a length over 64 bits": post(b"Content-Length: 18446744073709551621"),
    "a length of forty digits": post(b"Content-Length: " + b"9" * 40),
    "a vertical tab before the length": post(b"Content-Length: \x0b5"),
    "a space before the length's colon": post(b"Content-Length : 5"),
    "a folded length": post(b"Content-Length:\r\n 5"),
    "a length that goes on": post(b"Content-Length: 5\r\n 0"),
    "a length and chunks": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "chunks and a length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    "chunks in capitals and a length": post(b"TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 5", b"0\r\n\r\n"),
    "a length and an upgrade with chunks": upgraded(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "an upgrade with chunks": upgraded(b"Transfer-Encoding: chunked"),
    "an upgrade with two lengths": upgraded(b"Content-Length: 5\r\nContent-Length: 6"),
    "a get with two lengths": get(b"Host: a\r\nContent-Length: 0\r\nContent-Length: 5"),
}

CODINGS = {
    name: post(b"Transfer-Encoding:" + value, b"5\r\nhello\r\n0\r\n\r\n")
    for name, value in {
        "identity": b" identity",
        "gzip": b" gzip",
        "gzip, then chunked": b" gzip, chunked",
        "chunked twice": b" chunked, chunked",
        "chunked, then identity": b" chunked, identity",
        "chunked with a parameter": b" chunked;q=1",
        "chunked in quotes": b' "chunked"',
        "xchunked": b" xchunked",
        "chunkedx": b" chunkedx",
        "a vertical tab before chunked": b" \x0bchunked",
        "a NUL behind chunked": b" chunked\x00",
        "a bare CR in chunked": b" chun\rked",
        "a bare CR behind chunked": b" chunked\r",
        "no coding": b"",
        "a comma before chunked": b" ,chunked",
        "a comma behind chunked": b" chunked,",
        "a folded coding": b"\r\n chunked",
        "a coding that goes on": b" chunked\r\n , identity",
        "two lines of chunked": b" chunked\r\nTransfer-Encoding: chunked",
        "chunked, then a line of identity": b" chunked\r\nTransfer-Encoding: identity",
        "a line of identity, then chunked": b" identity\r\nTransfer-Encoding: chunked",
    }.items()
} | {
    "a space before the coding's colon": post(b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    "chunks in 1.0": b"POST /bad HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}

LINES = {
    "a request line with a bare LF": b"GET /bad HTTP/1.1\nHost: a\r\n\r\n",
    "bare LFs throughout": b"GET /bad HTTP/1.1\nHost: a\n\n",
    "a header with a bare LF": get(b"Host: a\nX: y"),
    "an end of head with a bare LF": b"GET /bad HTTP/1.1\r\nHost: a\r\n\n",
    "an end of head of LF and CRLF": b"GET /bad HTTP/1.1\r\nHost: a\n\r\n",
    "a bare CR in a value": get(b"Host: a\r\nX: a\rb"),
    "a bare CR between headers": get(b"Host: a\rX: b"),
    "two CRs": get(b"Host: a\r\r\nX: b"),
    "a bare CR in the request line": b"GET /bad\rHTTP/1.1\r\nHost: a\r\n\r\n",
    "a space before the first header": get(b" Host: a"),
    "a tab before the first header": get(b"\tX: y\r\nHost: a"),
    "a folded header": get(b"Host: a\r\nX: y\r\n z"),
    "a header folded by a tab": get(b"Host: a\r\nX: y\r\n\tz"),
    "a space before the colon": get(b"Host: a\r\nX : y"),
    "a space in a name": get(b"Host: a\r\nX y: z"),
    "no colon": get(b"Host: a\r\nX"),
    "no name": get(b"Host: a\r\n: x"),
    "a bracket in a name": get(b"Host: a\r\nX(: y"),
    "a high byte in a name": get(b"Host: a\r\nX\xff: y"),
    "a NUL in a name": get(b"Host: a\r\nX\x00: y"),
    "a NUL in a value": get(b"Host: a\r\nX: a\x00b"),
    "a delete in a value": get(b"Host: a\r\nX: a\x7fb"),
}

FIRST_LINES = {
    name: line + b"\r\nHost: a\r\n\r\n"
    for name, line in {
        "HTTP/0.9 in full": b"GET /bad HTTP/0.9",
        "HTTP/1.2": b"GET /bad HTTP/1.2",
        "HTTP/2.0": b"GET /bad HTTP/2.0",
        "HTTP/1": b"GET /bad HTTP/1",
        "HTTP/11.1": b"GET /bad HTTP/11.1",
        "http/1.1": b"GET /bad http/1.1",
        "a space in the version": b"GET /bad HTTP/ 1.1",
        "a space behind the version": b"GET /bad HTTP/1.1 ",
        "GET of ICE": b"GET /bad ICE/1.0",
        "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a method in small letters": b"get /bad HTTP/1.1",
        "a method nobody knows": b"BREW /bad HTTP/1.1",
        "a space before the method": b" GET /bad HTTP/1.1",
        "a tab behind the method": b"GET\t/bad HTTP/1.1",
        "a tab behind the target": b"GET /bad\tHTTP/1.1",
        "a space in the target": b"GET /b ad HTTP/1.1",
        "a NUL in the target": b"GET /b\x00ad HTTP/1.1",
        "a control character in the target": b"GET /b\x01ad HTTP/1.1",
        "a delete in the target": b"GET /b\x7fad HTTP/1.1",
        "no target": b"GET HTTP/1.1",
        "an empty target": b"GET  HTTP/1.1",
        "a target that is no path": b"GET bad HTTP/1.1",
        "an asterisk for GET": b"GET * HTTP/1.1",
        "an authority for GET": b"GET a:80 HTTP/1.1",
        "a fragment": b"GET /bad#x HTTP/1.1",
    }.items()
} | {
    "HTTP/0.9": b"GET /bad\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 20,
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}

HOSTS = {
    name: get(lines)
    for name, lines in {
        "no Host": b"X: y",
        "two Hosts": b"Host: a\r\nHost: b",
        "the same Host twice": b"Host: a\r\nX: y\r\nhost: a",
        "a space in Host": b"Host: a b",
        "a path in Host": b"Host: a/b",
        "a user in Host": b"Host: u@a",
        "a backslash in Host": b"Host: a\\b",
        "a high byte in Host": b"Host: \xe4",
        "a list in Host": b"Host: a, b",
        "Host with an open bracket": b"Host: [::1",
        "Host with letters for a port": b"Host: a:b",
    }.items()
}

CHUNKS = {
    name: chunked(body)
    for name, body in {
        "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
        "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
        "0x before a size": b"0x5\r\nhello\r\n0\r\n\r\n",
        "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
        "a space before a size": b" 5\r\nhello\r\n0\r\n\r\n",
        "a tab behind a size": b"5\t\r\nhello\r\n0\r\n\r\n",
        "a space behind a size": b"5 \r\nhello\r\n0\r\n\r\n",
        "no size": b"\r\nhello\r\n0\r\n\r\n",
        "a size that is none": b"zz\r\nhello\r\n0\r\n\r\n",
        "a size over 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        "a size with a bare LF": b"5\nhello\r\n0\r\n\r\n",
        "a size with a bare CR": b"5\rhello\r\n0\r\n\r\n",
        "a chunk without its end": b"5\r\nhello0\r\n\r\n",
        "a chunk with a bare LF behind it": b"5\r\nhello\n0\r\n\r\n",
        "a chunk longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
        "a chunk shorter than its size": b"7\r\nhello\r\n0\r\n\r\nGET",
        "an extension with a bare LF": b"5;a=b\nhello\r\n0\r\n\r\n",
        "an extension with a bare CR": b"5;a=b\rc\r\nhello\r\n0\r\n\r\n",
        "an extension with a NUL": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
        "an end with a bare LF": b"0\r\n\n",
        "a last size with a bare LF": b"0\n\r\n",
        "a trailer without a colon": b"0\r\nX\r\n\r\n",
        "a trailer with a bare LF": b"0\r\nX: y\n\r\n",
        "a trailer with a space before its colon": b"0\r\nX : y\r\n\r\n",
        "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
        "a NUL in a trailer": b"0\r\nX: \x00\r\n\r\n",
    }.items()
}

BAD = LENGTHS | CODINGS | LINES | FIRST_LINES | HOSTS | CHUNKS
OTHER_STATUS = dict.fromkeys(("HTTP/0.9", "HTTP/0.9 in full", "HTTP/2.0"), 505)

# Odd, but to be read in one way only.
PLAIN = {
    "chunked in capitals": (post(b"Transfer-Encoding: CHUNKED", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "a space behind chunked": (post(b"Transfer-Encoding: chunked ", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "blanks before chunked": (post(b"Transfer-Encoding:\t chunked", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "zeros before a size": (chunked(b"0005\r\nhello\r\n000\r\n\r\n"), b"hello"),
    "a size in small letters": (chunked(b"a\r\nhellohello\r\n0\r\n\r\n"), b"hellohello"),
    "an extension": (chunked(b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'), b"hello"),
    "zeros before a length": (post(b"Content-Length: 0005"), b"hello"),
    "blanks around a length": (post(b"Content-Length:\t 5 \t"), b"hello"),
    "an empty line before the request": (b"\r\n" + post(b"Content-Length: 5"), b"hello"),
    "a get with a body": (get(b"Host: a\r\nContent-Length: 5") + b"hello", b"hello"),
    "a body that looks like a request": (post(b"Content-Length: %d" % len(CANARY), CANARY), CANARY),
    "chunks that look like a request": (chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(CANARY), CANARY)), CANARY),
    "an absolute target": (b"GET http://a/bad HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "two spaces in the request line": (b"GET  /bad  HTTP/1.1\r\nHost: a\r\n\r\n", b""),  # RFC 9112, 3 allows it
    "a Host that is an IPv6 address": (get(b"Host: [::1]:80"), b""),
    "a Host between blanks": (get(b"Host: \t a \t "), b""),
    "an empty Host": (get(b"Host:"), b""),
    "quite a Host": (get(b"Host: A-z_0.9~!$&'()*+;=%41:"), b""),
}


def answer(request: Request) -> Response:
    seen.append((request.raw_path.decode("latin-1"), request.body))
    return Response(200, b"%b %b" % (request.raw_path, request.body), b"text/plain")


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(lambda: Server(answer, limits=LIMITS)) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def told(server: Server, *pieces: bytes) -> tuple[bytes, bool]:
    """Return what a server answers to these pieces on one connection, and whether it then closes."""
    connection, wire = Connection(server), Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    return wire.written, wire.ended


def knowing() -> Server:
    """Return a server that has seen the good heads before, and every head whose request it takes."""
    server = Server(answer, limits=LIMITS)
    for request in (GOOD, GOOD_POST):
        told(server, request, request)
    return server


def cuts(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the data in two pieces, cut at each place, and byte by byte."""
    yield from ((data[:place], data[place:]) for place in range(1, len(data)))
    yield tuple(data[place : place + 1] for place in range(len(data)))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    "before", [[], [GOOD], [GOOD_POST, GOOD_POST], [GOOD, GOOD, GOOD]], ids=["first", "after one", "known", "after three"]
)
def test_what_is_ambiguous_is_refused_closed_and_nothing_after_it_is_answered(server: Serving, name: str, before: list[bytes]) -> None:
    with RawPeer(server.port) as peer:
        for request in before:
            peer.send(request)
            assert peer.answer().status == 200
        peer.send(BAD[name] + CANARY)
        got: RawAnswer = peer.answer()
        assert got.status == OTHER_STATUS.get(name, 400)
        assert got.headers["connection"] == "close"
        assert set(got.json()) == {"Error", "Message"}
        assert peer.closed()
    assert [path for path, _ in seen] == ["/good"] * len(before)


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_however_it_is_cut_and_whatever_is_known(name: str) -> None:
    for server in (Server(answer, limits=LIMITS), knowing()):
        good = told(server, GOOD)[0]
        expected = told(server, BAD[name] + CANARY)
        assert expected[1]
        seen.clear()
        for pieces in cuts(BAD[name] + CANARY):
            assert told(server, *pieces) == expected
        assert seen == []
        for pieces in ((GOOD + BAD[name] + CANARY,), (GOOD + BAD[name], CANARY), (GOOD, GOOD[:9], GOOD[9:] + BAD[name] + CANARY)):
            seen.clear()
            written, ended = told(server, *pieces)
            assert (written, ended) == (good * len(seen) + expected[0], True)
            assert {path for path, _ in seen} == {"/good"}


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_plain_is_one_request_however_it_is_cut_and_whatever_is_known(name: str) -> None:
    request, body = PLAIN[name]
    target = request.split()[1].decode()
    expected = told(Server(answer, limits=LIMITS), request + CANARY)
    for server in (Server(answer, limits=LIMITS), knowing()):
        for pieces in ((request + CANARY,), (request, CANARY), (request, request + CANARY), *cuts(request + CANARY)):
            seen.clear()
            written, ended = told(server, *pieces)
            assert seen == [(target, body)] * (len(seen) - 1) + [("/canary", b"")]
            assert (written, ended) == (expected[0][: expected[0].rindex(b"HTTP/1.1")] * (len(seen) - 2) + expected[0], False)


@pytest.mark.parametrize("line", [b"DESCRIBE /bad RTSP/1.0", b"OPTIONS /bad RTSP/1.0", b"SOURCE /bad ICE/1.0"])
def test_what_llhttp_reads_as_a_relative_of_http_is_one_last_request(line: bytes) -> None:
    written, ended = told(knowing(), line + b"\r\nHost: a\r\n\r\n" + CANARY)
    assert (written.count(b"HTTP/1.1 "), ended, seen[-1]) == (1, True, ("/bad", b""))


def test_a_known_head_with_another_body_is_another_request() -> None:
    server = knowing()
    head = GOOD_POST[:-5]
    seen.clear()
    told(server, head + b"HELLO", head + b"GET /", head, b"world", head + b"wor", b"ld" + head + b"after")
    assert seen == [("/good", body) for body in (b"HELLO", b"GET /", b"world", b"world", b"after")]


def test_a_known_head_inside_a_body_is_body() -> None:
    server = knowing()
    seen.clear()
    told(server, post(b"Content-Length: %d" % (2 * len(GOOD)), b""), GOOD, GOOD, GOOD)
    told(server, post(b"Transfer-Encoding: chunked", b"%x\r\n" % len(GOOD)), GOOD, b"\r\n0\r\n\r\n", GOOD)
    told(server, b"POST /bad HTTP/1.1\r\nHost: a\r\nX: ", GOOD_POST)
    assert seen == [("/bad", GOOD + GOOD), ("/good", b""), ("/bad", GOOD), ("/good", b"")]


def test_what_is_pipelined_behind_the_last_answer_of_a_server_that_stops_is_not_acted_upon() -> None:
    server = Server(answer, limits=LIMITS)
    server.stopping = True
    written, ended = told(server, GOOD + CANARY)
    assert (written.count(b"HTTP/1.1 "), ended, seen) == (1, True, [("/good", b"")])


def test_trailers_do_not_become_headers() -> None:
    got: list[list[tuple[bytes, bytes]]] = []

    def keep(request: Request) -> Response:
        got.append(request.headers)
        return Response()

    lines = b"Authorization: Bearer x\r\nHost: b\r\nX: y\r\nExpect: 100-continue\r\n"
    written, ended = told(Server(keep, limits=LIMITS), chunked(b"5\r\nhello\r\n0\r\n" + lines + b"\r\n") + CANARY)
    assert (written.count(b"HTTP/1.1 200"), ended) == (2, False)
    assert got == [[(b"host", b"a"), (b"transfer-encoding", b"chunked")], [(b"host", b"a")]]


@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, x", b""])
def test_an_expectation_that_is_not_known_does_not_change_what_is_read(value: bytes) -> None:
    written, ended = told(Server(answer, limits=LIMITS), post(b"Content-Length: 5\r\nExpect: " + value) + CANARY)
    assert (seen, ended) == ([("/bad", b"hello"), ("/canary", b"")], False)
    assert b" 100 " not in written
