"""Our own programs, started as an operator would, on the servers' CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from machine import on_server_cpu
from nats_lab import nats_servers, store_uri
from programs import Program, program

MAX_INSTANCES = "200000"
NATS_SERVERS = 3


@contextlib.contextmanager
def _served(*words: str, env: dict[str, str] | None = None) -> Iterator[Program]:
    with contextlib.ExitStack() as stack:
        with on_server_cpu():
            running = stack.enter_context(program(*words, env=env))
        yield running


def registry(*words: str, store: str = "memory:") -> contextlib.AbstractContextManager[Program]:
    """Run a registry with its default times; words are further options."""
    return _served("registry", "--store", store, "--max-instances", MAX_INSTANCES, *words)


class Fleet(NamedTuple):
    """Registries that share a catalogue, and the pids of the NATS servers that keep it; of one registry alone none."""

    registries: list[Program]
    nats_pids: list[int]

    @property
    def url(self) -> str:
        """The first one's."""
        return self.registries[0].url

    @property
    def pids(self) -> list[int]:
        """Those of the registries."""
        return [one.process.pid for one in self.registries]


@contextlib.contextmanager
def replicas(folder: Path, count: int, *words: str, sync: bool = True) -> Iterator[Fleet]:
    """Run so many replicas of the registry on three NATS servers, all on the servers' CPU; words are further options.

    Args:
        sync: each NATS server syncs every message, where it can.
    """
    with contextlib.ExitStack() as stack:
        with on_server_cpu():
            servers = stack.enter_context(nats_servers(folder, NATS_SERVERS, sync=sync))
        store = store_uri(servers)
        yield Fleet([stack.enter_context(registry(*words, store=store)) for _ in range(count)], [server.pid for server in servers])


def log_service(folder: Path) -> contextlib.AbstractContextManager[Program]:
    """Run a log service that keeps everything, so that it can be counted afterwards."""
    return _served("log", "--store", f"files:{folder}")


def sidecar(registry: Program, folder: Path, name: str, requires: str = "", **settings: str) -> contextlib.AbstractContextManager[Program]:
    """Run a sidecar on the servers' CPU: without an app to check, but for other settings."""
    return _served("sidecar", env=sidecar_environment(registry, folder, name) | {"PILLION_REQUIRES": requires} | settings)


def sidecar_environment(registry: Program, folder: Path, name: str, listen: int = 0, local: int = 0) -> dict[str, str]:
    """Return what tells a sidecar all it must know, as in a container: by its environment."""
    return {
        "PILLION_NAME": name,
        "PILLION_PORT": "1",
        "PILLION_CHECK": "none",
        "PILLION_LOG_TO": "",
        "PILLION_REGISTRY": registry.url,
        "PILLION_LISTEN": f"127.0.0.1:{listen}",
        "PILLION_LOCAL": f"127.0.0.1:{local}",
        "PILLION_STATE_DIR": str(folder),
    }
