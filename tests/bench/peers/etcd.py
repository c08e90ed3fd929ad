"""etcd: one member, or several, with its default fsync, spoken to over its HTTP/JSON gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from load import call
from machine import free_port

from peers.process import find, server

NAME = "etcd"
THREE = "etcd-3"


class Etcd(NamedTuple):
    """A running member: its address and its process."""

    url: str
    process: subprocess.Popen[bytes]

    async def ask(self, what: str, **said: Any) -> dict[str, Any]:
        """Make one call of the gateway, e.g. `kv/put`."""
        answer: dict[str, Any] = json.loads(await call("POST", f"{self.url}/v3/{what}", json.dumps(said).encode()))
        return answer


def installed() -> bool:
    return find("etcd") is not None


def text(plain: str) -> str:
    """Return a key or value as the gateway wants it."""
    return b64encode(plain.encode()).decode()


@contextlib.asynccontextmanager
async def etcd(folder: Path) -> AsyncIterator[Etcd]:
    """Run one member alone."""
    async with members(folder, 1) as (member,):
        yield member


@contextlib.asynccontextmanager
async def members(folder: Path, count: int) -> AsyncIterator[list[Etcd]]:
    """Run so many members that replicate to each other; the one that leads comes first."""
    peers = {f"bench-{at}": f"http://127.0.0.1:{free_port()}" for at in range(count)}
    async with contextlib.AsyncExitStack() as stack:
        found = await asyncio.gather(*(stack.enter_async_context(_member(folder / name, name, peers)) for name in peers))
        told = await asyncio.gather(*(member.ask("maintenance/status") for member in found))
        led = [one["header"]["member_id"] == one["leader"] for one in told].index(True)
        yield [found[led], *found[:led], *found[led + 1 :]]


@contextlib.asynccontextmanager
async def _member(folder: Path, name: str, peers: dict[str, str]) -> AsyncIterator[Etcd]:
    folder.mkdir()
    url, peer = f"http://127.0.0.1:{free_port()}", peers[name]
    words = [str(find("etcd")), "--name", name, "--data-dir", str(folder / "etcd"), "--log-level", "error", "--logger", "zap"]
    words += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", ",".join(f"{one}={where}" for one, where in peers.items())]

    async def ready() -> bool:
        return bool(json.loads(await call("GET", f"{url}/health"))["health"] == "true")

    async with server(words, folder, ready) as process:
        yield Etcd(url, process)
