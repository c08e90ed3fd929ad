"""Drain: a provider is withdrawn while it works on, and whoever asked for it knows when all dependents know."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from classic import Classic
from programs import eventually
from registry_lab import registry, states, wait_for


def instance_of(url: str, peer: Classic) -> str:
    return next(one["InstanceID"] for one in requests.get(f"{url}/services", timeout=5).json()["Services"] if one["ServiceURL"] == peer.url)


def drain(url: str, instance_id: str, **body: Any) -> requests.Response:
    return requests.post(f"{url}/services/{instance_id}/drain", json=body or None, timeout=10)


def test_a_drain_is_answered_when_every_dependent_has_acknowledged() -> None:
    with registry() as running, ExitStack() as stack:
        provider, *dependents = [stack.enter_context(Classic()) for _ in range(4)]
        provider.register(running.url, "Db")
        for number, dependent in enumerate(dependents):
            dependent.register(running.url, f"Shop{number}", ["Db"])
        for peer in (provider, *dependents):
            wait_for(running, peer.url, "up")
        eventually(lambda: all(one.table for one in dependents))
        for dependent in dependents:
            dependent.delay_s = 0.2
        answer = drain(running.url, instance_of(running.url, provider), Reason="a new release")
        assert answer.status_code == 200
        assert [one.table for one in dependents] == [[], [], []]
        told = answer.json()
        assert (told["State"], told["Acknowledged"], told["Waiting"]) == ("draining", 3, [])
        listed = requests.get(f"{running.url}/services/Db", timeout=5).json()["Services"]
        assert [(one["State"], one["Reason"]) for one in listed] == [("draining", "a new release")]


def test_a_dependent_that_hangs_is_named_when_the_time_is_over() -> None:
    with registry() as running, ExitStack() as stack:
        provider, good, bad = [stack.enter_context(Classic()) for _ in range(3)]
        provider.register(running.url, "Db")
        good.register(running.url, "Good", ["Db"])
        bad.register(running.url, "Bad", ["Db"])
        for peer in (provider, good, bad):
            wait_for(running, peer.url, "up")
        eventually(lambda: good.table and bad.table)
        bad.patch = 500
        answer = drain(running.url, instance_of(running.url, provider), Timeout=0.3).json()
        assert (answer["Acknowledged"], answer["Waiting"]) == (1, [instance_of(running.url, bad)])


def test_a_dependent_that_is_dead_is_not_waited_for() -> None:
    with registry() as running, ExitStack() as stack:
        provider, dead = [stack.enter_context(Classic()) for _ in range(2)]
        provider.register(running.url, "Db")
        dead.register(running.url, "Dead", ["Db"])
        wait_for(running, provider.url, "up")
        wait_for(running, dead.url, "up")
        eventually(lambda: dead.table)
        dead.patch = 500
        answers: list[requests.Response] = []
        asking = threading.Thread(target=lambda: answers.append(drain(running.url, instance_of(running.url, provider), Timeout=8)))
        asking.start()
        wait_for(running, provider.url, "draining")
        began = time.monotonic()
        dead.die()
        asking.join(8)
        assert time.monotonic() - began < 4
        assert answers[0].json()["Waiting"] == []


def test_a_drained_instance_stays_so_over_checks_reports_and_a_restart_until_it_is_undrained(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:{tmp_path}/registry.db")
    with Classic() as provider:
        with registry(*store) as running:
            provider.register(running.url, "Db")
            wait_for(running, provider.url, "up")
            known = instance_of(running.url, provider)
            drain(running.url, known)
            provider.heartbeats.clear()
            requests.post(f"{running.url}/services/{known}/state", json={"State": "up"}, timeout=5)
            eventually(lambda: len(provider.heartbeats) > 2)
            assert states(running) == {provider.url: "draining"}
            time.sleep(0.3)  # the state is written a moment after it is told
        with registry(*store) as running:
            provider.heartbeats.clear()
            eventually(lambda: len(provider.heartbeats) > 2)
            assert states(running) == {provider.url: "draining"}
            assert requests.post(f"{running.url}/services/{known}/undrain", timeout=5).status_code == 200
            wait_for(running, provider.url, "up")


def test_only_a_process_started_since_ends_a_drain_by_registering() -> None:
    with registry() as running, Classic() as provider:
        provider.register(running.url, "Db", Incarnation=7)
        wait_for(running, provider.url, "up")
        drain(running.url, instance_of(running.url, provider))
        assert provider.register(running.url, "Db", Incarnation=7).json()["State"] == "draining"
        assert provider.register(running.url, "Db", Incarnation=8).json()["State"] == "starting"
        wait_for(running, provider.url, "up")


def test_a_drain_of_nobody_or_with_a_wrong_time_is_refused() -> None:
    with registry() as running, Classic() as provider:
        assert drain(running.url, "nobody").json()["Error"] == "unknown_instance"
        provider.register(running.url, "Db")
        refused = drain(running.url, instance_of(running.url, provider), Timeout=1e9)
        assert (refused.status_code, refused.json()["Field"]) == (400, "Timeout")
        assert requests.post(f"{running.url}/services/nobody/undrain", timeout=5).status_code == 404


def test_a_drained_instance_that_falls_silent_is_forgotten() -> None:
    with registry("--forget-after", "400ms") as running, Classic() as provider:
        provider.register(running.url, "Db")
        wait_for(running, provider.url, "up")
        drain(running.url, instance_of(running.url, provider))
        time.sleep(1.0)
        assert states(running) == {provider.url: "draining"}
        provider.die()
        eventually(lambda: states(running) == {})
