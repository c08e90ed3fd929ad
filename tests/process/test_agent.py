"""The real agent beside a fake engine and a real registry: containers that come and go, and the ends of the engine and the agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import registry_lab
import requests
from fake_engine import FakeEngine, container_id, fake_engine
from programs import Program, eventually, program
from registry_lab import instances, states, wait_for
from sidecar_bench import ASK_S, App, app, free_port

A, B = container_id(1), container_id(2)
LATE_S = 30.0  # between heartbeats: what is known sooner was told by the agent


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as running:
        yield running


@pytest.fixture
def registry() -> Iterator[Program]:
    with registry_lab.registry("--heartbeat-interval", f"{LATE_S:g}s") as running:
        yield running


@contextmanager
def agent(engine: FakeEngine, registry: str, *words: str) -> Iterator[Program]:
    more = ("--docker", engine.address, "--registry", registry, "--local", "127.0.0.1:0", "--check-interval", "200ms")
    with program("agent", *more, *words) as running:
        yield running


def start(engine: FakeEngine, number: int, running: App, name: str = "Web", **more: Any) -> str:
    labels = {"pillion.dev/name": name, "pillion.dev/port": str(running.port)}
    return engine.run(number, f"shop-{name.lower()}-{number}", labels=labels, networks={"n": "127.0.0.1"}, **more)


def ask(running: Program, path: str) -> requests.Response:
    return requests.get(running.addresses[1] + path, timeout=ASK_S)


def fault(running: Program, check: str) -> str:
    return str(ask(running, "/readyz").json()["Checks"][check])


def test_containers_that_run_already_and_those_that_come_are_up(engine: FakeEngine, registry: Program) -> None:
    with app() as first, app() as second:
        start(engine, 1, first)
        with agent(engine, registry.url) as running:
            wait_for(registry, first.url, "up")
            start(engine, 2, second)
            wait_for(registry, second.url, "up")
            assert {one["InstanceID"] for one in instances(registry, "Web")} == {"Web-000000000001", "Web-000000000002"}
            assert ask(running, "/readyz").json() == {"Status": "ok", "Checks": {"engine": "ok", "registered": "ok"}}
            table = ask(running, "/status?format=text").text
            assert [line.split()[3] for line in table.splitlines()] == ["STATE", "up", "up"]


def test_the_end_of_a_container_is_known_at_once(engine: FakeEngine, registry: Program) -> None:
    with app() as first, app() as second, agent(engine, registry.url):
        start(engine, 1, first)
        start(engine, 2, second)
        wait_for(registry, first.url, "up")
        wait_for(registry, second.url, "up")
        first.kill()  # its connection is cut: known before the engine says so
        wait_for(registry, first.url, "down", 2.0)
        engine.end(A)
        eventually(lambda: first.url not in states(registry), 2.0)
        assert states(registry) == {second.url: "up"}


def test_a_container_that_is_told_to_stop_is_withdrawn_before_it_ends(engine: FakeEngine, registry: Program) -> None:
    with app() as first, agent(engine, registry.url):
        start(engine, 1, first)
        wait_for(registry, first.url, "up")
        engine.tell(A, "kill", signal="15")
        wait_for(registry, first.url, "draining", 2.0)
        engine.end(A)
        eventually(lambda: not states(registry), 2.0)


def test_healthchecks_and_pauses_count(engine: FakeEngine, registry: Program) -> None:
    with app() as first, agent(engine, registry.url):
        start(engine, 1, first, health="starting")
        wait_for(registry, first.url, "starting")
        engine.change(A, "health_status: healthy", Health={"Status": "healthy"})
        wait_for(registry, first.url, "up", 2.0)
        engine.change(A, "health_status: unhealthy", Health={"Status": "unhealthy", "FailingStreak": 3})
        wait_for(registry, first.url, "down", 2.0)
        assert instances(registry)[0]["Reason"] == "its HEALTHCHECK fails"
        engine.change(A, "health_status: healthy", Health={"Status": "healthy"})
        wait_for(registry, first.url, "up", 2.0)
        engine.change(A, "pause", Paused=True)
        wait_for(registry, first.url, "down", 2.0)
        engine.change(A, "unpause", Paused=False)
        wait_for(registry, first.url, "up", 2.0)


def test_without_an_engine_what_is_known_is_kept_and_checked(engine: FakeEngine, registry: Program) -> None:
    with app() as first, app() as second, agent(engine, registry.url) as running:
        start(engine, 1, first)
        start(engine, 2, second)
        wait_for(registry, first.url, "up")
        wait_for(registry, second.url, "up")
        engine.down()
        eventually(lambda: "is not there" in fault(running, "engine"))
        assert ask(running, "/readyz").status_code == 503
        assert set(states(registry).values()) == {"up"}
        first.kill()
        wait_for(registry, first.url, "down", 2.0)
        engine.end(A, event=False)
        engine.up()
        eventually(lambda: states(registry) == {second.url: "up"}, 10.0)
        eventually(lambda: fault(running, "engine") == "ok")


def test_an_agent_that_is_killed_is_known_at_once_and_its_successor_brings_all_back(engine: FakeEngine, registry: Program) -> None:
    with app() as first:
        start(engine, 1, first)
        with agent(engine, registry.url) as running:
            wait_for(registry, first.url, "up")
            running.kill()
            wait_for(registry, first.url, "down", 2.0)
        started = time.monotonic()
        with agent(engine, registry.url):
            wait_for(registry, first.url, "up")
            print(f"up {time.monotonic() - started:.2f} s after the agent's start")


def test_an_agent_that_ends_withdraws_all(engine: FakeEngine, registry: Program) -> None:
    with app() as first, app() as second:
        start(engine, 1, first)
        start(engine, 2, second)
        with agent(engine, registry.url) as running:
            wait_for(registry, first.url, "up")
            wait_for(registry, second.url, "up")
            began = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - began < 5.0
            assert states(registry) == {}
            assert "withdrew all 2 instances" in running.events("withdrawn")[0]["message"]


def test_an_agent_whose_registry_is_away_ends_all_the_same(engine: FakeEngine) -> None:
    with app() as first:
        start(engine, 1, first)
        with agent(engine, f"http://127.0.0.1:{free_port()}") as running:
            eventually(lambda: "1 of 1 instance is not registered: 127.0.0.1:" in fault(running, "registered"))
            assert running.stop() == 0


def test_bad_labels_are_told_once_and_hurt_nobody_else(engine: FakeEngine, registry: Program) -> None:
    with app() as first, agent(engine, registry.url, "--resync", "100ms") as running:
        engine.run(9, "odd", labels={"pillion.dev/name": "no name", "pillion.dev/port": "80"}, networks={"n": "127.0.0.1"})
        start(engine, 1, first)
        wait_for(registry, first.url, "up")
        eventually(lambda: engine.asked.count("/containers/json") > 5)
        (warning,) = running.events("left_out")
        assert warning["message"].startswith("container odd: pillion.dev/name: 'no name' name 'no name' is no name: take up to 63 letters")
        assert list(ask(running, "/status").json()["LeftOut"]) == ["odd"]
        assert ask(running, "/readyz").status_code == 200


def test_the_token_goes_to_the_registry(engine: FakeEngine, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret-s3cret\n")
    words = ("--token-file", str(token))
    with app() as first, registry_lab.registry(*words) as guarded:
        start(engine, 1, first)
        with agent(engine, guarded.url) as without:
            eventually(lambda: "a token is needed" in fault(without, "registered"))
        with agent(engine, guarded.url, *words) as running:
            wait_for(guarded, first.url, "up")
            assert "s3cret" not in "".join(running.lines)
            assert requests.get(running.addresses[1] + "/status", headers={"Host": "evil"}, timeout=ASK_S).status_code == 421
