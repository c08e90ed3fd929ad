"""Consul: one server agent with its Raft log on disk, or several that replicate it, and a client agent."""

from __future__ import annotations

import asyncio
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
THREE = "consul-3"
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


class Ports(NamedTuple):
    """Of one agent: HTTP, Serf on two networks, Raft."""

    http: int
    lan: int
    wan: int
    rpc: int


@contextlib.asynccontextmanager
async def consul(folder: Path, join: Consul | None = None) -> AsyncIterator[Consul]:
    """Run a server agent, or a client agent that joins one."""
    async with _agent(folder / ("client" if join else "server"), _free_ports(), 0 if join else 1, [join.serf] if join else []) as agent:
        yield agent


@contextlib.asynccontextmanager
async def servers(folder: Path, count: int) -> AsyncIterator[list[Consul]]:
    """Run so many server agents that replicate to each other; the one that leads comes first."""
    ports = [_free_ports() for _ in range(count)]
    join = [one.lan for one in ports] if count > 1 else []
    async with contextlib.AsyncExitStack() as stack:
        starts = (stack.enter_async_context(_agent(folder / f"server-{at}", one, count, join)) for at, one in enumerate(ports))
        agents = await asyncio.gather(*starts)
        leader = json.loads(await call("GET", f"{agents[0].url}/v1/status/leader")).rpartition(":")[2]
        led = [int(leader) == one.rpc for one in ports].index(True)
        yield [agents[led], *agents[:led], *agents[led + 1 :]]


def _free_ports() -> Ports:
    return Ports(*(free_port() for _ in range(4)))


@contextlib.asynccontextmanager
async def _agent(data: Path, own: Ports, expect: int, join: list[int]) -> AsyncIterator[Consul]:
    """Run an agent.

    Args:
        expect: servers that there will be, itself included; 0 for a client.
        join: the Serf ports of others.
    """
    data.mkdir()
    ports = {"http": own.http, "serf_lan": own.lan, "serf_wan": own.wan, "server": own.rpc, "dns": -1, "grpc": -1}
    settings: dict[str, Any] = {
        "node_name": data.name,
        "data_dir": str(data),
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": ports if expect else ports | {"serf_wan": -1},
        "retry_join": [f"127.0.0.1:{port}" for port in join],
        "performance": {"raft_multiplier": 1},
        "limits": {"http_max_conns_per_client": MAX_CONNECTIONS, "rpc_max_conns_per_client": MAX_CONNECTIONS},
        "disable_update_check": True,
        "log_level": "warn",
    }
    settings |= {"server": True, "bootstrap_expect": expect} if expect else {}
    (data / "settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{own.http}"

    async def ready() -> bool:
        nodes = json.loads(await call("GET", f"{url}/v1/catalog/nodes"))
        return len(nodes) >= expect and any(node["Node"] == data.name for node in nodes)

    async with server([str(find("consul")), "agent", "-config-file", str(data / "settings.json")], data, ready) as process:
        yield Consul(url, own.lan, process)


async def index_of(url: str) -> int:
    """Return the X-Consul-Index of a read, from which a blocking query goes on."""
    caller = await Caller.connect(url)
    try:
        await caller.call("GET", url)
        return int(caller.headers[b"x-consul-index"])
    finally:
        caller.close()
