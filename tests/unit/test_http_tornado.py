"""A Tornado application behind the core: framing, errors, probes, and bodies that Tornado itself would parse."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from programs import eventually
from raw_http import RawPeer, Serving, request, serving
from tornado.iostream import StreamClosedError

from pillion_common.errors import Conflict, InvalidInput
from pillion_common.http.server import Server
from pillion_common.http.tornado_bridge import TornadoBridge
from pillion_common.http.tornado_handlers import Application, BaseHandler
from pillion_common.lifecycle import Readiness

gone: list[str] = []


class Echo(BaseHandler):
    def get(self) -> None:
        self.write(f"GET {self.get_query_argument('q', '')}")

    async def post(self) -> None:
        await asyncio.sleep(0)
        self.write(self.request.body)


class Fails(BaseHandler):
    def get(self) -> None:
        raise Conflict("it does not fit")

    def post(self) -> None:
        raise RuntimeError("a secret detail")

    def delete(self) -> None:
        raise InvalidInput("no \u2028 good: ä", field="Name")


class Streams(BaseHandler):
    async def get(self) -> None:
        for piece in (b"one,", b"two,", b"three"):
            self.write(piece)
            await self.flush()


class Endless(BaseHandler):
    async def get(self) -> None:
        try:
            while True:
                self.write(b"x" * 100_000)
                await self.flush()
        except StreamClosedError:
            gone.append("endless")
            raise


class Promises(BaseHandler):
    def get(self) -> None:
        self.set_header("Content-Length", self.get_query_argument("length"))
        self.write(b"five5")


class Slow(BaseHandler):
    async def get(self) -> None:
        await asyncio.sleep(0.2)
        self.write(b"slow")

    def on_connection_close(self) -> None:
        gone.append("gone")


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    readiness = Readiness()
    readiness.add("store", lambda: None)
    routes = [
        ("/echo", Echo),
        ("/fails", Fails),
        ("/streams", Streams),
        ("/slow", Slow),
        ("/endless", Endless),
        ("/promises", Promises),
    ]
    with serving(lambda: Server(streaming=TornadoBridge(Application(routes, readiness)))) as running:
        yield running


@pytest.fixture
def peer(server: Serving) -> Iterator[RawPeer]:
    with RawPeer(server.port) as peer:
        yield peer


def test_keep_alive_and_pipelining_keep_their_order(peer: RawPeer) -> None:
    peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + b"".join(b"GET /echo?q=%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(30)))
    assert peer.answer().body == b"slow"
    for number in range(30):
        assert peer.answer().body == b"GET %d" % number


def test_a_streamed_answer_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0(server: Serving) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"GET /streams HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        got = peer.answer()
        assert (got.headers["transfer-encoding"], got.body) == ("chunked", b"one,two,three")
        assert peer.answer().body == b"GET "
    with RawPeer(server.port) as peer:
        peer.send(b"GET /streams HTTP/1.0\r\n\r\n")
        got = peer.answer()
        assert ("transfer-encoding" in got.headers, got.body) == (False, b"one,two,three")


def test_head_is_get_without_a_body(peer: RawPeer) -> None:
    peer.send(b"HEAD /echo?q=x HTTP/1.1\r\nHost: a\r\n\r\nHEAD /streams HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
    first = peer.answer(head_only=True)
    assert (first.status, first.headers["content-length"]) == (200, "5")
    assert peer.answer(head_only=True).status == 200
    assert peer.answer().body == b"GET "


def test_a_chunked_body_arrives_whole(server: Serving) -> None:
    got = request(server.port, "POST", "/echo", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert got.body == b"abcde"


def test_an_own_error_is_answered_as_the_protocol_has_it(server: Serving) -> None:
    got = request(server.port, "GET", "/fails")
    assert (got.status, got.json()) == (409, {"Error": "conflict", "Message": "it does not fit"})
    assert got.headers["content-type"] == "application/json"
    got = request(server.port, "DELETE", "/fails")
    assert got.json() == {"Error": "invalid_input", "Message": "no \u2028 good: ä", "Field": "Name"}


def test_a_fault_is_500_without_its_details_and_the_connection_goes_on(peer: RawPeer) -> None:
    peer.send(b"POST /fails HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
    got = peer.answer()
    assert (got.status, got.json()["Error"]) == (500, "internal")
    assert b"secret" not in got.body
    assert peer.answer().body == b"GET "


def test_404_and_405_say_what_to_do(server: Serving) -> None:
    got = request(server.port, "GET", "/nowhere")
    assert (got.status, got.json()["Error"]) == (404, "no_such_path")
    got = request(server.port, "PUT", "/echo", b"x")
    assert (got.status, got.json()["Error"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(got.headers["allow"].split(", "))
    assert request(server.port, "HEAD", "/nowhere").status == 404


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_are_405(server: Serving, method: str) -> None:
    assert request(server.port, method, "/echo").status == 405


def test_the_servers_make_is_not_told(server: Serving) -> None:
    assert "server" not in request(server.port, "GET", "/echo").headers


def test_probes(server: Serving) -> None:
    assert request(server.port, "GET", "/livez").json() == {"Status": "ok"}
    assert request(server.port, "GET", "/readyz").json() == {"Status": "ok", "Checks": {"store": "ok"}}
    assert set(request(server.port, "GET", "/version").json()) == {"Version"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b'{"a":"%zz&=;b"}'),
        ("application/x-www-form-urlencoded", b"\xff\xfe=%ff"),
        ("text/plain; charset=no-such", b"abc"),
        ("", b"abc"),
    ],
)
def test_a_body_is_given_as_it_is_whatever_its_content_type_says(server: Serving, kind: str, body: bytes) -> None:
    got = request(server.port, "POST", "/echo", body, f"Content-Type: {kind}")
    assert (got.status, got.body) == (200, body)


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("Content-Type: multipart/form-data", b'{"a":1}'),
        ("Content-Type: multipart/form-data; boundary=x", b'{"a":1}'),
        ("Content-Type: multipart/form-data; boundary=", b'{"a":1}'),
        ("Content-Type: multipart/form-data; boundary=x", b"--x\r\nno header end--x--\r\n"),
        ("Content-Type: multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
        ("Content-Type: application/x-www-form-urlencoded", b"&".join(b"a=%d" % n for n in range(5000))),
        ("Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding: gzip", b"abc"),
    ],
)
def test_a_body_that_tornado_cannot_parse_is_taken_or_refused_with_a_reason(server: Serving, line: str, body: bytes) -> None:
    got = request(server.port, "POST", "/echo", body, line)
    assert got.body == body if got.status == 200 else got.status in (400, 415) and got.json()["Message"]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ),
        pytest.param(
            b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
        ),
        pytest.param(
            b"GET /echo HTTP/1.1\r\nHost: a/b,c\r\n\r\n",
        ),
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        b'GET /echo HTTP/1.1\r\nHost: a\r\nCookie: \xff=;;="\r\n\r\n',
        b"GET /echo?q=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /echo?q=\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        pytest.param(
            b"GET /echo?" + b"&".join(b"a%d=1" % n for n in range(2000)) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        b"GET /\xff%ff%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_a_strange_head_is_answered_and_is_never_a_fault(peer: RawPeer, head: bytes) -> None:
    peer.send(head)
    assert peer.answer().status < 500


def test_a_handler_learns_that_its_client_has_gone(server: Serving) -> None:
    gone.clear()
    with RawPeer(server.port) as peer:
        peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.answer()
        # A reset, for a client that only closes its side may still wait for its answer.
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: gone, 2.0)
    assert gone == ["gone"]


def test_a_handler_that_writes_to_nobody_ends_and_is_no_fault(server: Serving, caplog: pytest.LogCaptureFixture) -> None:
    gone.clear()
    with RawPeer(server.port) as peer:
        peer.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.socket.recv(1000)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: gone, 2.0)
    assert gone == ["endless"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("pillion") and record.levelname == "ERROR"] == []


@pytest.mark.parametrize("target", ["/promises?length=4", "/promises?length=6", "/promises?length=five"])
def test_an_answer_that_cannot_be_framed_is_never_taken_for_whole(server: Serving, target: str) -> None:
    with pytest.raises((EOFError, ConnectionResetError)):
        request(server.port, "GET", target)


def test_shutdown_finishes_the_answer_under_way() -> None:
    with serving(lambda: Server(streaming=TornadoBridge(Application([("/slow", Slow)], Readiness())))) as running:
        with RawPeer(running.port) as peer:
            peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            peer.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.answer()
            ending = running.close_soon()
            peer.socket.settimeout(5)
            assert peer.answer().body == b"slow"
        ending.result(5)
