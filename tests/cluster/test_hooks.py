"""What the app's preStop hook is worth: the same app with it, and with a hook of its own that waits for nothing, loses a pod under load.

This is the teeth run of test_load.py. Without the hook the port closes about when the dependents know: requests under way may be lost,
and those that come through the Service until kube-proxy has heard of it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import figures
from caller import Caller, Window
from cluster import eventually
from workloads import Workloads

RATE = 20


class Loss(NamedTuple):
    """What the loss of a pod came to: how long after its dependents knew its port closed, and what became of the requests."""

    margin_s: float
    by_look_up: Window
    by_service: Window


def lose_a_pod(workloads: Workloads, caller: Caller, name: str) -> Loss:
    """Delete one of two pods."""
    pod = workloads.namespace.pods(f"app={name}")[0]
    address = pod["status"]["podIP"]
    caller.watch(address, 8080)
    with caller.window(name.title()) as by_look_up, caller.window(f"Service {name}") as by_service:
        workloads.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        known_at = caller.told(by_look_up.since, name.title(), address, there=False)
        refused_at = caller.refused(address)
    return Loss(refused_at - known_at, by_look_up, by_service)


def test_with_the_hook_all_know_before_the_port_closes_and_without_it_hardly(workloads: Workloads, caller: Caller) -> None:
    names = ("hooked", "hookless")
    for name in names:
        workloads.namespace.until_ready(f"app={name}", 2)
        eventually(lambda name=name: caller.states(name.title()).count("up") == 2, 20.0, f"two of {name} up")
        caller.call(name.title(), RATE)
        address = workloads.namespace.kubectl("get", "service", name, "--output", "jsonpath={.spec.clusterIP}")
        caller.call(f"Service {name}", RATE, url=f"http://{address}:8080")
    with ThreadPoolExecutor(2) as pool:
        hooked, hookless = pool.map(lambda name: lose_a_pod(workloads, caller, name), names)
    for name, loss in zip(names, (hooked, hookless), strict=True):
        caller.call(name.title(), 0)
        caller.call(f"Service {name}", 0)
        figures.note(f"{name}: dependents' knowledge to the port's closing", loss.margin_s * 1000, "ms")
        failed = f"{len(loss.by_look_up.load['failed'])} by look-up, {len(loss.by_service.load['failed'])} by Service"
        figures.note(f"{name}: failed requests", failed)
    hooked.by_look_up.nothing_failed(RATE)
    hooked.by_service.nothing_failed(RATE)
    assert hooked.margin_s >= 2.5
    assert hookless.margin_s < 1.5, "it is told to end at once"  # whether a request falls into that is luck; the figures count them
    assert hookless.by_look_up.load["lookups_failed"] == 0
