"""The sidecar's two listeners: what they answer, byte for byte, and whom they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pillion_common import __version__, config
from pillion_common.config import Address
from pillion_common.errors import PillionError
from pillion_common.http.message import Request, Response, error_response
from pillion_common.http.server import Server
from pillion_common.lifecycle import Readiness
from pillion_common.models import Patch, ProviderEntry
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_log.entries import MAX_LINE_BYTES
from pillion_sidecar.app_check import AppCheck
from pillion_sidecar.listeners import LocalFace, guard_local, peer_routes
from pillion_sidecar.providers import ProviderTable
from pillion_sidecar.registrar import Registrar
from pillion_sidecar.settings import Settings
from pillion_sidecar.spool import Spool

SECRET = "s3cret-s3cret-s3cret"
HOSTS = frozenset({b"127.0.0.1:7071", b"localhost:7071", b"[::1]:7071"})
FULL = json.dumps({"Added": [{"Name": "Db", "URL": "http://10.0.0.7:5432"}], "Full": True, "Services": ["Db"], "Revision": 3, "Epoch": "e"})


class Bench:
    """Both listeners' routes over real parts, without sockets."""

    def __init__(self, folder: Path, token: Token | None = None) -> None:
        words = ["--name", "Portald", "--port", "5000", "--requires", "GradingService,Db:2"]
        self.settings = config.load(Settings, "sidecar", words, {})
        self.table = ProviderTable({**dict.fromkeys(self.settings.all_required, 0), **self.settings.requires}, lambda below: below - 1)
        self.registrar = Registrar(self.settings, None, lambda: 1000.0)
        self.check = AppCheck(self.settings.check, "127.0.0.1", 5000, interval_s=1, timeout_s=1, on_change=lambda well, reason: None)
        self.spool = Spool(folder / "spool", 1 << 20)
        self.readiness = Readiness()
        self.lines = 0
        self.changes: list[list[str]] = []
        face = LocalFace(self.settings, self.table, self.registrar, self.check, self.spool, self.readiness, self._line)
        self.local = guard_local(face.routes(), lambda: HOSTS)
        self.peer = peer_routes(self.check, self.table, self.registrar, token, self.changes.append)

    def _line(self) -> None:
        self.lines += 1

    def ask(self, method: str, target: str, body: bytes = b"", peer: bool = False, **headers: str) -> Response:
        given = {"host": "127.0.0.1:7071", **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in given.items() if value]
        request = Request(method, target.encode(), raw, "127.0.0.1", "1.1", True)
        request.body = body
        try:
            answer = (self.peer if peer else self.local)(request)
        except PillionError as exc:
            return error_response(exc)
        assert isinstance(answer, Response)
        return answer

    def provide(self, *urls: str) -> None:
        self.table.apply(Patch(added=tuple(ProviderEntry("GradingService", url, instance_id="g", zone="z1") for url in urls)))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.spool):
        yield bench


def error(answer: Response) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["Error"]


# The local listener: lookups.


def test_a_provider_as_json(bench: Bench) -> None:
    bench.provide("http://10.0.0.7:6000")
    answer = bench.ask("GET", "/providers/GradingService")
    assert (answer.status, answer.content_type) == (200, b"application/json")
    assert answer.body == (
        b'{"Name": "GradingService", "URL": "http://10.0.0.7:6000", "InstanceID": "g", "Zone": "z1", "Version": null, "Stale": true}\n'
    )


@pytest.mark.parametrize(
    ("target", "accept"), [("/providers/GradingService", "text/plain"), ("/providers/GradingService?format=text", "*/*")]
)
def test_a_provider_as_text(bench: Bench, target: str, accept: str) -> None:
    bench.provide("http://10.0.0.7:6000")
    answer = bench.ask("GET", target, accept=accept)
    assert (answer.status, answer.content_type, answer.body) == (200, b"text/plain; charset=utf-8", b"http://10.0.0.7:6000\n")


def test_all_providers_of_a_service(bench: Bench) -> None:
    bench.provide("http://a:1", "http://b:1")
    assert bench.ask("GET", "/providers/GradingService?all=1&format=text").body == b"http://a:1\nhttp://b:1\n"
    told = json.loads(bench.ask("GET", "/providers/GradingService?all=1").body)
    assert [entry["URL"] for entry in told["Providers"]] == ["http://a:1", "http://b:1"]
    assert (told["Name"], told["Stale"]) == ("GradingService", True)
    assert bench.ask("GET", "/providers/Db?all=1&format=text").body == b""


def test_the_choice_is_the_random_sources(bench: Bench) -> None:
    bench.provide("http://a:1", "http://b:1")
    assert bench.ask("GET", "/providers/GradingService?strategy=random", accept="text/plain").body == b"http://b:1\n"
    assert error(bench.ask("GET", "/providers/GradingService?strategy=best")) == (400, "unknown_strategy")


def test_no_provider_and_not_required_are_told_apart(bench: Bench) -> None:
    answer = bench.ask("GET", "/providers/GradingService", accept="text/plain")
    assert answer.status == 404
    assert answer.body == b'{"Error": "no_provider", "Message": "no provider of GradingService is up now"}\n'
    answer = bench.ask("GET", "/providers/Mail")
    assert error(answer) == (404, "not_required")
    assert "add it to PILLION_REQUIRES" in json.loads(answer.body)["Message"]


def test_the_whole_table(bench: Bench) -> None:
    bench.provide("http://a:1")
    told = json.loads(bench.ask("GET", "/providers").body)
    assert {name: [entry["URL"] for entry in entries] for name, entries in told["Providers"].items()} == {
        "GradingService": ["http://a:1"],
        "Db": [],
        "LogService": [],
    }
    assert (told["Stale"], told["Revision"]) == (True, None)


# The local listener: log lines.


def test_a_line_goes_into_the_spool_whole(bench: Bench) -> None:
    answer = bench.ask("POST", "/log", "grüße\r\n".encode(), content_type="text/plain")
    assert (answer.status, answer.body) == (200, b"")
    [(_, line)] = bench.spool.peek(10, 1 << 20)
    entry = json.loads(line)
    assert entry.pop("Time").endswith("Z")
    assert entry == {
        "Service": "Portald",
        "Instance": bench.registrar.instance_id,
        "Level": "info",
        "Message": "grüße",
        "Source": bench.spool.source,
        "Seq": 1,
    }
    assert bench.lines == 1


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\r\n"])
def test_an_empty_line_is_refused(bench: Bench, body: bytes) -> None:
    answer = bench.ask("POST", "/log", body)
    assert error(answer) == (400, "empty_body")
    assert bench.spool.waiting == 0


def test_bytes_that_are_no_text_are_kept_as_well_as_they_can_be(bench: Bench) -> None:
    assert bench.ask("POST", "/log", b"a\xff\xfeb\x00").status == 200
    assert json.loads(bench.spool.peek(1, 1)[0][1])["Message"] == "a\ufffd\ufffdb\x00"


def test_a_line_over_64_kb_is_refused(bench: Bench) -> None:
    answer = bench.ask("POST", "/log", b"x" * (64 * 1024 + 1))
    assert error(answer) == (413, "too_large")
    assert bench.spool.waiting == 0


@pytest.mark.parametrize("message", ["x" * 64 * 1024, "\u0001" * 20_000, '"' * 40_000], ids=["64 KB", "control characters", "quotes"])
def test_a_line_that_was_taken_is_one_the_log_service_takes(bench: Bench, message: str) -> None:
    # What is answered 200 here and rejected there is lost.
    answer = bench.ask("POST", "/log", message.encode())
    assert answer.status in (200, 413)
    for _, line in bench.spool.peek(10, 1 << 20):
        assert len(line.rstrip(b"\n")) <= MAX_LINE_BYTES


def test_a_full_disk_is_told_to_the_app(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        answer = bench.ask("POST", "/log", b"a")
    assert error(answer) == (507, "storage_full")
    assert answer.headers == {b"Retry-After": b"5"}
    assert bench.lines == 0


# The local listener: its own state.


def test_probes_and_version(bench: Bench) -> None:
    assert bench.ask("GET", "/livez").body == b'{"Status":"ok"}\n'
    assert bench.ask("GET", "/readyz").status == 200
    bench.readiness.add("app", lambda: "port 5000 took no connection")
    answer = bench.ask("GET", "/readyz")
    assert answer.status == 503
    assert json.loads(answer.body) == {"Status": "not ready", "Checks": {"app": "port 5000 took no connection"}}
    assert json.loads(bench.ask("GET", "/version").body) == {"Version": __version__}


def test_the_status(bench: Bench) -> None:
    assert json.loads(bench.ask("GET", "/status").body) == {
        "Name": "Portald",
        "InstanceID": bench.registrar.instance_id,
        "App": {"State": "down", "Reason": "it was not checked yet"},
        "Registry": {"Registered": False, "Fault": "it has not registered yet", "HeardSecondsAgo": 0.0, "Stale": True},
        "Missing": {"GradingService": "0 of 1", "Db": "0 of 2"},
        "Spool": {"Waiting": 0, "Bytes": 0, "Dropped": 0},
    }


@pytest.mark.parametrize(("method", "target"), [("POST", "/providers"), ("DELETE", "/providers/Db"), ("GET", "/log"), ("PUT", "/livez")])
def test_a_wrong_method_is_told_the_right_one(bench: Bench, method: str, target: str) -> None:
    answer = bench.ask(method, target)
    assert error(answer) == (405, "method_not_allowed")
    assert answer.headers == {b"Allow": b"POST" if target == "/log" else b"GET, HEAD"}


@pytest.mark.parametrize("target", ["/", "/nothing", "/providers/a/b", "/log/", "/heartbeat", "/services"])
def test_what_is_not_there_is_404(bench: Bench, target: str) -> None:
    assert bench.ask("GET", target).status == 404


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
    assert json.loads(answer.body) == {"State": "down", "Reason": "it was not checked yet"}
    bench.check.well = True
    assert bench.ask("GET", "/heartbeat", peer=True, host="anything").status == 200


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
    server = Server(bench.local)
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
        b"HTTP/1.1 200 OK\r\n" + date + b"Content-Length: 21\r\nContent-Type: text/plain; charset=utf-8\r\n"
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
