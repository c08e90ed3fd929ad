"""The sidecar with the real registry: registered, watched, found by name, withdrawn; and through the registry's absences."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program
from sidecar_bench import ASK_S, App, Sidecar, app, free_port, sidecar, states, until_state

FAST = ("--heartbeat-interval", "300ms")


class System:
    """A registry, GradingService with its app and sidecar, and Portald's sidecar, which requires GradingService."""

    def __init__(self, stack: ExitStack, folder: Path, store: str = "memory:") -> None:
        self.stack = stack
        self.folder = folder
        self.store = store
        self.registry_port = free_port()
        self.registry: Program = self.start_registry()
        self.app: App = stack.enter_context(app())
        self.grading = self.start("GradingService", self.app.port)
        self.portal = self.start("Portald", free_port(), "--check", "none", "--requires", "GradingService")

    def start_registry(self) -> Program:
        listen = ("--listen", f"127.0.0.1:{self.registry_port}", "--store", self.store)
        self.registry = self.stack.enter_context(program("registry", *listen, *FAST))
        return self.registry

    def start(self, name: str, port: int, *more: str) -> Sidecar:
        return self.stack.enter_context(sidecar(name, port, self.registry.url, self.folder / name, *more))

    def whole(self) -> bool:
        return self.portal.found("GradingService") == [self.app.url]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with ExitStack() as stack:
        built = System(stack, tmp_path)
        eventually(built.whole)
        yield built


def test_an_app_is_registered_and_found_by_name(system: System) -> None:
    until_state(system.registry.url, "GradingService", "up")
    answer = system.portal.get("/providers/GradingService", Accept="text/plain")
    assert (answer.status_code, answer.text) == (200, f"{system.app.url}\n")
    told = system.portal.get("/providers/GradingService").json()
    assert (told["Name"], told["URL"], told["Stale"]) == ("GradingService", system.app.url, False)
    assert told["InstanceID"] == system.grading.get("/status").json()["InstanceID"]
    assert system.grading.ready()
    assert system.grading.get("/readyz").json() == {"Status": "ok", "Checks": {"registered": "ok", "app": "ok"}}


def test_a_killed_app_is_known_within_a_second_and_back_by_itself(system: System) -> None:
    system.app.kill()
    killed = time.monotonic()
    eventually(lambda: system.portal.found("GradingService") == [], 1.0)
    assert time.monotonic() - killed < 1.0
    assert requests.get(f"{system.grading.peer}/heartbeat", timeout=ASK_S).status_code == 503
    answer = system.portal.get("/providers/GradingService")
    assert (answer.status_code, answer.json()["Error"]) == (404, "no_provider")
    assert states(system.registry.url)["GradingService"] == "down"
    ready = system.grading.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["Checks"]["app"] == f"port {system.app.port} took no connection: Connection refused"
    system.app.start()
    eventually(system.whole, 3.0)
    assert requests.get(f"{system.grading.peer}/heartbeat", timeout=ASK_S).status_code == 200


def test_sigterm_withdraws_and_ends_cleanly(system: System) -> None:
    assert system.grading.program.stop() == 0
    assert "GradingService" not in states(system.registry.url)
    eventually(lambda: system.portal.found("GradingService") == [], 1.0)
    assert [line["event"] for line in system.grading.program.events("stopped")] == ["stopped"]


def test_a_killed_sidecar_is_soon_down_and_its_dependents_know(system: System) -> None:
    system.grading.program.kill()
    eventually(lambda: system.portal.found("GradingService") == [], 2.0)
    [told] = [
        one
        for one in requests.get(f"{system.registry.url}/services", timeout=ASK_S).json()["Services"]
        if one["ServiceName"] == "GradingService"
    ]
    assert told["State"] == "down"
    assert "refused" in told["Reason"]


def test_a_killed_sidecar_that_is_started_again_is_back(system: System) -> None:
    system.grading.program.kill()
    eventually(lambda: system.portal.found("GradingService") == [], 2.0)
    system.start("GradingService", system.app.port)
    eventually(system.whole, 3.0)


def test_a_registry_without_its_memory_is_told_again_and_no_table_is_empty_meanwhile(system: System) -> None:
    system.registry.kill()
    system.start_registry()
    emptied = 0

    def both_are_up() -> bool:
        nonlocal emptied
        emptied += not system.whole()
        known = states(system.registry.url)
        return known.get("GradingService") == known.get("Portald") == "up"

    eventually(both_are_up)
    assert system.whole()
    assert emptied == 0


def test_no_lookup_fails_while_the_registry_restarts(tmp_path: Path) -> None:
    with ExitStack() as stack:
        system = System(stack, tmp_path, f"sqlite:{tmp_path / 'registry.db'}")
        eventually(system.whole)
        done = threading.Event()
        failures: list[str] = []
        asked = 0

        def look_up() -> None:
            nonlocal asked
            with requests.Session() as session:
                while not done.is_set():
                    answer = session.get(f"{system.portal.url}/providers/GradingService?format=text", timeout=ASK_S)
                    asked += 1
                    if (answer.status_code, answer.text) != (200, f"{system.app.url}\n"):
                        failures.append(f"{answer.status_code} {answer.text}")

        thread = threading.Thread(target=look_up)
        thread.start()
        try:
            system.registry.kill()
            time.sleep(0.8)
            system.start_registry()
            until_state(system.registry.url, "GradingService", "up", 5.0)
            until_state(system.registry.url, "Portald", "up", 5.0)
            time.sleep(0.5)
        finally:
            done.set()
            thread.join()
        assert failures == []
        assert asked > 100
        assert system.grading.program.events("registry_silent") == []


def test_a_registry_that_is_away_for_long_leaves_what_was_known(system: System) -> None:
    system.registry.kill()
    eventually(lambda: system.portal.get("/providers/GradingService").json()["Stale"], 6.0)
    told = system.portal.get("/providers/GradingService").json()
    assert told["URL"] == system.app.url
    assert system.portal.ready(), "a registry that is away is no reason to take the app out of service"
    assert system.portal.get("/status").json()["Registry"]["Fault"] == f"{system.registry.url[7:]} refused the connection"


def test_a_sidecar_waits_for_its_registry(tmp_path: Path) -> None:
    port = free_port()
    with app() as beside, sidecar("A", beside.port, f"http://127.0.0.1:{port}", tmp_path) as early:
        ready = eventually(lambda: [answer] if "refused" in (answer := early.get("/readyz")).text else None)[0]
        assert ready.status_code == 503
        assert ready.json()["Checks"]["registered"] == f"127.0.0.1:{port} refused the connection"
        assert early.get("/livez").status_code == 200
        with program("registry", "--listen", f"127.0.0.1:{port}", "--store", "memory:"):
            eventually(early.ready)


def test_two_sidecars_cannot_share_a_state_folder(tmp_path: Path) -> None:
    port = free_port()
    with sidecar("A", port, "http://127.0.0.1:1", tmp_path):
        second = Program(("sidecar", "--name", "A", "--port", str(port), "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)), {})
        assert second.process.wait(10) == 2
        eventually(lambda: any("another sidecar uses it" in line for line in second.lines))


def test_every_fault_of_the_configuration_is_told_at_once() -> None:
    faulty = Program(("sidecar", "--port", "70000", "--check", "ping", "--registry", "registry:3000"), {"PILLION_REQUIRES": "Db:0"})
    assert faulty.process.wait(10) == 2
    eventually(lambda: len(faulty.lines) == 6, 5.0, lambda: "".join(faulty.lines))
    told = "".join(faulty.lines)
    assert "pillion sidecar: --name or PILLION_NAME: is needed" in told
    assert "pillion sidecar: --port: '70000' is not a whole number from 1 to 65535\n" in told
    assert "pillion sidecar: --registry: 'registry:3000' " in told
    assert "pillion sidecar: PILLION_REQUIRES: 'Db:0' has 'Db:0'; write Name, Name:COUNT or Name?\n" in told
    assert "pillion sidecar: --check: 'ping' is not a check; use tcp, none, http:/path or exec:COMMAND\n" in told
    assert told.endswith("pillion sidecar: see `pillion sidecar --help`\n")


def test_a_port_that_is_taken_ends_the_sidecar_with_the_reason(tmp_path: Path) -> None:
    with app() as other:
        words = ("--name", "A", "--port", "6000", "--registry", "http://127.0.0.1:1", "--state-dir", str(tmp_path))
        faulty = Program(("sidecar", *words, "--listen", "127.0.0.1:0", "--local", f"127.0.0.1:{other.port}"), {})
        assert faulty.process.wait(10) == 1
        [told] = eventually(lambda: faulty.events("start_failed"))
        assert "address already in use" in told["message"]
        assert not any("Traceback" in line for line in faulty.lines)
