"""Real NATS servers with JetStream on loopback, one or a cluster, that can be killed, paused and started again."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from programs import eventually, stands_still

START_S = 30.0
WHOLE_S, STARTS = 10.0, 3
# nats-py drops the connections of attempts that fail without closing them. For modules that use it: `pytestmark = DROPS_CONNECTIONS`.
DROPS_CONNECTIONS = pytest.mark.filterwarnings("ignore:unclosed (transport|<socket):ResourceWarning")
PROGRAM = os.environ.get("NATS_SERVER") or shutil.which("nats-server", path=str(Path(sys.executable).parent)) or ""  # scripts/venv has it


class NatsServer:
    """One server; its ports stay the same over a restart."""

    def __init__(
        self,
        folder: Path,
        name: str,
        ports: tuple[int, int, int],
        routes: tuple[int, ...],
        settings: Mapping[str, object] | None = None,
        sync: bool = True,
    ) -> None:
        self.name = name
        self.port, self._cluster_port, self._monitor_port = ports
        self.folder = folder
        self._file = folder / "nats.conf"
        folder.mkdir(parents=True, exist_ok=True)
        cluster = {"name": "lab", "listen": f"127.0.0.1:{self._cluster_port}", "routes": [f"nats://127.0.0.1:{port}" for port in routes]}
        given: dict[str, Any] = {
            "server_name": name,
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self._monitor_port}",
            "jetstream": {"store_dir": str(folder / "data"), "max_memory_store": 64 << 20, "max_file_store": 32 << 30},
            **(settings or {}),
            **({"cluster": {**cluster, **((settings or {}).get("cluster") or {})}} if routes else {}),
        }
        if sync and syncs_always():
            given["jetstream"] = {**given["jetstream"], "sync_interval": "always"}
        self._file.write_text(json.dumps(given), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "--config", str(self._file)], stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP and SIGCONT pause it."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            pid = self._process.pid
            eventually(lambda: stands_still(pid))

    def kill(self) -> None:
        """End it by kill -9, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def forget(self) -> None:
        """End it, and all that it has kept."""
        self.kill()
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def peers(self) -> int:
        """Return how many servers it counts in JetStream's own group."""
        told = self.monitor("/jsz").get("meta_cluster")
        return int(told.get("cluster_size", 0)) if isinstance(told, dict) else 0

    def monitor(self, path: str) -> dict[str, object]:
        """Return what the server's own monitoring says, e.g. of `/jsz`."""
        found = requests.get(f"http://127.0.0.1:{self._monitor_port}{path}", timeout=5).json()
        assert isinstance(found, dict)
        return found

    def is_ready(self) -> bool:
        """Return whether JetStream answers: with a cluster, once it has a leader and this server has caught up."""
        try:
            return requests.get(f"http://127.0.0.1:{self._monitor_port}/healthz", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False


def head(servers: list[NatsServer]) -> str:
    """Return the name of the server that leads JetStream itself: its "meta" group, which makes streams and consumers."""
    found: list[str] = []

    def look() -> bool:
        told = [server.monitor("/jsz").get("meta_cluster") for server in servers if server.runs]
        found.extend(str(one["leader"]) for one in told if isinstance(one, dict) and one.get("leader"))
        return bool(found)

    eventually(look, START_S)
    return found[0]


@cache
def version() -> tuple[int, ...]:
    """Return the version of the server that is installed."""
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True, timeout=START_S).stdout
    return tuple(int(number) for number in re.findall(r"[0-9]+", told)[:3])


def syncs_always() -> bool:
    """Return whether it can put each message on the disk before it says that it has it; without, a kill loses nothing, a power cut may."""
    return version() >= (2, 10)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def nats_servers(
    folder: Path, count: int = 1, settings: Mapping[str, object] | None = None, sync: bool = True
) -> Iterator[list[NatsServer]]:
    """Run one server, or a cluster of three or five.

    Args:
        settings: more for each server's configuration.
        sync: each message, before it is acknowledged, where the server can.
    """
    assert PROGRAM, "there is no nats-server beside this Python; scripts/venv installs it"
    ports = free_ports(3 * count)
    triples = [(ports[3 * one], ports[3 * one + 1], ports[3 * one + 2]) for one in range(count)]
    routes = tuple(triple[1] for triple in triples) if count > 1 else ()
    servers = [NatsServer(folder / f"nats-{one}", f"nats-{one}", triple, routes, settings, sync) for one, triple in enumerate(triples)]
    try:
        for left in reversed(range(STARTS)):
            for server in servers:
                server.start()
            eventually(lambda: all(server.is_ready() for server in servers), START_S)
            if count == 1 or _is_whole(servers) or not left:
                break
            for server in servers:
                server.forget()
        yield servers
    finally:
        for server in servers:
            server.kill()
        gc.collect()  # while their warnings are expected


def _is_whole(servers: list[NatsServer]) -> bool:
    """Return whether the servers count each other in; 2.10.27, started first on a busy machine, may leave one out for good."""
    ends = time.monotonic() + WHOLE_S
    while time.monotonic() < ends:
        if all(server.peers() == len(servers) for server in servers):
            return True
        time.sleep(0.1)
    return False


def store_uri(servers: list[NatsServer], **options: str | int) -> str:
    """Return what `--store` takes."""
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return f"nats://{','.join(server.address for server in servers)}" + (f"?{query}" if query else "")
