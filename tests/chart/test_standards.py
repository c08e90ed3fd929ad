"""Every object fits Kubernetes' own schemas, and every pod the Pod Security Standard `restricted`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from charts import VALUES, VERSIONS, containers, pods, render
from restricted import faults
from schemas import Unfit, validate

OWN_KINDS = {"PodMonitor"}  # the Prometheus operator's
by_name = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@by_name
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema_of_the_server(values: Path, version: str) -> None:
    for each in render(values, version):
        if each["kind"] not in OWN_KINDS:
            validate(each, version)


@by_name
@pytest.mark.parametrize("version", VERSIONS)
def test_every_pod_is_restricted(values: Path, version: str) -> None:
    found = dict(pods(render(values, version)))
    assert {"pillion-registry", "pillion-log"} <= set(found)
    assert {name: faults(spec) for name, spec in found.items()} == {name: [] for name in found}


@by_name
def test_no_container_can_write_to_its_root_or_has_a_kubernetes_token(values: Path) -> None:
    for name, spec in pods(render(values)):
        assert spec["automountServiceAccountToken"] is False, name
        for each in containers(spec):
            assert each["securityContext"]["readOnlyRootFilesystem"] is True, name


@by_name
def test_helm_3_and_4_render_the_same(values: Path) -> None:
    four = str(Path(os.environ["PILLION_HELM"]).with_name("helm-4"))
    assert _without_what_is_made_anew(render(values)) == _without_what_is_made_anew(render(values, program=four))


def _without_what_is_made_anew(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects without the token, the certificate and its authority."""
    for each in objects:
        for webhook in each.get("webhooks", ()):
            assert webhook["clientConfig"].pop("caBundle")
    return [each for each in objects if each["kind"] != "Secret"]


# The checks can fail: teeth.

SABOTAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "volume": lambda spec: spec.setdefault("volumes", []).append({"name": "x", "hostPath": {"path": "/"}}),
    "privileged": lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
    "allowPrivilegeEscalation": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
    "runAsNonRoot": lambda spec: spec["containers"][0]["securityContext"].update(runAsNonRoot=False),
    "runAsUser": lambda spec: spec["containers"][0]["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda spec: spec["containers"][0]["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "hostPort": lambda spec: spec["containers"][0]["ports"][0].update(hostPort=80),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_pod_that_breaks_the_standard_is_found(what: str) -> None:
    spec = copy.deepcopy(dict(pods(render()))["pillion-registry"])
    SABOTAGE[what](spec)
    [fault] = faults(spec)
    assert what in fault


@pytest.mark.parametrize("version", VERSIONS)
def test_an_object_that_a_server_would_refuse_is_found(version: str) -> None:
    for sabotage in ({"labls": {}}, {"labels": {"a": 1}}):
        broken = copy.deepcopy(render()[0])
        broken["metadata"].update(sabotage)
        with pytest.raises(Unfit):
            validate(broken, version)


def test_a_kind_that_a_server_does_not_have_is_found() -> None:
    budget = next(each for each in render() if each["kind"] == "PodDisruptionBudget")
    with pytest.raises(Unfit):
        validate(budget, "1.20.0")
