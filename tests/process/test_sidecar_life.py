"""The life of a sidecar with real programs: drains, waits, ends with its app, and what it knows when it is started without a registry."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program
from sidecar_bench import ASK_S, App, Sidecar, app, sidecar, states, until_state

COMMAND_S = 20.0


class System:
    """A registry, an app with a sidecar, and a sidecar that requires it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.registry = stack.enter_context(program("registry", "--listen", "127.0.0.1:0", "--store", f"sqlite:{folder / 'db'}"))
        self.app = stack.enter_context(app())
        self.grading = self.start("GradingService", self.app.port)
        self.portal = self.start("Portald", self.app.port + 1, "--requires", "GradingService", "--check", "none")
        eventually(lambda: self.portal.found("GradingService") == [self.app.url])

    def start(self, name: str, port: int, *more: str) -> Sidecar:
        words = ("--log-to", "", "--drain-grace", "100ms", *more)
        return self.stack.enter_context(sidecar(name, port, self.registry.url, self.folder / name, *words))

    def restart_registry(self) -> None:
        address = self.registry.url.removeprefix("http://")
        words = ("registry", "--listen", address, "--store", f"sqlite:{self.folder / 'db'}")
        self.registry = self.stack.enter_context(program(*words))


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with ExitStack() as stack:
        yield System(stack, tmp_path)


def pillion(*words: str, local: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PILLION_URL": local}
    return subprocess.run(
        [sys.executable, "-m", "pillion_common", *words], capture_output=True, text=True, timeout=COMMAND_S, env=environment
    )


# Drains.


def test_a_sidecar_that_ends_is_unknown_to_its_dependents_before_it_lets_go(system: System) -> None:
    looks: list[tuple[float, list[str]]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            looks.append((time.monotonic(), system.portal.found("GradingService")))

    thread = threading.Thread(target=look)
    thread.start()
    assert system.grading.program.stop() == 0
    ended = time.monotonic()
    time.sleep(0.05)
    done.set()
    thread.join()
    [told] = system.grading.program.events("drained")
    assert (told["acknowledged"], told["waiting"]) == (1, 0)
    unknown_from = next(at for at, found in looks if not found)
    assert unknown_from < ended - 0.08, "the grace is for requests that are under way"
    assert "GradingService" not in states(system.registry.url)


def test_nobody_to_tell_is_nobody_to_wait_for(system: System) -> None:
    lonely = system.start("Lonely", system.app.port, "--drain-grace", "30s")
    eventually(lonely.ready)
    began = time.monotonic()
    assert lonely.program.stop() == 0
    assert time.monotonic() - began < 5.0


def test_a_drain_on_request_and_back(system: System) -> None:
    told = requests.post(f"{system.grading.url}/drain", timeout=ASK_S).json()
    assert told == {"State": "draining", "Acknowledged": 1, "Waiting": []}
    assert system.portal.found("GradingService") == []
    answer = system.portal.get("/providers/GradingService")
    assert (answer.status_code, answer.json()["Error"]) == (404, "all_draining")
    assert system.grading.get("/status").json()["Draining"]
    assert requests.post(f"{system.grading.url}/undrain", timeout=ASK_S).status_code == 200
    eventually(lambda: system.portal.found("GradingService") == [system.app.url])


def test_who_asks_the_peer_listener_hears_when_nobody_comes_any_more(system: System) -> None:
    heard: list[tuple[int, float]] = []

    def ask() -> None:
        status = requests.get(f"{system.grading.peer}/drained", timeout=ASK_S).status_code
        heard.append((status, time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    assert not heard, "it waits for a drain"
    system.grading.program.process.terminate()
    eventually(lambda: system.portal.found("GradingService") == [])
    unknown = time.monotonic()
    thread.join()
    assert heard[0][0] == 200
    assert heard[0][1] > unknown, "first everybody knows, then the app may go"


def test_a_drained_app_stays_drained_when_the_registry_restarts(system: System) -> None:
    requests.post(f"{system.grading.url}/drain", timeout=ASK_S)
    system.registry.kill()
    system.restart_registry()
    eventually(lambda: len(system.grading.program.events("registered")) == 2, 10.0)
    until_state(system.registry.url, "GradingService", "draining")
    time.sleep(0.3)
    assert system.portal.found("GradingService") == []


def test_shutdown_is_a_stop_with_all_that_belongs_to_it(system: System) -> None:
    assert requests.post(f"{system.grading.url}/shutdown", timeout=ASK_S).status_code == 200
    assert system.grading.program.process.wait(10) == 0
    assert "GradingService" not in states(system.registry.url)


def test_a_drain_waits_no_longer_than_it_was_told(system: System) -> None:
    slow = system.start("Slow", system.app.port + 2, "--requires", "GradingService", "--check", "none")
    eventually(lambda: slow.found("GradingService"))
    slow.program.process.send_signal(19)  # SIGSTOP
    try:
        other = system.start("Second", system.app.port + 3, "--name", "GradingService", "--check", "none", "--drain-timeout", "500ms")
        eventually(other.ready)
        began = time.monotonic()
        told = requests.post(f"{other.url}/drain", timeout=ASK_S).json()
        assert 0.3 < time.monotonic() - began < 3.0
        assert told["Waiting"] == [instance_id(system, "Slow")]
    finally:
        slow.program.process.send_signal(18)  # SIGCONT


def instance_id(system: System, name: str) -> str:
    services = requests.get(f"{system.registry.url}/services?name={name}", timeout=ASK_S).json()["Services"]
    return str(services[0]["InstanceID"])


# The app's own end.


def test_a_sidecar_outlives_its_app_while_it_still_serves(system: System) -> None:
    words = ("--outlive", "20s", "--check-interval", "100ms")
    with app() as beside:
        job = system.start("Job", beside.port, *words)
        eventually(job.ready)
        job.program.process.terminate()
        eventually(lambda: "Job" not in states(system.registry.url) or states(system.registry.url)["Job"] == "draining")
        time.sleep(0.3)
        assert job.program.process.poll() is None
        assert job.found("GradingService") is not None, "it still answers what the app asks"
        beside.kill()
        assert job.program.process.wait(10) == 0


def test_a_sidecar_ends_with_its_app(system: System) -> None:
    with app() as beside:
        job = system.start("Job", beside.port, "--end-with-app", "300ms", "--check-interval", "100ms")
        eventually(job.ready)
        beside.kill()
        assert job.program.process.wait(10) == 0
        assert job.program.events("app_ended")
    assert "Job" not in states(system.registry.url)


def test_an_app_that_comes_back_in_time_keeps_its_sidecar(system: System) -> None:
    with app() as beside:
        job = system.start("Job", beside.port, "--end-with-app", "1s", "--check-interval", "100ms")
        eventually(job.ready)
        beside.kill()
        time.sleep(0.2)
        beside.start()
        time.sleep(1.3)
        assert job.ready()


# What it knows without a registry.


def test_a_sidecar_that_is_started_while_the_registry_is_away_knows_what_it_knew(system: System) -> None:
    assert system.portal.program.stop() == 0
    system.registry.kill()
    again = system.start("Portald", system.app.port + 1, "--requires", "GradingService", "--check", "none")
    answer = again.get("/providers/GradingService").json()
    assert (answer["URL"], answer["Stale"]) == (system.app.url, True)
    assert 0 <= answer["Age"] < 60
    assert again.get("/providers/GradingService?format=text").headers["Age"].isdigit()
    system.restart_registry()
    eventually(lambda: not again.get("/providers/GradingService").json()["Stale"], 8.0)
    assert again.found("GradingService") == [system.app.url]


def test_a_registry_that_is_away_is_told_as_the_reason(system: System) -> None:
    system.registry.kill()
    words = ("--requires", "GradingService", "--check", "none")
    fresh = system.start("Fresh", system.app.port + 4, *words)
    eventually(lambda: "refused" in fresh.get("/providers/GradingService").text)
    answer = fresh.get("/providers/GradingService")
    assert (answer.status_code, answer.json()["Error"]) == (404, "registry_unreachable")


def test_registries_are_a_list_of_which_any_will_do(system: System, tmp_path: Path) -> None:
    with program("registry", "--listen", "127.0.0.1:0", "--store", "memory:") as second:
        registries = f"{system.registry.url},{second.url}"
        words = ("--log-to", "", "--check", "none")
        with sidecar("Both", system.app.port + 5, registries, tmp_path / "both", *words) as both:
            eventually(both.ready)
            assert "Both" not in states(second.url)
            system.registry.kill()
            until_state(second.url, "Both", "up")
            eventually(lambda: not both.get("/status").json()["Registry"]["Stale"])


# Names that were not required.


def test_a_name_that_was_not_required_is_found_watched_and_told(system: System) -> None:
    free = system.start("Free", system.app.port + 6, "--check", "none")
    eventually(free.ready)
    assert free.get("/providers/GradingService?format=text").text == f"{system.app.url}\n"
    assert free.get("/status").json()["Undeclared"] == ["GradingService"]
    [told] = free.program.events("undeclared")
    assert "PILLION_REQUIRES" in told["message"]
    [shown] = requests.get(f"{system.registry.url}/services?name=Free", timeout=ASK_S).json()["Services"]
    assert shown["RequiredServices"] == ["GradingService"]
    system.app.kill()
    eventually(lambda: free.found("GradingService") == [], 2.0)
    assert free.get("/providers/Nobody").json()["Error"] == "never_registered"


# Waiting, and the commands.


def test_readyz_waits_for_what_is_required(system: System) -> None:
    words = ("--requires", "GradingService,Db:2", "--check", "none", "--wait", "yes")
    waiting = system.start("Waiting", system.app.port + 7, *words)
    eventually(lambda: waiting.get("/status").json()["Registry"]["Registered"])
    answer = waiting.get("/readyz")
    assert answer.status_code == 503
    eventually(lambda: waiting.get("/readyz").json()["Checks"]["required"] == "Db: 0 of 2")
    for number in (1, 2):
        eventually(system.start(f"Db{number}", system.app.port, "--name", "Db", "--check", "none", "--port", str(4000 + number)).ready)
    eventually(waiting.ready)


def test_the_wait_command(system: System) -> None:
    local = system.portal.url
    assert pillion("wait", "GradingService", local=local).returncode == 0
    late = pillion("wait", "GradingService:2", "Db", "--timeout", "300ms", local=local)
    assert late.returncode == 1
    assert late.stderr == "pillion wait: still missing after 0.3 s: GradingService (1 of 2), Db (0 of 1)\n"
    nobody = pillion("wait", "Db", "--timeout", "100ms", local="127.0.0.1:1")
    assert nobody.returncode == 1
    assert "no sidecar answers at 127.0.0.1:1" in nobody.stderr
    assert pillion("wait", "Db:x", local=local).returncode == 2
    assert pillion("wait", "Db", "--timeout", "soon", local=local).returncode == 2


def test_the_wait_command_returns_once_all_is_there(system: System) -> None:
    environment = {**os.environ, "PILLION_URL": system.portal.url}
    words = [sys.executable, "-m", "pillion_common", "wait", "Db", "--timeout", "20s"]
    with subprocess.Popen(words, env=environment) as waiting:
        time.sleep(0.5)
        assert waiting.poll() is None
        system.start("Db", system.app.port, "--check", "none")
        assert waiting.wait(COMMAND_S) == 0


def test_the_lookup_command(system: System) -> None:
    local = system.portal.url
    found = pillion("lookup", "GradingService", local=local)
    assert (found.returncode, found.stdout) == (0, f"{system.app.url}\n")
    assert pillion("lookup", "GradingService", "--all", "--strategy", "zone", local=local).stdout == f"{system.app.url}\n"
    none = pillion("lookup", "GradingService", "--tag", "blue", local=local)
    assert (none.returncode, none.stdout) == (1, "")
    assert "none fits tag=blue" in none.stderr
    assert pillion("lookup", "GradingService", "--strategy", "best", local=local).returncode == 2
    assert pillion("lookup", "Nobody", "--wait", "100ms", local=local).returncode == 1


def test_the_status_and_drain_commands(system: System) -> None:
    shown = pillion("status", local=system.grading.url)
    assert shown.returncode == 0
    assert '"Ready": true' in shown.stdout
    drained = pillion("drain", local=system.grading.url)
    assert (drained.returncode, drained.stdout) == (0, "withdrawn; 1 dependents know\n")
    back = pillion("drain", "--undo", local=system.grading.url)
    assert back.returncode == 0
    eventually(lambda: system.portal.found("GradingService") == [system.app.url])


def test_the_default_strategy_is_an_option(system: System) -> None:
    other = App()
    try:
        eventually(system.start("Second", other.port, "--name", "GradingService").ready)
        turns = system.start("Turns", system.app.port + 8, "--requires", "GradingService", "--strategy", "round-robin", "--check", "none")
        eventually(lambda: len(turns.found("GradingService")) == 2)
        found = [turns.get("/providers/GradingService?format=text").text for _ in range(6)]
        assert found[0] != found[1]
        assert found[:2] * 3 == found
    finally:
        other.kill()


def test_a_strategy_or_a_switch_that_is_none_is_a_fault() -> None:
    faulty = Program(("sidecar", "--name", "A", "--port", "1", "--strategy", "hash", "--wait", "maybe"), {})
    assert faulty.process.wait(10) == 2
    told = "".join(eventually(lambda: faulty.lines if len(faulty.lines) == 3 else None))
    assert "--strategy: 'hash' is not a strategy; use one of random, round-robin, weighted, least-recent, zone" in told
    assert "--wait: 'maybe' is not a switch; write yes or no" in told
