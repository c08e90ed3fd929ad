"""The pure core of injection: what a pod gets, what it is refused, and that all can be taken out again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion_common.keys import INJECTED
from pillion_injector.facts import Refusal, Wanted
from pillion_injector.pod import has_sidecar, inject, uninject

WANTED = Wanted(image="pillion/sidecar:1", registry="http://registry:3000", token_secret="token-of-all")


def pod(annotations: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "example/app:1", "ports": [{"containerPort": 8080}]}
    return {"metadata": {"annotations": {"mine": "x", **(annotations or {})}}, "spec": {"containers": [container], **spec}}


def made(template: dict[str, Any], wanted: Wanted = WANTED, workload: str = "grading-service") -> dict[str, Any]:
    found = inject(template, workload, wanted)
    assert not isinstance(found, Refusal), found.reason
    return found


def sidecar_of(template: dict[str, Any]) -> dict[str, Any]:
    spec = template["spec"]
    return next(one for one in [*spec["containers"], *spec.get("initContainers", ())] if one["name"] == "pillion")


def told(template: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in sidecar_of(template)["env"] if "value" in row}


def reason(template: dict[str, Any], workload: str = "shop") -> str:
    found = inject(template, workload, WANTED)
    assert isinstance(found, Refusal)
    return found.reason


def test_the_pod_gets_the_sidecar_its_volumes_and_the_app_the_means_to_use_it() -> None:
    before = pod()
    kept = copy.deepcopy(before)
    after = made(before)
    assert before == kept
    app, sidecar = after["spec"]["containers"]
    assert app["env"] == [{"name": "PILLION_URL", "value": "http://127.0.0.1:7071"}]
    assert app["volumeMounts"] == [{"name": "pillion-files", "mountPath": "/run/pillion", "readOnly": True}]
    assert app["lifecycle"] == {"preStop": {"httpGet": {"path": "drained?least=3", "port": 7070, "scheme": "HTTP"}}}
    assert sidecar == {
        "name": "pillion",
        "image": "pillion/sidecar:1",
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "PILLION_ADVERTISE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
            {"name": "PILLION_POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "PILLION_NAME", "value": "GradingService"},
            {"name": "PILLION_PORT", "value": "8080"},
            {"name": "PILLION_REGISTRY", "value": "http://registry:3000"},
            {"name": "PILLION_CHECK", "value": "tcp"},
            {"name": "PILLION_TOKEN_FILE", "value": "/run/secrets/pillion/token"},
            {"name": "PILLION_SPOOL_SIZE", "value": "64M"},
            {"name": "PILLION_OUTLIVE", "value": "20s"},
        ],
        "ports": [{"name": "pillion", "containerPort": 7070, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": {"path": "/livez", "port": "pillion"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 60,
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "pillion"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "pillion"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "resources": {"requests": {"cpu": "5m", "memory": "24Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": 10001,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "pillion-spool", "mountPath": "/var/lib/pillion"},
            {"name": "pillion-files", "mountPath": "/run/pillion"},
            {"name": "pillion-token", "mountPath": "/run/secrets/pillion", "readOnly": True},
        ],
    }
    assert [volume["name"] for volume in after["spec"]["volumes"]] == ["pillion-spool", "pillion-files", "pillion-token"]
    assert after["spec"]["terminationGracePeriodSeconds"] == 30
    assert after["metadata"]["labels"] == {"pillion.dev/sidecar": "true"}
    assert has_sidecar(after)
    assert not has_sidecar(before)


def test_annotations_tell_the_sidecar_and_the_name_label_goes_before_the_workload() -> None:
    keys = {"requires": "Db:2", "check": "http:/a$(HOME)", "zone": "eu", "version": "2", "tags": "blue", "weight": "3", "port": "8081"}
    after = made(pod({f"pillion.dev/{key}": text for key, text in keys.items()}))
    assert told(after) | {"PILLION_PORT": "8081", "PILLION_REQUIRES": "Db:2", "PILLION_ZONE": "eu", "PILLION_WEIGHT": "3"} == told(after)
    assert told(after)["PILLION_CHECK"] == "http:/a$$(HOME)"  # or Kubernetes would fill in another variable
    labelled = pod()
    labelled["metadata"]["labels"] = {"app.kubernetes.io/name": "web-shop"}
    assert told(made(labelled))["PILLION_NAME"] == "WebShop"
    labelled["metadata"]["annotations"]["pillion.dev/name"] = "Other"
    assert told(made(labelled))["PILLION_NAME"] == "Other"


def test_a_native_sidecar_stands_before_the_other_init_containers_and_drains_by_a_hook() -> None:
    after = made(pod(initContainers=[{"name": "setup", "image": "x"}]), Wanted(native=True))
    assert [one["name"] for one in after["spec"]["initContainers"]] == ["pillion", "setup"]
    sidecar = sidecar_of(after)
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["lifecycle"] == {"preStop": {"exec": {"command": ["pillion", "drain"]}}}
    assert "PILLION_OUTLIVE" not in told(after)
    assert "PILLION_TOKEN_FILE" not in told(after)
    assert uninject(after) == pod(initContainers=[{"name": "setup", "image": "x"}])


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_the_sidecar_of_a_job_ends_with_it_and_its_app_waits_for_nothing(policy: str) -> None:
    after = made(pod(restartPolicy=policy))
    assert told(after)["PILLION_END_WITH_APP"] == "2s"
    assert "PILLION_OUTLIVE" not in told(after)
    assert "lifecycle" not in after["spec"]["containers"][0]
    assert "readinessProbe" not in sidecar_of(after)
    native = made(pod(restartPolicy=policy), Wanted(native=True))
    assert "PILLION_END_WITH_APP" not in told(native)
    assert "lifecycle" not in sidecar_of(native)


def test_what_the_app_has_already_is_kept() -> None:
    mine = {
        "name": "app",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "PILLION_URL", "value": "http://mine"}],
        "lifecycle": {"preStop": {"exec": {"command": ["mine"]}}},
        "volumeMounts": [{"name": "mine", "mountPath": "/run/pillion"}],
    }
    before = {"spec": {"containers": [mine], "terminationGracePeriodSeconds": 60}}
    after = made(before)
    assert after["spec"]["containers"][0] == mine
    assert told(after)["PILLION_OUTLIVE"] == "50s"
    assert uninject(after) == before


def test_files_can_be_switched_off_for_an_app() -> None:
    assert "volumeMounts" not in made(pod({"pillion.dev/files": "disabled"}))["spec"]["containers"][0]


def test_only_the_container_that_has_the_port_waits_when_the_pod_stops() -> None:
    other = {"name": "cache", "ports": [{"containerPort": 53, "protocol": "UDP"}]}
    before = pod()
    before["spec"]["containers"].insert(0, other)
    cache, app, _ = made(before)["spec"]["containers"]
    assert "lifecycle" in app
    assert "lifecycle" not in cache
    assert cache["env"] == app["env"]


def test_a_short_time_to_stop_shortens_the_drain() -> None:
    after = made(pod(terminationGracePeriodSeconds=5))
    assert told(after)["PILLION_DRAIN_TIMEOUT"] == "2s"
    assert told(after)["PILLION_OUTLIVE"] == "0s"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (pod(hostNetwork=True), "it uses the node's network (hostNetwork)"),
        ({"spec": {"containers": [{"name": "app"}]}}, "none of its containers declares a TCP containerPort: say which one"),
        ({"spec": {"containers": [{"name": "app", "ports": [{"containerPort": 1}, {"containerPort": 2}]}]}}, "have the ports 1, 2: say"),
        ({"spec": {"containers": [{"name": "pillion"}, {"name": "app", "ports": [{"containerPort": 80}]}]}}, "a container pillion that"),
        (pod(initContainers=[{"name": "pillion"}]), "an init container pillion that inject has not made: rename it"),
        (pod(volumes=[{"name": "pillion-spool"}]), "a volume pillion-spool that inject has not made: rename it"),
        (pod({"pillion.dev/port": "7070"}), "the app uses port 7070 itself"),
        (pod({"pillion.dev/port": "eighty"}), "the annotation pillion.dev/port 'eighty' is not a whole number from 1 to 65535"),
        (pod({"pillion.dev/port": 8080}), 'the annotation pillion.dev/port is not a text; write it in quotes: "8080"'),
        (pod({"pillion.dev/prot": "8080"}), "the annotation pillion.dev/prot is none of Pillion's; did you mean pillion.dev/port "),
        (pod({"pillion.dev/name": "a b"}), "the annotation pillion.dev/name 'a b' is no name"),
        (pod({"pillion.dev/check": "ping"}), "the annotation pillion.dev/check 'ping' is not a check"),
        (pod({"pillion.dev/weight": "0"}), "the annotation pillion.dev/weight '0' is not a whole number from 1 to 1000"),
        (pod({"pillion.dev/files": "yes"}), "the annotation pillion.dev/files 'yes' is neither enabled nor disabled"),
        (pod({INJECTED: "?"}), "the annotation pillion.dev/injected is not as inject writes it"),
        ({"spec": {}}, "it has no spec.containers, so it is no pod"),
        ({"spec": {"containers": ["app"]}}, "spec.containers is not a list of entries with names"),
        ({"spec": {"containers": [{"name": "app", "env": {"A": "b"}}]}}, "env of its container app is not a list of mappings"),
        ({"metadata": ["x"], "spec": {"containers": [{"name": "app"}]}}, "its metadata, annotations or labels"),
        (pod(terminationGracePeriodSeconds="30"), "terminationGracePeriodSeconds is not a whole number"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(template: dict[str, Any], said: str) -> None:
    assert said in reason(template)


def test_all_faults_are_told_at_once() -> None:
    text = reason(pod({"pillion.dev/port": "0", "pillion.dev/nam": "x"}, hostNetwork=True))
    assert "hostNetwork" in text
    assert "pillion.dev/port '0'" in text
    assert "pillion.dev/nam " in text


def test_nothing_says_its_name() -> None:
    assert "set the annotation pillion.dev/name" in reason(pod(), workload="")


def test_injecting_anew_brings_an_older_sidecar_up_to_date() -> None:
    old = made(pod({"pillion.dev/zone": "eu"}), Wanted(image="pillion/sidecar:0"))
    new = made(old)
    assert new == made(pod({"pillion.dev/zone": "eu"}))
    assert json.loads(new["metadata"]["annotations"][INJECTED])["hash"] != json.loads(old["metadata"]["annotations"][INJECTED])["hash"]


_text = st.text(alphabet="abcxyz$()'\"{}: -", max_size=8)
_entry = st.fixed_dictionaries({"name": st.sampled_from(["A", "B", "PILLION_URL"]), "value": _text})
_hook = st.fixed_dictionaries({}, optional={"preStop": st.just({"exec": {"command": ["x"]}}), "postStart": st.just({"exec": {}})})
_container = st.fixed_dictionaries(
    {"ports": st.lists(st.fixed_dictionaries({"containerPort": st.integers(1, 7000)}), max_size=2)},
    optional={"env": st.lists(_entry, min_size=1, max_size=3), "lifecycle": _hook.filter(bool), "image": _text},
)
_volumes = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "pillion-data"])}), min_size=1, max_size=2)


@st.composite
def templates(draw: st.DrawFn) -> dict[str, Any]:
    containers = [{"name": f"c{number}", **body} for number, body in enumerate(draw(st.lists(_container, min_size=1, max_size=3)))]
    optional = {
        "volumes": _volumes,
        "restartPolicy": st.sampled_from(["Always", "Never"]),
        "terminationGracePeriodSeconds": st.integers(0, 90),
        "initContainers": st.just([{"name": "init"}]),
    }
    spec = draw(st.fixed_dictionaries({}, optional=optional))
    keys = {"pillion.dev/zone": _text, "pillion.dev/files": st.sampled_from(["enabled", "disabled"]), "other": _text}
    annotations = draw(st.fixed_dictionaries({"pillion.dev/port": st.integers(1, 6000).map(str)}, optional=keys))
    labels = draw(st.fixed_dictionaries({}, optional={"labels": st.just({"pillion.dev/sidecar": "true"})}))
    return {"metadata": {"annotations": annotations, **labels}, "spec": {**spec, "containers": containers}}


@settings(deadline=None)
@given(templates(), st.booleans(), st.sampled_from(["", "secret"]))
def test_injecting_twice_is_injecting_once_and_taking_out_leaves_nothing(template: dict[str, Any], native: bool, secret: str) -> None:
    wanted = Wanted(native=native, token_secret=secret)
    once = made(template, wanted)
    assert inject(once, "grading-service", wanted) == once
    assert uninject(once) == template
