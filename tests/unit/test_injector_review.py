"""What the webhook answers the API server: patches, or why there is none; the same container as the filter makes."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion_common.errors import InvalidInput
from pillion_injector.documents import split
from pillion_injector.facts import Wanted
from pillion_injector.filter import inject_into
from pillion_injector.json_patch import difference
from pillion_injector.review import Policy, answer, decide, read
from pillion_injector.workloads import workload_of

FILES = Path(__file__).resolve().parents[1] / "foreign-k8s"
POLICY = Policy(Wanted(token_secret="tok"), frozenset({"kube-system", "pillion"}))
OWNER = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": "shop-front-5d4f", "uid": "u-1", "controller": True}


def pod(**metadata: Any) -> dict[str, Any]:
    body = {"containers": [{"name": "app", "image": "a:1", "ports": [{"containerPort": 8080}]}]}
    labels = {"pod-template-hash": "5d4f", **metadata.pop("labels", {})}
    return {"metadata": {"generateName": "shop-front-5d4f-", "labels": labels, "ownerReferences": [OWNER], **metadata}, "spec": body}


def request(body: dict[str, Any], kind: str = "Pod", group: str = "", **more: Any) -> dict[str, Any]:
    version = {"group": group, "version": "v1", "kind": kind}
    return {"uid": "r-1", "kind": version, "namespace": "shop", "operation": "CREATE", "object": body, **more}


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a JSON Patch, as the API server does."""
    document = copy.deepcopy(document)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        holder = document
        for part in way:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        if isinstance(holder, list):
            if last == "-":
                holder.append(operation["value"])
            else:
                assert operation["op"] == "replace"
                holder[int(last)] = operation["value"]
        elif operation["op"] == "remove":
            del holder[last]
        else:
            assert operation["op"] == "add" or last in holder
            holder[last] = operation["value"]
    return document


ASKS = {"annotations": {"pillion.dev/inject": "enabled"}}
DISABLED = {"annotations": {"pillion.dev/inject": "disabled"}}


def test_a_pod_that_asks_gets_a_patch_with_the_sidecar() -> None:
    decision = decide(request(pod(**ASKS)), POLICY)
    assert (decision.outcome, decision.reason) == ("injected", "")
    review = json.loads(answer("r-1", decision))
    assert review["apiVersion"] == "admission.k8s.io/v1"
    assert {key: review["response"][key] for key in ("uid", "allowed", "patchType")} == {
        "uid": "r-1",
        "allowed": True,
        "patchType": "JSONPatch",
    }
    patched = apply(pod(**ASKS), json.loads(base64.b64decode(review["response"]["patch"])))
    assert [one["name"] for one in patched["spec"]["containers"]] == ["app", "pillion"]
    assert {"name": "PILLION_NAME", "value": "ShopFront"} in patched["spec"]["containers"][1]["env"]


@pytest.mark.parametrize(
    ("metadata", "by_namespace", "outcome"),
    [
        ({}, False, "not_asked"),
        ({}, True, "injected"),
        (DISABLED, True, "not_asked"),
        ({"labels": {"pillion.dev/inject": "enabled"}}, False, "injected"),
        ({"labels": {"pillion.dev/inject": "enabled"}, **DISABLED}, False, "not_asked"),
        ({"annotations": {"pillion.dev/inject": "yes"}}, False, "refused"),
    ],
)
def test_the_pod_goes_before_its_namespace_and_the_annotation_before_the_label(
    metadata: dict[str, Any], by_namespace: bool, outcome: str
) -> None:
    assert decide(request(pod(**metadata)), POLICY, by_namespace).outcome == outcome


@pytest.mark.parametrize("namespace", ["kube-system", "pillion"])
def test_pods_of_the_cluster_and_of_the_webhook_itself_are_left_out(namespace: str) -> None:
    decision = decide(request(pod(**ASKS), namespace=namespace), POLICY)
    assert (decision.outcome, decision.patch) == ("left_out", [])


def test_a_pod_with_a_sidecar_is_left_as_it_is() -> None:
    body = pod(**ASKS)
    patched = apply(body, decide(request(body), POLICY).patch)
    other = Policy(Wanted(image="other/image:2"), frozenset())
    decision = decide(request(patched), other)
    assert (decision.outcome, decision.patch) == ("already", [])


def test_a_refused_pod_starts_all_the_same_and_its_owner_gets_the_event() -> None:
    body = pod(**ASKS)
    body["spec"]["hostNetwork"] = True
    decision = decide(request(body), POLICY)
    response = json.loads(answer("r-1", decision))["response"]
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["warnings"][0].startswith("pillion: it uses the node's network (hostNetwork)")
    assert len(response["warnings"][0]) <= 250
    assert decision.about == {
        "kind": "ReplicaSet",
        "apiVersion": "apps/v1",
        "name": "shop-front-5d4f",
        "uid": "u-1",
        "namespace": "shop",
    }
    assert decide(request(body, dryRun=True), POLICY).about == {}


def test_annotations_on_a_workload_are_told_with_a_warning_and_an_event_on_it() -> None:
    template = {"metadata": {}, "spec": pod()["spec"]}
    body = {"metadata": {"name": "shop", "uid": "u-2", **ASKS}, "spec": {"template": template}}
    decision = decide(request(body, "Deployment", "apps"), POLICY)
    assert (decision.outcome, decision.patch) == ("misplaced", [])
    assert "put it under spec.template.metadata.annotations" in decision.reason
    assert decision.about == {"kind": "Deployment", "apiVersion": "apps/v1", "name": "shop", "uid": "u-2", "namespace": "shop"}
    template["metadata"] = ASKS
    assert decide(request(body, "Deployment", "apps"), POLICY).outcome == "not_asked"
    cron = {"metadata": {"name": "x"}, "spec": {"jobTemplate": {"metadata": ASKS, "spec": {"template": {"spec": {}}}}}}
    assert decide(request(cron, "CronJob", "batch"), POLICY).outcome == "misplaced"
    assert decide(request({"metadata": {}}, "Service"), POLICY).outcome == "not_asked"


def test_where_pods_are_chosen_by_label_an_annotation_alone_is_told() -> None:
    by_label = Policy(Wanted(), frozenset(), by_label=True)
    template = {"metadata": {**ASKS, "labels": {}}, "spec": pod()["spec"]}
    body = {"metadata": {"name": "shop"}, "spec": {"template": template}}
    assert "put pillion.dev/inject: enabled under spec.template.metadata.labels too" in decide(request(body, "Deployment"), by_label).reason
    assert decide(request(body, "Deployment"), POLICY).reason == ""
    template["metadata"]["labels"] = {"pillion.dev/inject": "enabled"}
    assert decide(request(body, "Deployment"), by_label).reason == ""


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"apiVersion":"admission.k8s.io/v1","request":{"uid":"x","object":null}}', b"[" * 90000]
)
def test_what_is_no_review_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"no AdmissionReview of admission\.k8s\.io/v1"):
        read(body)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "shop"}, "shop"),
        ({"generateName": "shop-"}, "shop"),
        ({"ownerReferences": [{"kind": "StatefulSet", "name": "shop", "controller": True}]}, "shop"),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "shop-abc", "controller": True}]}, "shop-abc"),
        ({"ownerReferences": [OWNER], "labels": {"pod-template-hash": "5d4f"}}, "shop-front"),
        ({"ownerReferences": [{"kind": "Job", "name": "report-27712345", "controller": True}]}, "report"),
        ({"ownerReferences": [{"kind": "Job", "name": "import", "controller": True}]}, "import"),
    ],
)
def test_a_pod_is_called_after_its_workload(metadata: dict[str, Any], name: str) -> None:
    assert workload_of(metadata) == name


@pytest.mark.parametrize("native", [False, True])
def test_filter_and_webhook_make_the_same_pod(native: bool) -> None:
    """The same template through both; only metadata may differ."""
    wanted = Wanted(token_secret="tok", native=native)
    for name in ("deployment", "jobs", "anchors"):
        before = [one.tree for one in split((FILES / f"{name}.yaml").read_text()) if one.tree is not None]
        documents = [one for one in split((FILES / f"{name}.yaml").read_text()) if one.tree is not None]
        for document, old in zip(documents, before, strict=True):
            assert inject_into(document, wanted, everything=False) == []
            filtered = yaml.safe_load(document.text())
            for new, plain in zip(_workloads(filtered), _workloads(yaml.safe_load(_text(old))), strict=True):
                body = {"metadata": {**plain["template"]["metadata"], "name": plain["name"]}, "spec": plain["template"]["spec"]}
                patched = apply(body, decide(request(body), Policy(wanted, frozenset())).patch)
                assert patched["spec"] == new["template"]["spec"]
                assert "pillion" in str(patched["spec"])


def _workloads(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for one in document["items"] if document["kind"] == "List" else [document]:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found.append({"name": one["metadata"]["name"], "template": template})
    return found


def _text(tree: Any) -> str:
    return json.dumps(json.loads(json.dumps(tree)))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("a01/~", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a01/~", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("a01/~", max_size=3), _json, max_size=4), st.dictionaries(st.text("a01/~", max_size=3), _json, max_size=4))
def test_the_patch_from_one_document_to_another_makes_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    patched = apply(old, difference(old, new))
    assert json.dumps(patched, sort_keys=True) == json.dumps(new, sort_keys=True)
