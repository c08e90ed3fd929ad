"""Whom the sidecar's listeners refuse, and the peer listener's answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from listeners_bench import FULL, SECRET, Bench, error

from pillion_common.config import Address
from pillion_common.http.server import Server
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.check.looks import PASS, WARN, Finding


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.spool):
        yield bench


# Who may ask.


@pytest.mark.parametrize("host", ["127.0.0.1:7071", "localhost:7071", "LocalHost:7071", "[::1]:7071"])
def test_hosts_that_name_the_listener(bench: Bench, host: str) -> None:
    assert bench.ask("GET", "/livez", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:80",
        "evil.example",
        "evil.example:7071",
        "localhost.evil.example:7071",
        "127.0.0.1:7071.evil",
        "127.1:7071",
    ],
)
def test_any_other_host_is_refused(bench: Bench, host: str) -> None:
    answer = bench.ask("POST", "/log", b"a", host=host)
    assert error(answer) == (421, "wrong_host")
    assert "use 127.0.0.1 or localhost" in json.loads(answer.body)["Message"]
    assert bench.spool.waiting == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:7071"},
        {"origin": "http://127.0.0.1:8080"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_another_sites_page_is_refused(bench: Bench, headers: dict[str, str]) -> None:
    assert error(bench.ask("POST", "/log", b"a", **headers)) == (403, "cross_site")
    assert bench.spool.waiting == 0


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://127.0.0.1:7071", "sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"user_agent": "curl/8"}],
)
def test_the_app_and_the_listeners_own_page_may_ask(bench: Bench, headers: dict[str, str]) -> None:
    assert bench.ask("POST", "/log", b"a", **headers).status == 200


# The peer listener.


def test_the_heartbeat_is_the_apps(bench: Bench) -> None:
    answer = bench.ask("GET", "/heartbeat", peer=True)
    assert answer.status == 503
    assert json.loads(answer.body) == {"State": "starting", "Reason": "it was not checked yet"}
    bench.check._note(Finding(WARN, "the disk is nearly full"))
    answer = bench.ask("GET", "/heartbeat", peer=True, host="anything")
    assert (answer.status, json.loads(answer.body)) == (200, {"State": "up", "Reason": "the disk is nearly full"})
    bench.check._note(Finding(PASS))
    assert json.loads(bench.ask("GET", "/heartbeat", peer=True).body) == {"State": "up"}


def test_a_patch_is_taken_in_and_told(bench: Bench) -> None:
    answer = bench.ask("POST", "/services", FULL.encode(), peer=True)
    assert (answer.status, answer.body) == (200, b"")
    assert bench.changes == [["Db"]]
    assert [entry.url for entry in bench.table.all("Db")] == ["http://10.0.0.7:5432"]


def test_a_gap_is_409(bench: Bench) -> None:
    answer = bench.ask("POST", "/services", b'{"Added":[],"Removed":[],"Revision":9,"Previous":8,"Epoch":"e"}', peer=True)
    assert error(answer) == (409, "gap")
    assert bench.changes == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"Added":7}', b'{"Added":[{"Name":"Db"}]}', b"\xff", b'{"Added":NaN}', b"[" * 100_000]
)
def test_a_bad_patch_is_400(bench: Bench, body: bytes) -> None:
    answer = bench.ask("POST", "/services", body, peer=True)
    assert answer.status == 400
    assert json.loads(answer.body)["Error"] in ("invalid_json", "invalid_body")
    assert bench.changes == []


@pytest.mark.parametrize("target", ["/livez", "/readyz", "/metrics"])
def test_the_peer_listener_answers_probes_as_the_local_one_does(bench: Bench, target: str) -> None:
    answer = bench.ask("GET", target, peer=True, host="10.0.0.7:7070")
    assert (answer.status, answer.body) == (200, bench.ask("GET", target).body)
    assert bench.ask("POST", target, peer=True).status == 405


@pytest.mark.parametrize(
    ("method", "target", "status"), [("POST", "/heartbeat", 405), ("GET", "/services", 405), ("GET", "/status", 404), ("POST", "/log", 404)]
)
def test_the_peer_listener_does_nothing_else(bench: Bench, method: str, target: str, status: int) -> None:
    assert bench.ask(method, target, b"{}", peer=True).status == status


def test_patches_need_the_token_and_heartbeats_do_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Token(SECRET))
    with closing(bench.spool):
        assert error(bench.ask("POST", "/services", FULL.encode(), peer=True)) == (401, "token_missing")
        assert error(bench.ask("POST", "/services", FULL.encode(), peer=True, authorization="Bearer wrong")) == (403, "token_wrong")
        assert error(bench.ask("POST", "/services", b"{", peer=True)) == (401, "token_missing"), "who has no token is told nothing more"
        assert bench.changes == []
        assert bench.ask("POST", "/services", FULL.encode(), peer=True, authorization=f"Bearer {SECRET}").status == 200
        assert bench.ask("GET", "/heartbeat", peer=True).status == 503


async def test_over_a_real_socket_the_answers_are_the_same_bytes(bench: Bench) -> None:
    bench.provide("http://10.0.0.7:6000")
    server = Server(route=bench.local)
    server.date = b"Sat, 31 Jan 2026 12:00:00 GMT"
    port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port

    async def exchange(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    head = b"Host: 127.0.0.1:7071\r\nConnection: close\r\n"
    date = b"Date: Sat, 31 Jan 2026 12:00:00 GMT\r\n"
    assert await exchange(b"GET /providers/GradingService HTTP/1.1\r\nAccept: text/plain\r\n" + head + b"\r\n") == (
        b"HTTP/1.1 200 OK\r\n" + date + b"Content-Length: 21\r\nContent-Type: text/plain; charset=utf-8\r\nAge: 4\r\n"
        b"Connection: close\r\n\r\nhttp://10.0.0.7:6000\n"
    )
    assert await exchange(b"POST /log HTTP/1.1\r\nContent-Length: 2\r\n" + head + b"\r\nhi") == (
        b"HTTP/1.1 200 OK\r\n" + date + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert (await exchange(b"POST /log HTTP/1.1\r\nContent-Length: 2000000\r\n" + head + b"\r\n")).startswith(b"HTTP/1.1 413 ")
    await server.close(0.1)


def test_every_error_of_the_local_listener_says_what_to_do(bench: Bench) -> None:
    answers: list[Any] = [bench.ask("GET", "/x"), bench.ask("PUT", "/log"), bench.ask("POST", "/log"), bench.ask("GET", "/livez", host="x")]
    for answer in answers:
        told = json.loads(answer.body)
        assert set(told) <= {"Error", "Message", "Field"}
        assert len(told["Message"]) > 15
