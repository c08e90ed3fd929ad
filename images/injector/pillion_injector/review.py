"""Answers an AdmissionReview (admission.k8s.io/v1): a JSON Patch with the sidecar, or why there is none. Pure. Always `allowed`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pillion_common import keys
from pillion_common.errors import InvalidInput
from pillion_injector import pod
from pillion_injector.app import asked
from pillion_injector.facts import SWITCH, Refusal, Wanted
from pillion_injector.json_patch import difference
from pillion_injector.workloads import TEMPLATES, find, misplaced, unlabelled, workload_of

API_VERSION = "admission.k8s.io/v1"
MAX_WARNING_CHARS = 250  # the API server cuts warnings beyond 256
INJECTED, NOT_ASKED, ALREADY, LEFT_OUT, REFUSED, MISPLACED = "injected", "not_asked", "already", "left_out", "refused", "misplaced"
OUTCOMES = (INJECTED, NOT_ASKED, ALREADY, LEFT_OUT, REFUSED, MISPLACED)


class Policy(NamedTuple):
    """What pods get, where they get nothing, and whether the API server sends only those with the label."""

    wanted: Wanted
    left_out: frozenset[str]
    by_label: bool = False


class Decision(NamedTuple):
    """What becomes of one object.

    Args:
        outcome: one of OUTCOMES.
        reason: why there is no sidecar though one was asked for; empty: there is one, or none was asked for.
        patch: JSON Patch operations.
        about: the object of an Event: kind, apiVersion, namespace, name, uid; empty: none is to be made.
        what: the object in words.
    """

    outcome: str
    what: str
    reason: str = ""
    patch: list[dict[str, Any]] = []
    about: Mapping[str, str] = {}


def read(body: bytes) -> dict[str, Any]:
    """Return the request of an AdmissionReview.

    Raises:
        InvalidInput: it is none.
    """
    try:
        review = json.loads(body)
        request = review["request"]
        if review["apiVersion"] != API_VERSION or not isinstance(request["uid"], str) or not isinstance(request["object"], dict):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise InvalidInput(f"the body is no AdmissionReview of {API_VERSION} with an object", code="invalid_review") from exc
    return dict(request)


def decide(request: Mapping[str, Any], policy: Policy, by_namespace: bool = False) -> Decision:
    """Decide on one request.

    Args:
        request: from `read`.
        by_namespace: the pod's namespace asks for sidecars, so that a pod that says nothing gets one.
    """
    body = request["object"]
    kind = str((request.get("kind") or {}).get("kind") or body.get("kind") or "")
    metadata = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    namespace = str(request.get("namespace") or metadata.get("namespace") or "")
    what = f"{kind} {namespace}/{metadata.get('name') or str(metadata.get('generateName') or '?') + '…'}"
    if namespace in policy.left_out:
        return Decision(LEFT_OUT, what)
    if kind != "Pod":
        return _look_at_workload(request, kind, namespace, what, policy.by_label)
    said = asked(metadata)
    if said not in ("", *SWITCH):
        return _refused(request, f"{keys.INJECT} {said[:40]!r} is neither enabled nor disabled", namespace, what)
    if not (said == "enabled" or (by_namespace and not said)):
        return Decision(NOT_ASKED, what)
    if pod.has_sidecar(body):
        return Decision(ALREADY, what)  # by the filter, or by an earlier call for the same pod
    changed = pod.inject(body, workload_of(metadata), policy.wanted)
    if isinstance(changed, Refusal):
        return _refused(request, changed.reason, namespace, what)
    return Decision(INJECTED, what, patch=difference(body, changed))


def answer(uid: str, decision: Decision) -> bytes:
    """Return the AdmissionReview that answers a request."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if decision.patch:
        text = json.dumps(decision.patch, separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(text).decode()}
    if decision.reason:
        response["warnings"] = [f"pillion: {decision.reason}"[:MAX_WARNING_CHARS]]
    return json.dumps({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}).encode()


def _look_at_workload(request: Mapping[str, Any], kind: str, namespace: str, what: str, by_label: bool) -> Decision:
    """Find out whether annotations stand on a workload that belong to its pods."""
    body = {**request["object"], "kind": kind}
    found = next(iter(find(body)), None) if kind in TEMPLATES else None
    advice = (misplaced(found) or (unlabelled(found) if by_label else "")) if found else ""
    if not advice:
        return Decision(NOT_ASKED, what)
    return Decision(MISPLACED, what, advice, about=_about(request, body, namespace))


def _refused(request: Mapping[str, Any], reason: str, namespace: str, what: str) -> Decision:
    return Decision(REFUSED, what, reason, about=_about(request, request["object"], namespace))


def _about(request: Mapping[str, Any], body: Mapping[str, Any], namespace: str) -> dict[str, str]:
    """Return the object of an Event: a pod that is only being made is told of at what makes it. A dry run leaves no trace."""
    if request.get("dryRun"):
        return {}
    metadata = body.get("metadata") or {}
    owners = metadata.get("ownerReferences") or ()
    owner = next((one for one in owners if one.get("controller")), None)
    kind = request.get("kind") or {}
    version = "/".join(part for part in (kind.get("group"), kind.get("version")) if part)
    told = owner or {"kind": kind.get("kind"), "apiVersion": version, "name": metadata.get("name"), "uid": metadata.get("uid")}
    about = {key: str(told.get(key) or "") for key in ("kind", "apiVersion", "name", "uid")}
    return {**about, "namespace": namespace} if about["name"] and namespace else {}
