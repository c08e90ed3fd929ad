"""A hundred requests a second go on while pods are restarted, deleted, upgraded and rolled back: none fails."""

from __future__ import annotations

import figures
import pytest
from caller import RATE, Caller
from cluster import CHART, GONE_S, RELEASE, Namespace, Object, component, eventually, helm, image_values, restarts

PARTS = ("registry", "log", "grading", "portal", "injector")


def identities(release: Namespace) -> dict[str, set[tuple[str, int]]]:
    """Return the pods of each part, with their restarts."""
    found: dict[str, set[tuple[str, int]]] = {}
    for part in PARTS:
        pods: list[Object] = release.until_ready(component(part))
        found[part] = {(pod["metadata"]["uid"], restarts(pod)) for pod in pods}
    return found


def restarted(before: dict[str, set[tuple[str, int]]], after: dict[str, set[tuple[str, int]]]) -> set[str]:
    return {part for part in PARTS if before[part] != after[part]}


@pytest.mark.parametrize("run", [1, 2, 3])
def test_a_rollout_restart_of_the_only_provider_fails_no_request(release: Namespace, caller: Caller, run: int) -> None:
    old = release.pod(component("grading"))
    with caller.window() as window:
        release.kubectl("rollout", "restart", f"deployment/{RELEASE}-grading")
        release.kubectl("rollout", "status", f"deployment/{RELEASE}-grading", "--timeout", "60s", within_s=70)
        gone_at = caller.told(window.since, "GradingService", old["status"]["podIP"], there=False)
    figures.note(f"rollout restart {run}: failed of requests", f"{len(window.load['failed'])} of {window.load['asked']}")
    window.nothing_failed()
    assert window.since < gone_at < window.until
    assert release.pod(component("grading"))["metadata"]["uid"] != old["metadata"]["uid"]


def test_a_deleted_pod_is_withdrawn_before_it_stops_and_no_request_fails(release: Namespace, caller: Caller) -> None:
    release.kubectl("scale", f"deployment/{RELEASE}-grading", "--replicas", "2")
    pods = release.until_ready(component("grading"), 2)
    eventually(lambda: caller.states("GradingService").count("up") == 2, 20.0, "both up")
    name, address = pods[0]["metadata"]["name"], pods[0]["status"]["podIP"]
    caller.watch(address, 6000)
    with caller.window() as window:
        release.kubectl("delete", "pod", name, "--wait=false")
        known_at = caller.told(window.since, "GradingService", address, there=False)
        refused_at = caller.refused(address)
    figures.note("a deleted pod: knowledge of dependents to its port's closing", refused_at - known_at, "s")
    figures.note("a deleted pod: failed of requests", f"{len(window.load['failed'])} of {window.load['asked']}")
    window.nothing_failed()
    assert refused_at - known_at >= 2.5, "it serves on for those who come through a Service"
    release.kubectl("scale", f"deployment/{RELEASE}-grading", "--replicas", "1")
    eventually(lambda: caller.states("GradingService") == ["up"], 30.0, "one is left")


def test_a_deleted_registry_pod_costs_no_look_up_and_remembers_all(release: Namespace, caller: Caller) -> None:
    def known() -> dict[str, str]:
        return {f"{one['ServiceName']} {one['ServiceURL']}": one["State"] for one in caller.instances()}

    before, epoch = known(), caller.fetch(f"http://{RELEASE}-registry:3000/services")["Epoch"]
    old = release.pod(component("registry"))
    assert set(before.values()) == {"up"}
    with caller.window() as window:
        release.kubectl("delete", "pod", old["metadata"]["name"], within_s=GONE_S)
        release.until_ready(component("registry"))
        eventually(lambda: answers(caller), 20.0, "the new registry answers")
        eventually(lambda: known() == before, 20.0, "all as before")
    figures.note("a deleted registry pod: failed look-ups of requests", f"{window.load['lookups_failed']} of {window.load['asked']}")
    figures.note("a deleted registry pod: away and all up again within", window.until - window.since - 0.5, "s")
    window.nothing_failed()
    assert release.pod(component("registry"))["metadata"]["uid"] != old["metadata"]["uid"]
    assert caller.fetch(f"http://{RELEASE}-registry:3000/services")["Epoch"] == epoch, "another would mean that its memory was lost"


def answers(caller: Caller) -> bool:
    try:
        return bool(caller.instances())
    except AssertionError:  # its Service leads nowhere yet
        return False


def test_an_upgrade_and_a_rollback_restart_only_what_they_concern_and_fail_no_request(release: Namespace, caller: Caller) -> None:
    start = identities(release)
    token = release.kubectl("get", "secret", f"{RELEASE}-token", "--output", "jsonpath={.data}")
    with caller.window() as window:
        helm("upgrade", RELEASE, str(CHART), "--reuse-values", *image_values(), "--set", "registry.config.log_level=debug", "--wait")
    upgraded = identities(release)
    assert restarted(start, upgraded) == {"registry"}
    figures.note(
        "helm upgrade of the registry's configuration: failed of requests", f"{len(window.load['failed'])} of {window.load['asked']}"
    )
    window.nothing_failed(RATE)
    with caller.window() as window:
        helm("rollback", RELEASE, "1", "--wait")
    assert restarted(upgraded, identities(release)) == {"registry"}
    figures.note("helm rollback: failed of requests", f"{len(window.load['failed'])} of {window.load['asked']}")
    window.nothing_failed(RATE)
    assert release.kubectl("get", "secret", f"{RELEASE}-token", "--output", "jsonpath={.data}") == token
    assert "debug" not in release.kubectl("get", "configmap", f"{RELEASE}-registry", "--output", "jsonpath={.data}")
