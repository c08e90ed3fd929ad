"""The sidecar's two listeners: what they answer, byte for byte, and whom they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from listeners_bench import FULL, Bench, error

from pillion_common import __version__
from pillion_log.entries import MAX_LINE_BYTES


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.spool):
        yield bench


# The local listener: lookups.


def test_a_provider_as_json(bench: Bench) -> None:
    bench.provide("http://10.0.0.7:6000")
    answer = bench.ask("GET", "/providers/GradingService")
    assert (answer.status, answer.content_type) == (200, b"application/json")
    assert answer.body == (
        b'{"Name": "GradingService", "URL": "http://10.0.0.7:6000", "InstanceID": "g", "Zone": "z1", "Version": null, '
        b'"Stale": true, "Age": 4.2}\n'
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
    bench.ask("POST", "/services", FULL.replace("[{", '[],"X":[{').encode(), peer=True)
    assert bench.ask("GET", "/providers/Db?all=1&format=text").body == b""


def test_the_choice_is_the_random_sources(bench: Bench) -> None:
    bench.provide("http://a:1", "http://b:1")
    assert bench.ask("GET", "/providers/GradingService?strategy=random", accept="text/plain").body == b"http://b:1\n"
    assert error(bench.ask("GET", "/providers/GradingService?strategy=best")) == (400, "unknown_strategy")


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


def test_a_line_over_64_kb_is_cut_with_a_mark(bench: Bench) -> None:
    assert bench.ask("POST", "/log", b"x" * 100_000).status == 200
    [(_, line)] = bench.spool.peek(10, 1 << 20)
    entry = json.loads(line)
    assert len(line) <= 64 * 1024
    assert entry["Message"].endswith(f"x…[cut: {entry['Cut']} bytes]")
    assert entry["Cut"] > 100_000 - 64 * 1024


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
        "Draining": False,
        "App": {**bench.check.shown(), "State": "starting", "Reason": "it was not checked yet", "Check": "tcp"},
        "Registry": {"Registered": False, "Classic": False, "Fault": "it has not registered yet", "HeardSecondsAgo": 0.0, "Stale": True},
        "Missing": {"GradingService": "0 of 1", "Db": "0 of 2"},
        "Undeclared": [],
        "Spool": {"Waiting": 0, "Bytes": 0, "Dropped": 0},
    }


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/providers"), ("DELETE", "/providers/Db"), ("GET", "/log"), ("PUT", "/livez"), ("GET", "/drain")]
)
def test_a_wrong_method_is_told_the_right_one(bench: Bench, method: str, target: str) -> None:
    answer = bench.ask(method, target)
    assert error(answer) == (405, "method_not_allowed")
    assert answer.headers == {b"Allow": b"POST" if target in ("/log", "/drain") else b"GET, HEAD"}


@pytest.mark.parametrize("target", ["/", "/nothing", "/wait/", "/log/", "/heartbeat", "/services"])
def test_what_is_not_there_is_404(bench: Bench, target: str) -> None:
    assert bench.ask("GET", target).status == 404


def test_the_metrics(bench: Bench) -> None:
    bench.provide("http://a:1", "http://b:1")
    answer = bench.ask("GET", "/metrics")
    assert (answer.status, answer.content_type) == (200, b"text/plain; version=0.0.4; charset=utf-8")
    lines = answer.body.decode().splitlines()
    assert 'pillion_providers{name="GradingService"} 2' in lines
    assert 'pillion_providers{name="Db"} 0' in lines
    assert "pillion_table_stale 1" in lines
    assert "pillion_app_up 0" in lines
    assert sum(line.startswith("# TYPE pillion_providers ") for line in lines) == 1
    assert answer.body.endswith(b"\n")


def test_a_drain_says_who_knows(bench: Bench) -> None:
    assert json.loads(bench.ask("POST", "/drain").body) == {"State": "draining", "Acknowledged": 2, "Waiting": ["a"]}
    bench.drained = None  # a classic registry does not say
    assert json.loads(bench.ask("POST", "/drain").body) == {"State": "draining", "Acknowledged": None, "Waiting": []}
    assert json.loads(bench.ask("POST", "/undrain").body) == {"State": "registered"}
    bench.undrain_fault = "it is away"
    answer = bench.ask("POST", "/undrain")
    assert error(answer) == (502, "registry")
    assert "it is away" in json.loads(answer.body)["Message"]


def test_a_shutdown_is_that_of_sigterm(bench: Bench) -> None:
    assert json.loads(bench.ask("POST", "/shutdown").body) == {"State": "stopping"}
    assert bench.shut == 1


def test_only_so_many_event_streams(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.local.events.MAX_STREAMS", 0)
    assert error(bench.ask("GET", "/events")) == (503, "too_many_streams")
    assert error(bench.ask("GET", "/events?name=Db")) == (400, "invalid_query")
