"""The agent beside a real engine: copies of a labelled service come, go, are killed; and the agent itself is killed and restarted."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import docker
import pytest
import requests
from docker.models.containers import Container
from programs import eventually
from stack import CALL_S, ROOT, Stack

HERE = Path(__file__).parent / "agent"
LONG_S = 60.0
POST = """
import http.client
proxy = http.client.HTTPConnection("socket-proxy", 2375)
proxy.request("POST", "/containers/create")
print(proxy.getresponse().status)
"""
SLOW_ENGINE_S = 8.0  # what a busy machine's engine may take to say that a container has died


class Agent:
    """The agent's compose project and that of the copies it stands in for, beside the stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.agent, self.web = f"{stack.project}-agent", f"{stack.project}-web"
        self._engine = docker.from_env()
        self._env = {
            **os.environ,
            "PILLION_NETWORK_NAME": f"{stack.project}_default",
            "PILLION_SECRETS_NAME": f"{stack.project}_secrets",
            "PILLION_ONLY": f"com.docker.compose.project={self.web}",  # other projects of this engine are none of our business
            "PILLION_DOCKER_GROUP": str(Path("/var/run/docker.sock").stat().st_gid),
            "PILLION_HEALTH_INTERVAL": "1s",
            "PILLION_LOGS": "yes",
            "PILLION_STAND_INS": str(HERE),
        }

    def compose_agent(self, *words: str) -> None:
        self._compose(self.agent, "-f", str(ROOT / "compose" / "agent.yml"), "-f", str(HERE / "stand-in.yml"), *words)

    def compose_web(self, *words: str) -> None:
        self._compose(self.web, "-f", str(HERE / "web.yml"), *words)

    def _compose(self, project: str, *words: str) -> None:
        done = subprocess.run(
            ["docker", "compose", "-p", project, *words], env=self._env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    def scale(self, count: int) -> None:
        self.compose_web("up", "--detach", "--scale", f"web={count}", "--no-recreate")

    def copies(self) -> list[Container]:
        return list(self._engine.containers.list(filters={"label": f"com.docker.compose.project={self.web}"}))

    def container(self, service: str = "agent") -> Container:
        labels = [f"com.docker.compose.project={self.agent}", f"com.docker.compose.service={service}"]
        return self._engine.containers.list(all=True, filters={"label": labels})[0]

    def states(self) -> dict[str, str]:
        """Return InstanceID -> state of the copies."""
        answer = requests.get(f"{self.stack.registry_url}/services/Web", timeout=CALL_S)
        return {one["InstanceID"]: one["State"] for one in answer.json()["Services"]} if answer.status_code == 200 else {}

    def until_up(self, count: int) -> None:
        wanted = {f"Web-{copy.id[:12]}": "up" for copy in self.copies()}
        assert len(wanted) == count
        eventually(lambda: self.states() == wanted, LONG_S, lambda: f"{self.states()}\n{self.container().logs(tail=20).decode()}")

    def events(self, name: str) -> str:
        return "\n".join(line for line in self.container().logs().decode().splitlines() if f'"event": "{name}"' in line)


class Watching:
    """Keeps every state that each instance was seen in, in order, and when all were up or not."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._ending = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.seen: dict[str, list[str]] = {}
        self.down_s = 0.0

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ending.wait(0.01):
            states, now = self._agent.states(), time.monotonic()
            if set(states.values()) != {"up"}:
                self.down_s += now - before
            before = now
            for one in self.seen.keys() | states.keys():
                path = self.seen.setdefault(one, [])
                state = states.get(one, "gone")
                if not path or path[-1] != state:
                    path.append(state)

    def __enter__(self) -> Watching:
        self._thread.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._ending.set()
        self._thread.join(CALL_S)


@pytest.fixture(scope="module")
def running(stack: Stack) -> Iterator[Agent]:
    agent = Agent(stack)
    try:
        agent.compose_agent("up", "--detach", "--wait", "--wait-timeout", "60")
        yield agent
    finally:
        agent.compose_web("down", "--timeout", "2")
        agent.compose_agent("--profile", "socket", "down", "--volumes", "--timeout", "5")


@pytest.fixture
def three(running: Agent) -> Agent:
    running.container().start()
    running.scale(3)
    running.until_up(3)
    return running


def test_every_copy_of_a_scaled_service_is_an_instance(three: Agent) -> None:
    listed = requests.get(f"{three.stack.registry_url}/services/Web", timeout=CALL_S).json()["Services"]
    addresses = {
        f"http://{copy.attrs['NetworkSettings']['Networks'][f'{three.stack.project}_default']['IPAddress']}:6000" for copy in three.copies()
    }
    assert {one["ServiceURL"] for one in listed} == addresses
    assert {one["Metadata"]["pillion.dev/container"] for one in listed} == {copy.name for copy in three.copies()}
    code = "fetch('http://127.0.0.1:7071/providers/Web?all=1&format=text&wait=5').then(async r => console.log(await r.text()))"
    assert set(three.stack.in_portal(code).split()) == addresses


def test_copies_that_are_scaled_away_are_drained_and_gone_without_a_time_out(three: Agent) -> None:
    with Watching(three) as watching:
        began = time.monotonic()
        three.scale(1)
        took_s = time.monotonic() - began
        eventually(lambda: len(three.states()) == 1, 5.0, lambda: str(three.states()))
    print(f"scaled to 1 in {took_s:.2f} s: {sorted(watching.seen.values())}")
    assert sorted(watching.seen.values()) == [["up"], ["up", "draining", "gone"], ["up", "draining", "gone"]]
    assert took_s < 9.0, "the engine had to kill what did not stop"
    three.until_up(1)


def test_a_copy_that_is_killed_is_known_at_once(three: Agent) -> None:
    took = []
    for victim in three.copies()[:2]:
        one = f"Web-{victim.id[:12]}"
        known: list[float] = []

        def look(one: str = one, known: list[float] = known) -> None:
            eventually(lambda: three.states().get(one) != "up", LONG_S)
            known.append(time.monotonic())

        looking = Thread(target=look, daemon=True)
        looking.start()
        began = time.monotonic()
        victim.kill()
        engine_s = time.monotonic() - began
        looking.join(LONG_S)
        took.append((known[0] - began, engine_s))
        eventually(lambda one=one: one not in three.states(), SLOW_ENGINE_S)
        victim.remove()
    print("known / the engine's own answer to the kill: " + ", ".join(f"{a * 1000:.0f} / {b * 1000:.0f} ms" for a, b in took))
    assert min(known_s for known_s, _ in took) < 1.0


def test_a_paused_copy_is_down_and_comes_back(three: Agent) -> None:
    victim = three.copies()[0]
    one = f"Web-{victim.id[:12]}"
    victim.pause()
    eventually(lambda: three.states().get(one) == "down", SLOW_ENGINE_S)
    listed = requests.get(f"{three.stack.registry_url}/services/Web", timeout=CALL_S).json()["Services"]
    assert [each["Reason"] for each in listed if each["InstanceID"] == one] == ["its container is paused"]
    victim.unpause()
    three.until_up(3)


def test_what_the_copies_print_is_in_the_log_service_once_also_after_the_agent_was_killed(three: Agent) -> None:
    def heard() -> list[str]:
        answer = requests.get(
            f"{three.stack.log_url}/logs", params={"service": "Web"}, headers={"Accept": "application/x-ndjson"}, timeout=CALL_S
        )
        entries = [json.loads(line) for line in answer.text.splitlines()]
        return sorted(
            entry["Instance"] for entry in entries if entry["Message"].startswith("listening on ") and entry["Stream"] == "stdout"
        )

    wanted = sorted(f"Web-{copy.id[:12]}" for copy in three.copies())
    eventually(lambda: set(wanted) <= set(heard()), LONG_S, lambda: str(heard()))
    before = heard()
    three.container().kill()
    three.container().start()
    three.until_up(3)
    time.sleep(3.0)  # in which what was read already would be read again
    assert heard() == before
    assert len(set(before)) == len(before)


def test_an_agent_that_is_killed_withdraws_its_copies_and_its_successor_brings_them_back(three: Agent) -> None:
    three.container().kill()
    eventually(lambda: set(three.states().values()) == {"down"}, 10.0, lambda: str(three.states()))
    began = time.monotonic()
    three.container().start()
    three.until_up(3)
    print(f"all up {time.monotonic() - began:.2f} s after its start")


def test_an_agent_that_is_restarted_takes_its_copies_away_for_a_moment(three: Agent) -> None:
    with Watching(three) as watching:
        three.container().restart(timeout=5)
        three.until_up(3)
    print(f"not all up for {watching.down_s:.2f} s: {sorted(watching.seen.values())}")
    assert "down" not in {state for path in watching.seen.values() for state in path}, "it was found out instead of being told"
    assert "withdrew all 3 instances" in three.events("withdrawn")


def test_a_registry_that_is_restarted_has_all_copies_again(three: Agent) -> None:
    with_registry = three.stack.container("registry")
    with_registry.restart(timeout=5)
    eventually(lambda: _answers(three.stack), 20.0)
    three.until_up(3)


def test_the_agent_may_open_the_engines_socket_itself(three: Agent) -> None:
    three.container().stop(timeout=5)
    assert three.states() == {}
    three.compose_agent("--profile", "socket", "up", "--detach", "--wait", "--wait-timeout", "60", "agent-socket")
    three.until_up(3)
    three.container("agent-socket").stop(timeout=5)
    eventually(lambda: three.states() == {}, 5.0)


def test_the_agent_is_hardened_and_its_proxy_lets_nothing_through_that_changes_anything(three: Agent) -> None:
    for service in ("agent", "socket-proxy"):
        settings = three.container(service).attrs["HostConfig"]
        assert settings["ReadonlyRootfs"] is True
        assert settings["CapDrop"] == ["ALL"]
        assert settings["SecurityOpt"] == ["no-new-privileges:true"]
        assert 0 < settings["Memory"] <= 128 * 2**20
        assert settings["PidsLimit"] > 0
        assert not settings["PortBindings"]
    assert three.container().attrs["Config"]["User"] == "10001:10001"
    assert three.container().exec_run(["python3", "-c", POST]).output.strip() == b"403"


def _answers(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.registry_url}/readyz", timeout=CALL_S).status_code == 200
    except requests.ConnectionError:
        return False
