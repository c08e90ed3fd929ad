"""The server's bounds: sizes, times, numbers. Each is refused with a reason, and nobody else suffers."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from raw_http import RawPeer, Serving, serving

from pillion_common.http import server as server_module
from pillion_common.http.interfaces import Limits
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server

SMALL = Limits(
    head_bytes=2000, head_count=20, body_bytes=1000, connections=3, head_s=0.2, body_s=0.2, idle_s=0.4, write_s=0.4, linger_s=0.3
)
GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 4_000_000


def answer(request: Request) -> Response:
    return Response(200, b"x" * LARGE if request.path == "/large" else request.body, b"text/plain")


@pytest.fixture(autouse=True)
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SWEEP_S", 0.02)


@contextmanager
def limited(**limits: float) -> Iterator[Serving]:
    with serving(lambda: Server(answer, limits=dataclasses.replace(SMALL, **limits))) as running:  # type: ignore[arg-type]
        yield running


def test_a_body_at_the_bound_is_taken() -> None:
    with limited() as server, RawPeer(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert len(peer.answer().body) == 1000


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"x" * 500 + b"\r\n" + b"1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n",
    ],
    ids=["length", "huge length", "expect", "chunked"],
)
def test_a_body_over_the_bound_is_413_or_400_and_closed(head: bytes) -> None:
    with limited() as server, RawPeer(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head)
        got = peer.answer()
        # A length that no 64 bits hold is not a valid number to the parser.
        assert got.status == (400 if b"99999999999999999999" in head else 413)
        assert set(got.json()) == {"Error", "Message"}
        assert got.headers["connection"] == "close"
        assert peer.closed()


def test_a_client_that_is_still_sending_sees_the_413() -> None:
    with limited(linger_s=5.0) as server, RawPeer(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(200):
            peer.send(b"x" * 100_000)
        assert peer.answer().json()["Error"] == "too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 2100 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(30)) + b"\r\n",
    ],
    ids=["target", "header", "count"],
)
def test_a_head_over_the_bound_is_431_and_closed(data: bytes) -> None:
    with limited() as server, RawPeer(server.port) as peer:
        peer.send(data)
        got = peer.answer()
        assert (got.status, got.json()["Error"]) == (431, "head_too_large")
        assert peer.closed()


def test_a_head_without_end_is_431() -> None:
    with limited(head_s=5.0) as server, RawPeer(server.port) as peer:
        for _ in range(100):
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" if _ == 0 else b"X: " + b"y" * 60 + b"\r\n")
            time.sleep(0.001)
            if _ > 30:
                break
        assert peer.answer().status == 431


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "flood"),
    [
        (b"0\r\n", b"X: y\r\n"),
        (b"0\r\nX: ", b"y" * 100),
        (b"5;", b"a=b;" * 20),
        (b"", b"1;" + b"a" * 1000 + b"\r\nx\r\n"),
    ],
    ids=["many trailers", "one long trailer", "an endless extension", "a long extension for each byte"],
)
def test_what_frames_a_body_is_bounded(begin: bytes, flood: bytes) -> None:
    """Else it costs the reader time, and a trailer memory, as long as the sender likes."""
    with limited(body_s=5.0, linger_s=5.0) as server, RawPeer(server.port) as peer:
        peer.send(CHUNKED + begin)
        time.sleep(0.02)
        for _ in range(100):
            peer.send(flood * 8)
        peer.half_close()
        got = peer.answer()
        assert (got.status, got.json()["Error"]) == (431, "head_too_large")
        assert peer.closed()


def test_a_body_may_come_in_chunks_of_a_byte() -> None:
    with limited(body_s=5.0) as server, RawPeer(server.port) as peer:
        peer.send(CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
        assert peer.answer().body == b"x" * 1000


def test_a_chunk_of_nearly_64_bits_is_refused_at_the_bound() -> None:
    with limited(body_s=5.0, linger_s=5.0) as server, RawPeer(server.port) as peer:
        peer.send(CHUNKED + b"FFFFFFFFFFFFFFFF\r\n" + GET % 1 * 100)
        assert peer.answer().status == 413
        assert peer.closed()


def test_the_bounds_hold_for_each_request_of_a_connection_anew() -> None:
    with limited() as server, RawPeer(server.port) as peer:
        for _ in range(30):
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nX: %b\r\nContent-Length: 900\r\n\r\n" % (b"y" * 1500) + b"x" * 900)
            assert peer.answer().status == 200


def test_a_head_that_does_not_come_ends_the_connection() -> None:
    with limited() as server, RawPeer(server.port) as silent, RawPeer(server.port) as slow:
        slow.send(b"GET / HT")
        started = time.monotonic()
        slow.rest()
        silent.rest()
        assert 0.1 < time.monotonic() - started < 2.0


def test_a_slow_head_is_not_saved_by_a_byte_now_and_then() -> None:
    with limited() as server, RawPeer(server.port) as peer:
        started = time.monotonic()
        try:
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200:
                peer.send(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass  # cut off, as it should
        assert time.monotonic() - started < 2.0


def test_a_body_that_does_not_come_is_told_so() -> None:
    with limited() as server, RawPeer(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        got = peer.answer()
        assert (got.status // 100, got.json()["Error"]) == (4, "request_timeout")
        assert peer.closed()


def test_an_idle_connection_ends_after_its_time_and_not_before() -> None:
    with limited() as server, RawPeer(server.port) as peer:
        for _ in range(3):
            peer.send(GET % 1)
            peer.answer()
            time.sleep(0.2)
        started = time.monotonic()
        assert peer.closed()
        assert time.monotonic() - started < 2.0


def test_a_client_that_never_reads_is_cut_off() -> None:
    with limited(write_s=0.2) as server, RawPeer(server.port) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.0)
        assert len(server.server._connections) == 0


def test_a_large_last_answer_is_whole_for_a_slow_reader() -> None:
    """It takes longer than the linger, but never stands still for longer than the write time-out."""
    with limited(write_s=2.0, linger_s=0.1) as server, RawPeer(server.port) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = b""
        try:
            while piece := peer.socket.recv(100_000):
                got += piece
                time.sleep(0.02)
        except ConnectionResetError:
            pass
        assert len(got.partition(b"\r\n\r\n")[2]) == LARGE


def test_a_client_that_took_a_large_last_answer_and_never_closes_is_let_go() -> None:
    with limited(write_s=2.0, linger_s=0.2) as server, RawPeer(server.port) as peer:
        peer.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(0.05)
        peer.answer()
        time.sleep(0.8)
        assert len(server.server._connections) == 0


def test_a_client_that_took_a_large_answer_and_stays_silent_is_let_go() -> None:
    with limited(write_s=2.0, idle_s=0.2) as server, RawPeer(server.port) as peer:
        peer.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.05)
        peer.answer()
        time.sleep(0.8)
        assert len(server.server._connections) == 0


def test_one_connection_too_many_is_told_so_and_the_others_go_on() -> None:
    with limited(idle_s=5.0, head_s=5.0) as server:
        peers = [RawPeer(server.port) for _ in range(3)]
        for peer in peers:
            peer.send(GET % 1)
            assert peer.answer().status == 200
        with RawPeer(server.port) as extra:
            got = extra.answer()
            assert (got.status, got.json()["Error"], got.headers["retry-after"]) == (503, "too_many_connections", "1")
            assert extra.closed()
        for peer in peers:
            peer.send(GET % 2)
            assert peer.answer().status == 200
            peer.socket.close()
        time.sleep(0.1)
        with RawPeer(server.port) as again:
            again.send(GET % 3)
            assert again.answer().status == 200
