"""Log lines through the sidecar: what it acknowledged arrives, once and in order, whoever is killed meanwhile."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import requests
from programs import eventually, program
from sidecar_bench import ASK_S, Sidecar, free_port, sidecar
from stub_log import StubLog, stub_log
from stub_registry import StubRegistry, stub_registry

ALONE = ("--check", "none")


def provide(registry: StubRegistry, log: StubLog) -> None:
    registry.register({"ServiceName": "LogService", "ServiceURL": log.url})


def send(beside: Sidecar, messages: list[str]) -> list[str]:
    """Send lines over one connection; return those that were acknowledged."""
    taken = []
    with requests.Session() as session:
        for message in messages:
            try:
                if session.post(f"{beside.url}/log", message.encode(), timeout=ASK_S).status_code == 200:
                    taken.append(message)
            except requests.RequestException:
                break
    return taken


def numbered(first: int, last: int) -> list[str]:
    return [f"line {n}" for n in range(first, last)]


def test_a_thousand_lines_arrive_once_and_in_order_though_the_log_service_was_killed(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE) as beside:
            eventually(lambda: beside.found("LogService"))
            assert len(send(beside, numbered(0, 300))) == 300
            log.kill()
            assert len(send(beside, numbered(300, 700))) == 400
            assert beside.waiting() >= 400
            log.start()
            assert len(send(beside, numbered(700, 1000))) == 300
            eventually(lambda: beside.waiting() == 0)
        assert log.messages() == numbered(0, 1000)
        assert {entry["Service"] for entry in log.entries} == {"A"}
        assert [entry["Seq"] for entry in log.entries] == list(range(1, 1001))


def test_the_lines_of_an_app_in_a_pod_tell_which(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE, "--pod", "a-5d4f-x7k2p") as beside:
            eventually(lambda: beside.found("LogService"))
            assert len(send(beside, ["first", "second"])) == 2
            eventually(lambda: len(log.entries) == 2)
        assert [(entry["Message"], entry["Pod"]) for entry in log.entries] == [("first", "a-5d4f-x7k2p"), ("second", "a-5d4f-x7k2p")]


def test_lines_that_were_acknowledged_survive_the_sidecars_death(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        taken: list[str] = []

        def send_until_killed(first: int) -> None:
            with sidecar("A", free_port(), registry.url, tmp_path, *ALONE) as beside:
                eventually(lambda: beside.found("LogService"))
                sender = threading.Thread(target=lambda: taken.extend(send(beside, numbered(first, first + 1000))))
                sender.start()
                wanted = len(log.entries) + 200
                eventually(lambda: len(log.entries) >= wanted)
                beside.program.kill()
                sender.join()

        send_until_killed(0)
        send_until_killed(1000)
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE) as beside:
            eventually(lambda: beside.found("LogService"))
            eventually(lambda: beside.waiting() == 0)
        arrived = log.messages()
        assert len(taken) >= 400
        assert len(set(arrived)) == len(arrived)
        # A line whose answer the kill cut off may be there as well; one that was acknowledged must be.
        assert [message for message in arrived if message in set(taken)] == taken
        assert len(arrived) - len(taken) <= 2


def test_lines_wait_on_disk_for_a_log_service_that_comes_later(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry:
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE) as beside:
            assert len(send(beside, numbered(0, 10))) == 10
            assert beside.program.stop() == 0
            assert beside.program.events("lines_left")[0]["lines"] == 10
        with stub_log() as log:
            provide(registry, log)
            with sidecar("A", free_port(), registry.url, tmp_path, *ALONE):
                eventually(lambda: log.messages() == numbered(0, 10))


def test_the_last_lines_of_a_stopping_app_are_flushed(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE) as beside:
            eventually(lambda: beside.found("LogService"))
            send(beside, numbered(0, 50))
            assert beside.program.stop() == 0
        assert log.messages() == numbered(0, 50)


def test_a_classic_log_service_gets_one_message_a_line(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log(classic=True) as log:
        provide(registry, log)
        with sidecar("Portald", free_port(), registry.url, tmp_path, *ALONE) as beside:
            send(beside, ["first", "grüße", "two\nlines"])
            eventually(lambda: len(log.lines) == 3)
        assert log.lines == ["[Portald] - first", "[Portald] - grüße", "[Portald] - two lines"]


def test_a_full_spool_drops_the_oldest_and_tells_how_many(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        with sidecar("A", free_port(), registry.url, tmp_path, *ALONE, "--spool-size", "64K") as beside:
            assert len(send(beside, numbered(0, 1000))) == 1000
            spool = beside.get("/status").json()["Spool"]
            assert spool["Bytes"] <= 65 * 1024
            provide(registry, log)
            eventually(lambda: beside.waiting() == 0)
            assert "the spool is full" in beside.program.events("spool_full")[0]["message"]
        kept = [message for message in log.messages() if message.startswith("line ")]
        assert kept == numbered(1000 - len(kept), 1000)
        assert 200 < len(kept) < 600
        [told] = [entry for entry in log.entries if "Gap" in entry]
        assert told["Gap"] == told["Seq"] == 1000 - len(kept)
        assert (told["Service"], told["Level"]) == ("A", "warning")
        assert told["From"] <= told["To"] == told["Time"]


def test_a_sidecar_that_forwards_nothing_still_answers(tmp_path: Path) -> None:
    with sidecar("A", free_port(), "http://127.0.0.1:1", tmp_path, *ALONE, "--log-to", "") as beside:
        try:
            assert beside.log("a").status_code == 200
            time.sleep(0.2)
            assert requests.get(f"{beside.url}/livez", timeout=1.0).status_code == 200
        except requests.RequestException as exc:
            beside.program.kill()  # its loop is blocked: SIGTERM would not end it
            pytest.fail(f"the sidecar hangs: {exc}")


def test_through_the_real_log_service(tmp_path: Path) -> None:
    with program("registry", "--store", "memory:") as registry, program("log", "--store", f"files:{tmp_path / 'log'}") as log:
        port = int(log.url.rsplit(":", 1)[1])
        with (
            sidecar("LogService", port, registry.url, tmp_path / "l", "--check", "http:/livez"),
            sidecar("Portald", free_port(), registry.url, tmp_path / "p", *ALONE) as portal,
        ):
            assert send(portal, ["hello", "grüße", "two\nlines"]) == ["hello", "grüße", "two\nlines"]
            eventually(lambda: portal.waiting() == 0)
            answer = requests.get(
                f"{log.url}/logs", params={"service": "Portald"}, headers={"Accept": "application/x-ndjson"}, timeout=ASK_S
            )
            assert [entry["Message"] for entry in map(json.loads, answer.text.splitlines())] == ["hello", "grüße", "two\nlines"]
