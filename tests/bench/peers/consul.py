"""Consul: one server agent with its Raft log on disk, and a client agent."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from load import Caller, call
from machine import free_port

from peers.process import find, server

NAME = "consul"
MAX_CONNECTIONS = 8_000


class Consul(NamedTuple):
    """A running agent: its HTTP address, its Serf port, its process."""

    url: str
    serf: int
    process: subprocess.Popen[bytes]

    async def register(self, **service: Any) -> None:
        """Put a service with an agent's check, or without one, into the agent."""
        await call("PUT", f"{self.url}/v1/agent/service/register", json.dumps(service).encode())


def installed() -> bool:
    return find("consul") is not None


def registration(name: str, number: str, port: str) -> bytes:
    """Return the body of PUT /v1/catalog/register for one instance of a service."""
    service = {"ID": f"{name}-{number}", "Service": name, "Address": "127.0.0.1", "Port": 0}
    text = json.dumps({"Node": "bench", "Address": "127.0.0.1", "Service": service})
    return text.replace('"Port": 0', f'"Port": {port}').encode()


@contextlib.asynccontextmanager
async def consul(folder: Path, join: Consul | None = None) -> AsyncIterator[Consul]:
    """Run a server agent, or a client agent that joins one."""
    data = folder / ("client" if join else "server")
    data.mkdir()
    http, lan, wan, rpc = (free_port() for _ in range(4))
    ports = {"http": http, "serf_lan": lan, "serf_wan": wan, "server": rpc, "dns": -1, "grpc": -1}
    settings: dict[str, Any] = {
        "node_name": data.name,
        "data_dir": str(data),
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": ports if join is None else ports | {"serf_wan": -1},
        "performance": {"raft_multiplier": 1},
        "limits": {"http_max_conns_per_client": MAX_CONNECTIONS, "rpc_max_conns_per_client": MAX_CONNECTIONS},
        "disable_update_check": True,
        "log_level": "warn",
    }
    settings |= {"retry_join": [f"127.0.0.1:{join.serf}"]} if join else {"server": True, "bootstrap_expect": 1}
    (data / "settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{http}"

    async def ready() -> bool:
        nodes = json.loads(await call("GET", f"{url}/v1/catalog/nodes"))
        return any(node["Node"] == data.name for node in nodes)

    async with server([str(find("consul")), "agent", "-config-file", str(data / "settings.json")], data, ready) as process:
        yield Consul(url, lan, process)


async def index_of(url: str) -> int:
    """Return the X-Consul-Index of a read, from which a blocking query goes on."""
    caller = await Caller.connect(url)
    try:
        await caller.call("GET", url)
        return int(caller.headers[b"x-consul-index"])
    finally:
        caller.close()
