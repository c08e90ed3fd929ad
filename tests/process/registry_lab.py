"""A quick registry for tests, and what one asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from programs import Program, eventually, program

WAIT_S = 5.0
QUICK = ("--heartbeat-interval", "200ms", "--heartbeat-timeout", "300ms")


@contextmanager
def registry(*words: str, env: dict[str, str] | None = None) -> Iterator[Program]:
    """Run a registry with short times; in memory unless a --store is given."""
    store = () if "--store" in words else ("--store", "memory:")
    with program("registry", *QUICK, *store, *words, env=env) as running:
        yield running


def port_of(running: Program) -> int:
    return int(running.url.rpartition(":")[2])


def instances(running: Program, name: str | None = None) -> list[dict[str, Any]]:
    """Return the catalogue, or one service's part of it; none for a name never seen."""
    answer = requests.get(running.url + "/services" + (f"/{name}" if name else ""), timeout=WAIT_S)
    return [] if answer.status_code == 404 else answer.json()["Services"]


def states(running: Program, name: str | None = None) -> dict[str, str]:
    """Return state by ServiceURL."""
    return {one["ServiceURL"]: one["State"] for one in instances(running, name)}


def wait_for(running: Program, url: str, state: str, timeout_s: float = 5.0) -> None:
    """Wait until the instance at a URL is in a state."""
    eventually(lambda: states(running).get(url) == state, timeout_s, lambda: f"{url} is {states(running).get(url)}, not {state}")
