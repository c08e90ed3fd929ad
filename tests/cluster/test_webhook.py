"""The webhook on a real API server: what gets a sidecar, what is said where there is none, and pods start without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import figures
from caller import Caller
from cluster import GONE_S, READY_S, RELEASE, Namespace, Object, component, container, eventually
from workloads import Workloads, app, deployment, template

REASON = "SidecarNotInjected"


def names(pod: Object) -> list[str]:
    return [one["name"] for one in pod["spec"]["containers"]]


def test_deployments_and_stateful_sets_get_sidecars_that_register_them(workloads: Workloads, caller: Caller) -> None:
    for name, service in (("hooked", "Hooked"), ("hookless", "Hookless")):
        for pod in workloads.namespace.until_ready(f"app={name}", 2):
            assert names(pod) == ["app", "pillion"]
            assert "pillion.dev/injected" in pod["metadata"]["annotations"]
        eventually(lambda service=service: caller.states(service) == ["up", "up"], 20.0, f"two of {service} up")


def test_a_job_is_found_while_it_runs_and_completes(workloads: Workloads, caller: Caller) -> None:
    [pod] = workloads.namespace.get("pods", "--selector", "app=count")
    assert names(pod) == ["app", "pillion"]
    workloads.namespace.kubectl("wait", "--for=condition=complete", "job/count", "--timeout", f"{READY_S:g}s", within_s=READY_S + 10)
    assert "counted" in workloads.namespace.kubectl("logs", "job/count", "--container", "app")
    said = workloads.namespace.kubectl("logs", "job/count", "--container", "pillion")
    assert '"registered"' in said, said
    assert caller.states("Count") == [], "it has left"


def events_of(namespace: Namespace, kind: str, name: str) -> list[str]:
    """Return what the webhook has said of an object, or of the ReplicaSet of a Deployment."""
    found = namespace.get("events", "--field-selector", f"reason={REASON},involvedObject.kind={kind}")
    return [one["message"] for one in found if one["involvedObject"]["name"].startswith(name)]


def test_an_annotation_in_the_wrong_place_gets_an_event_that_says_so(workloads: Workloads) -> None:
    asks = {"pillion.dev/inject": "enabled"}
    misplaced = deployment("misplaced", template("misplaced", app(), asks=False), annotations=asks)
    unlabelled = deployment("unlabelled", template("unlabelled", app(), asks=False))
    unlabelled["spec"]["template"]["metadata"]["annotations"] = asks
    two_ports = deployment("two-ports", template("two-ports", app(ports=(8080, 9090))))
    workloads.namespace.apply(misplaced, unlabelled, two_ports)
    [said] = eventually(lambda: events_of(workloads.namespace, "Deployment", "misplaced"), 20.0, "the Event of misplaced")
    assert said == (
        "pillion.dev/inject is on the Deployment itself, where it does nothing: put it under spec.template.metadata.annotations"
    )
    [said] = eventually(lambda: events_of(workloads.namespace, "Deployment", "unlabelled"), 20.0, "the Event of unlabelled")
    assert "put pillion.dev/inject: enabled under spec.template.metadata.labels too, or as a label on the namespace" in said
    [said, *_] = eventually(lambda: events_of(workloads.namespace, "ReplicaSet", "two-ports"), 20.0, "the Event of two-ports")
    assert "pillion.dev/port" in said
    for name in ("misplaced", "unlabelled", "two-ports"):
        [pod] = workloads.namespace.until_ready(f"app={name}")
        assert names(pod) == ["app"], "it starts without a sidecar"
    workloads.namespace.kubectl("delete", "deployment", "misplaced", "unlabelled", "two-ports", "--wait=false")


def test_a_namespace_asks_by_its_label(release: Namespace, workloads: Workloads) -> None:
    asking = Namespace(f"{RELEASE}-asking")
    asking.create({"pillion.dev/inject": "enabled"})
    plain = {"automountServiceAccountToken": False, "containers": [app()]}
    off = {"pillion.dev/inject": "disabled"}
    asking.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": plain},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "off", "labels": off}, "spec": plain},
    )
    found = {pod["metadata"]["name"]: names(pod) for pod in asking.get("pods")}
    assert found == {"plain": ["app", "pillion"], "off": ["app"]}
    asking.kubectl("delete", "pods", "--all", "--grace-period", "1", "--wait=false")


def runs(pod: Object) -> bool:
    """Return whether its container has not ended yet; the API server shows it for some seconds after."""
    return "terminated" not in container(pod, "injector")["state"]


@contextmanager
def webhook_away(release: Namespace) -> Iterator[None]:
    """Have no webhook for a while."""
    release.kubectl("scale", f"deployment/{RELEASE}-injector", "--replicas", "0")
    try:
        eventually(
            lambda: not any(runs(pod) for pod in release.get("pods", "--selector", component("injector"))), GONE_S, "the webhook is gone"
        )
        yield
    finally:
        release.kubectl("scale", f"deployment/{RELEASE}-injector", "--replicas", "1")
        release.until_ready(component("injector"))


def test_while_the_webhook_is_down_pods_start_without_it(release: Namespace, workloads: Workloads) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **template("unserved", app())}
    pod["metadata"]["name"] = "unserved"
    with webhook_away(release):
        began = time.monotonic()
        workloads.namespace.apply(pod)
        took_s = time.monotonic() - began
        [found] = workloads.namespace.until_ready("app=unserved", within_s=30.0)
    figures.note("a pod's creation while the webhook is down", took_s, "s")
    assert names(found) == ["app"]
    workloads.namespace.kubectl("delete", "pod", "unserved", "--grace-period", "1", "--wait=false")
