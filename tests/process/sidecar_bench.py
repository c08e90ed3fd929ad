"""What the sidecar's process tests stand on: an app that can be killed, a sidecar beside it, and short ways to ask."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from programs import Program, eventually, program

ASK_S = 5.0

_APP = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
taken = []
while True:
    taken.append(listener.accept())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class App:
    """A small app that takes connections; `kill` is kill -9, `start` starts it again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _APP, str(self.port)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def app() -> Iterator[App]:
    running = App()
    try:
        yield running
    finally:
        if running.alive:
            running.kill()


class Sidecar:
    """A sidecar as the app beside it sees it: `url` of its local listener, `peer` of the one for the registry, `dns` if it answers that."""

    def __init__(self, running: Program) -> None:
        self.program = running
        self.peer, self.url, *more = running.addresses
        self.dns = more[0] if more else ""

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, timeout=ASK_S, headers=headers)

    def found(self, name: str) -> list[str]:
        """Return the URLs of all providers it knows of a service."""
        return self.get(f"/providers/{name}?all=1&format=text").text.split()

    def log(self, message: str) -> requests.Response:
        return requests.post(self.url + "/log", data=message.encode(), timeout=ASK_S)

    def ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def waiting(self) -> int:
        """Return how many log lines are in its spool."""
        return int(self.get("/status").json()["Spool"]["Waiting"])


def words_for(name: str, port: int, registry: str, state: Path, *more: str) -> tuple[str, ...]:
    """Return the words of `pillion sidecar` for a test, but for --listen."""
    words = ("--name", name, "--port", str(port), "--registry", registry, "--local", "127.0.0.1:0", "--state-dir", str(state))
    return words + more


@contextmanager
def sidecar(name: str, port: int, registry: str, state: Path, *more: str) -> Iterator[Sidecar]:
    with program("sidecar", *words_for(name, port, registry, state, *more)) as running:
        yield Sidecar(running)


def states(registry: str) -> dict[str, str]:
    """Return name -> state of everything a registry shows."""
    return {one["ServiceName"]: one["State"] for one in requests.get(f"{registry}/services", timeout=ASK_S).json()["Services"]}


def until_state(registry: str, name: str, state: str | None, timeout_s: float = 10.0) -> None:
    """Wait until a service is in a state; None waits until it is gone."""
    eventually(lambda: states(registry).get(name) == state, timeout_s, lambda: str(states(registry)))
