"""GET /why between real sidecars: each situation made for real, and the finding that is expected first.

What only a classic peer can do (refuse patches it could take, answer late) is in test_registry_why.py.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from classic import Classic
from programs import Program, eventually, program
from registry_lab import registry
from sidecar_bench import ASK_S, Sidecar, app, free_port, sidecar, until_state

SECRET = "s3cret-s3cret-s3cret"
BEARER = {"Authorization": f"Bearer {SECRET}"}


class Pair:
    """A registry, and sidecars beside Portald, which requires GradingService, and beside that."""

    def __init__(self, running: Program, stack: ExitStack, folder: Path) -> None:
        self.running = running
        self.stack = stack
        self.folder = folder
        self.app = stack.enter_context(app())

    def start(self, name: str, port: int, *more: str) -> Sidecar:
        state = self.folder / f"{name}-{port}"
        trust = () if "--token-file" in more else ("--token-file", str(self.folder / "token"))
        return self.stack.enter_context(sidecar(name, port, self.running.url, state, *trust, *more))

    def consume(self, *more: str, requires: str = "GradingService") -> Sidecar:
        beside = self.start("Portald", free_port(), "--check", "none", "--requires", requires, *more)
        until_state(self.running.url, "Portald", "up")
        return beside

    def provide(self, name: str = "GradingService", *more: str, port: int = 0, state: str = "up") -> Sidecar:
        beside = self.start(name, port or self.app.port, *more)
        until_state(self.running.url, name, state)
        return beside

    def why(self) -> list[dict[str, Any]]:
        query = {"consumer": "Portald", "service": "GradingService"}
        return requests.get(f"{self.running.url}/why", params=query, timeout=ASK_S).json()["Findings"]

    def expect(self, code: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """Return the first finding, as soon as it is that one."""
        return eventually(lambda: (found := self.why()[0])["Code"] == code and found, timeout_s, lambda: f"{self.why()}")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "token").write_text(SECRET + "\n")
    with registry("--token-file", str(tmp_path / "token")) as running, ExitStack() as stack:
        yield Pair(running, stack, tmp_path)


def test_all_is_well_and_the_consumer_reaches_what_it_was_told_of(pair: Pair) -> None:
    pair.consume()
    pair.provide()
    pair.expect("fine")
    assert [one["Code"] for one in pair.why()] == ["fine"]


def test_nobody_is_registered_and_somebody_is_under_a_similar_name(pair: Pair) -> None:
    pair.consume()
    pair.expect("not_registered")
    pair.provide("Grading-Service")
    assert pair.expect("similar_name")["Similar"] == "Grading-Service"


def test_an_app_that_does_not_listen_yet_is_starting(pair: Pair) -> None:
    pair.consume()
    pair.provide(port=free_port(), state="starting")
    found = eventually(lambda: (one := pair.expect("starting"))["LastError"] and one)
    assert "took no connection" in found["LastError"]
    assert found["Since"]


def test_an_app_that_died_fails_its_check(pair: Pair) -> None:
    pair.consume()
    pair.provide()
    pair.app.kill()
    assert "took no connection" in pair.expect("check_failing")["LastError"]


def test_a_provider_that_drains_and_one_that_is_hidden(pair: Pair) -> None:
    pair.consume()
    provider = pair.provide()
    requests.post(provider.url + "/drain", timeout=ASK_S).raise_for_status()
    pair.expect("draining")
    requests.post(provider.url + "/undrain", timeout=ASK_S).raise_for_status()
    until_state(pair.running.url, "GradingService", "up")
    known = provider.get("/status").json()["InstanceID"]
    url = f"{pair.running.url}/services/{known}/hide"
    requests.post(url, json={"Seconds": 60, "Reason": "a drill"}, headers=BEARER, timeout=ASK_S).raise_for_status()
    assert "a drill" in pair.expect("withdrawn_by_hand")["LastError"]


def test_the_consumer_does_not_require_it(pair: Pair) -> None:
    pair.consume(requires="Other")
    pair.provide()
    pair.expect("not_required")


def test_the_consumers_sidecar_hangs_first_its_table_is_stale_then_it_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    slow = ("--heartbeat-timeout", "3s", "--token-file", str(tmp_path / "token"))
    with registry(*slow) as running, ExitStack() as stack:
        pair = Pair(running, stack, tmp_path)
        consumer = pair.consume()
        pair.expect("not_registered")
        os.kill(consumer.program.process.pid, signal.SIGSTOP)
        try:
            pair.provide()
            pair.expect("stale_table", 2.5)
            assert "did not answer" in pair.expect("consumer_unreachable", 10.0)["LastError"]
        finally:
            os.kill(consumer.program.process.pid, signal.SIGCONT)
        pair.expect("fine", 15.0)


def test_the_consumers_sidecar_was_killed_after_it_had_been_told_all(pair: Pair) -> None:
    consumer = pair.consume()
    pair.provide()
    pair.expect("fine")
    consumer.program.kill()
    assert "refused" in pair.expect("consumer_down")["LastError"]


def test_the_tokens_of_consumer_and_registry_differ(pair: Pair) -> None:
    (pair.folder / "other").write_text("another-secret-token")
    pair.start("Portald", free_port(), "--check", "none", "--requires", "GradingService", "--token-file", str(pair.folder / "other"))
    pair.provide()
    assert "Portald wanted to register" in pair.expect("token_refused")["Text"]


def test_the_consumers_sidecar_refuses_the_token_that_the_registry_has_now(tmp_path: Path) -> None:
    token, renewed = tmp_path / "token", tmp_path / "renewed"
    token.write_text(SECRET + "\n")
    renewed.write_text("another-secret-token")
    port = free_port()
    fixed = ("--listen", f"127.0.0.1:{port}", "--store", f"sqlite:{tmp_path}/registry.db", "--token-file")
    with ExitStack() as stack:
        with registry(*fixed, str(token)) as running:
            pair = Pair(running, stack, tmp_path)
            pair.consume()
            pair.expect("not_registered")
        with registry(*fixed, str(renewed)) as running:
            pair.running = running
            pair.provide("GradingService", "--token-file", str(renewed))
            found = pair.expect("token_refused")
            assert "1 instance of Portald refuses the registry's news" in found["Text"]


def test_a_provider_that_the_consumer_cannot_connect_to(pair: Pair) -> None:
    port = free_port()
    pair.consume()
    unchecked = pair.provide("GradingService", "--check", "none", port=port)
    found = pair.expect("address_not_reachable")
    assert found["Warning"]
    assert found["LastError"] == f"127.0.0.1:{port} refused the connection"
    assert found["Instances"] == [unchecked.get("/status").json()["InstanceID"]]
    assert "the only instance of GradingService that is up: its sidecar tried." in found["Text"]
    assert [one["Code"] for one in pair.why()] == ["address_not_reachable", "fine"]
    with socket.create_server(("127.0.0.1", port)):
        pair.expect("fine", 15.0)


def test_one_of_two_providers_takes_no_connection(pair: Pair) -> None:
    pair.consume()
    pair.provide()
    pair.provide("GradingService", "--check", "none", port=free_port())
    pair.expect("address_not_reachable")
    assert "1 of the 2 instances" in pair.why()[0]["Text"]


def test_an_old_sidecar_that_cannot_dial_back_is_no_finding(pair: Pair) -> None:
    pair.provide("GradingService", "--check", "none", port=free_port())
    with Classic() as old:
        old.patch = "ok"
        body = old.registration("Portald", ["GradingService"], Protocol=2)
        requests.post(pair.running.url + "/services", json=body, headers=BEARER, timeout=ASK_S).raise_for_status()
        until_state(pair.running.url, "Portald", "up")
        eventually(lambda: old.table)
        old.patch = 404
        pair.expect("fine")
        assert [one["Code"] for one in pair.why()] == ["fine"]


def test_without_a_token_nobody_is_made_to_dial(tmp_path: Path) -> None:
    with program("registry", "--store", "memory:") as running, app() as grading:
        more = ("--check", "none", "--requires", "GradingService")
        with (
            sidecar("GradingService", grading.port, running.url, tmp_path / "g"),
            sidecar("Portald", free_port(), running.url, tmp_path / "p", *more) as portal,
        ):
            eventually(lambda: portal.found("GradingService") == [grading.url])
            answer = requests.post(f"{portal.peer}/reach", json={"Service": "GradingService", "URLs": [grading.url]}, timeout=ASK_S)
            assert (answer.status_code, answer.json()["Error"]) == (403, "token_not_set")
