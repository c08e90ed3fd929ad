"""etcd: one member with its default fsync, spoken to over its HTTP/JSON gateway."""

from __future__ import annotations

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
    """Run a member."""
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = [str(find("etcd")), "--name", "bench", "--data-dir", str(folder / "etcd"), "--log-level", "error", "--logger", "zap"]
    words += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"bench={peer}"]

    async def ready() -> bool:
        return bool(json.loads(await call("GET", f"{url}/health"))["health"] == "true")

    async with server(words, folder, ready) as process:
        yield Etcd(url, process)
