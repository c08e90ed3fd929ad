"""The guard in the running registry: what dependents are told of a service that falls silent, and what a restart changes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import requests
from classic import Classic
from programs import Program, eventually
from registry_lab import instances, registry, states, wait_for

NAME = "GradingService"
SILENT_S = 2.0  # several times what withdraws a single one: 200 ms interval, 2 time-outs of 300 ms


def fill(running: Program, stack: ExitStack, count: int) -> tuple[Classic, list[Classic]]:
    """Register a dependent and what it requires; return both once it knows all."""
    portal, providers = stack.enter_context(Classic()), [stack.enter_context(Classic()) for _ in range(count)]
    for provider in providers:
        provider.register(running.url, NAME)
    portal.register(running.url, "Portald", [NAME])
    eventually(lambda: len(portal.table) == count)
    wait_for(running, portal.url, "up")
    return portal, providers


def hang(providers: list[Classic], how: str = "hang") -> None:
    for provider in providers:
        provider.heartbeat = how


def test_dependents_are_told_nothing_while_most_of_a_service_is_silent() -> None:
    with registry() as running, ExitStack() as stack:
        portal, providers = fill(running, stack, 5)
        hang(providers[:3])
        eventually(lambda: any(one["Suspect"] for one in instances(running, NAME)))
        time.sleep(SILENT_S)
        assert portal.removed() == []
        providers[3].die()
        eventually(lambda: portal.removed() == [providers[3].url])
        for provider in providers[:3]:
            provider.heartbeat = "ok"
            provider._released.set()
        eventually(lambda: not any(one["Suspect"] for one in instances(running, NAME)))
        eventually(lambda: running.events("guard_off"))
        assert portal.removed() == [providers[3].url]


def test_with_a_share_of_nothing_each_is_withdrawn() -> None:
    with registry("--guard-share", "0") as running, ExitStack() as stack:
        portal, providers = fill(running, stack, 5)
        hang(providers[:3])
        eventually(lambda: sorted(portal.removed()) == sorted(provider.url for provider in providers[:3]))


def test_a_registry_that_restarts_cut_off_from_all_withdraws_nobody_and_who_refuses_at_once(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:{tmp_path}/registry.db")
    with ExitStack() as stack:
        with registry(*store) as running:
            portal, providers = fill(running, stack, 5)
            time.sleep(0.3)
            running.kill()
        providers[0].die()
        hang(providers[1:])
        with registry(*store) as running:
            eventually(lambda: states(running, NAME)[providers[0].url] == "down")
            eventually(lambda: portal.removed() == [providers[0].url])
            time.sleep(SILENT_S)
            assert portal.removed() == [providers[0].url]
            shown = requests.get(f"{running.url}/services/{NAME}", timeout=5).json()["Services"]
            assert sum("kept by the guard: " in (one["Suspect"] or "") for one in shown) == 4
