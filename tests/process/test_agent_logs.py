"""The real agent follows containers' logs at a fake engine, and forwards them to a log service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import registry_lab
import requests
from fake_engine import FakeEngine, fake_engine
from programs import Program, eventually
from sidecar_bench import ASK_S
from stub_log import StubLog, stub_log
from test_agent import agent


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as running:
        yield running


@pytest.fixture
def registry() -> Iterator[Program]:
    with registry_lab.registry("--log-to", "") as running:
        yield running


@pytest.fixture
def log(registry: Program) -> Iterator[StubLog]:
    with stub_log() as running:
        provide(registry, running)
        yield running


def provide(registry: Program, log: StubLog) -> None:
    """Register a log service, for whose heartbeats its own listener answers."""
    body = {
        "ServiceName": "LogService",
        "ServiceURL": log.url,
        "ServiceUpdateURL": f"{log.url}/services",
        "HeartbeatURL": f"{log.url}/beat",
    }
    assert requests.post(f"{registry.url}/services", json=body, timeout=ASK_S).status_code == 200


@contextmanager
def logging_agent(engine: FakeEngine, registry: Program, state: Path, *words: str) -> Iterator[Program]:
    with agent(engine, registry.url, "--logs", "yes", "--state-dir", str(state), *words) as running:
        yield running


def start(engine: FakeEngine, number: int, name: str = "Web") -> str:
    labels = {"pillion.dev/name": name, "pillion.dev/port": "80", "pillion.dev/check": "none"}
    return engine.run(number, f"{name.lower()}-{number}", labels=labels, networks={"n": "127.0.0.1"}, started=now())


def now(nanos: int = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{nanos:09d}Z"


def later(seconds: int, nanos: int = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + seconds)) + f".{nanos:09d}Z"


def test_lines_of_labelled_containers_arrive_with_their_service_stream_and_time(
    engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path
) -> None:
    with logging_agent(engine, registry, tmp_path / "state"):
        web, db = start(engine, 1), start(engine, 2, "Db")
        engine.say(web, "one\n", later(2, 1))
        engine.say(db, "two\n", later(2, 2), 2)
        engine.say(web, "a long ", later(2, 3))
        engine.say(web, "line\n", later(2, 4))
        engine.say(web, "java.lang.Error: x\n", at := later(2, 123_456_789), 2)
        engine.say(web, "\tat a.b(C.java:1)\n", at, 2)
        eventually(lambda: len(log.entries) == 4)
    found = sorted((entry["Service"], entry["Stream"], entry["Level"], entry["Message"]) for entry in log.entries)
    assert found == [
        ("Db", "stderr", "info", "two"),
        ("Web", "stderr", "error", "java.lang.Error: x\n\tat a.b(C.java:1)"),
        ("Web", "stdout", "info", "a long line"),
        ("Web", "stdout", "info", "one"),
    ]
    [trace] = [entry for entry in log.entries if entry["Level"] == "error"]
    assert trace["Time"] == at[:26] + "Z"
    assert {entry["Instance"] for entry in log.entries} == {"Web-000000000001", "Db-000000000002"}


def test_without_the_option_no_log_is_asked_for(engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path) -> None:
    with agent(engine, registry.url):
        web = start(engine, 1)
        engine.say(web, "one\n", later(2))
        eventually(lambda: f"/containers/{web}/json" in engine.asked)
        time.sleep(0.5)
        assert not engine.logs_since
    assert not log.entries


def test_over_kills_of_the_agent_and_cuts_of_the_engine_each_line_arrives_once(
    engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path
) -> None:
    web = ""
    sent: list[str] = []

    def say(count: int) -> None:
        for _ in range(count):  # three of each time, on both streams
            sent.append(f"line {len(sent)}")
            engine.say(web, sent[-1] + "\n", later(5, len(sent) // 3), 1 + len(sent) % 2)

    for part in range(3):
        with logging_agent(engine, registry, tmp_path / "state") as running:
            web = web or start(engine, 1)
            say(100)
            eventually(lambda part=part: len(log.entries) >= 100 * part + 50)
            engine.cut_logs()
            say(100)
            eventually(lambda: log.entries and log.entries[-1]["Message"] != "line 0")
            running.kill()
    with logging_agent(engine, registry, tmp_path / "state"):
        eventually(lambda: len(log.entries) >= len(sent))
        time.sleep(0.5)
    assert sorted(log.messages()) == sorted(sent)
    for stream in ("stdout", "stderr"):
        of_it = [entry["Message"] for entry in log.entries if entry["Stream"] == stream]
        assert of_it == [message for message in sent if message in set(of_it)], "in their order"


def test_a_container_that_came_while_the_agent_was_away_is_heard_from_its_beginning(
    engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path
) -> None:
    old = start(engine, 1, "Old")
    engine.say(old, "before there was an agent\n", later(-60))
    with logging_agent(engine, registry, tmp_path / "state"):
        eventually(lambda: engine.logs_since)
    time.sleep(1.1)  # the times below are whole seconds
    web = start(engine, 2)
    engine.say(web, "while it was away\n", later(0))
    with logging_agent(engine, registry, tmp_path / "state"):
        eventually(lambda: log.messages() == ["while it was away"])


def test_first_lines_that_the_engine_dates_before_the_start_are_heard(
    engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path
) -> None:
    with logging_agent(engine, registry, tmp_path / "state"):
        eventually(lambda: engine.streams)
        engine.say(start(engine, 1), "listening\n", later(-2))
        eventually(lambda: log.messages() == ["listening"])


def test_what_started_together_with_the_first_agent_is_heard_from_its_beginning(
    engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path
) -> None:
    labels = {"pillion.dev/name": "Web", "pillion.dev/port": "80", "pillion.dev/check": "none"}
    web = engine.run(1, "web-1", labels=labels, networks={"n": "127.0.0.1"}, started=later(-20))
    engine.say(web, "first of all\n", later(-19))
    old = engine.run(2, "web-2", labels=labels, networks={"n": "127.0.0.1"}, started=later(-3600))
    engine.say(old, "weeks of it\n", later(-3000))
    with logging_agent(engine, registry, tmp_path / "state"):
        eventually(lambda: log.messages() == ["first of all"])


def test_the_last_words_of_a_container_are_heard(engine: FakeEngine, registry: Program, log: StubLog, tmp_path: Path) -> None:
    with logging_agent(engine, registry, tmp_path / "state"):
        web = start(engine, 1)
        engine.say(web, "begins\n", later(1))
        eventually(lambda: log.messages() == ["begins"])
        engine.say(web, "panic: gone", later(2))
        engine.end(web)
        eventually(lambda: log.messages() == ["begins", "panic: gone"])


def test_while_the_spool_has_no_room_lines_wait_with_the_engine(engine: FakeEngine, registry: Program, tmp_path: Path) -> None:
    sent = [f"line {number} " + "x" * 200 for number in range(2000)]
    with logging_agent(engine, registry, tmp_path / "state", "--spool-size", "64K"), stub_log() as log:
        web = start(engine, 1)
        for number, line in enumerate(sent):
            engine.say(web, line + "\n", later(2, number))
        time.sleep(1.0)
        provide(registry, log)
        eventually(lambda: len(log.entries) >= len(sent), 20.0)
    assert log.messages() == sent
