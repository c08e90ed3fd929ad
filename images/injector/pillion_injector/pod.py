"""Puts a sidecar into a pod template, and takes it out again. Pure: the filter and the webhook differ only in where templates come from.

What was added stands in the annotation `pillion.dev/injected`, so that exactly that can be taken out:
`{"version":"0.1.0","hash":"5e0d…","env":["app"],"files":[],"preStop":["app"],"pod":["label","grace"]}` (the containers that got an
environment variable, the providers' files, a hook; and whether the pod got a label and a time to stop).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pillion_common import __version__
from pillion_common.keys import INJECTED
from pillion_common.keys import SIDECAR as LABEL
from pillion_injector import container
from pillion_injector.app import DEFAULT_GRACE_S, App, place_faults, read_app, tcp_ports
from pillion_injector.facts import Refusal, Template, Wanted, refuse

URL_NAME = "PILLION_URL"


class Mark(NamedTuple):
    """The names of the containers that were given something, and what the pod was given."""

    env: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    pre_stop: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()


def inject(template: Template, workload: str, wanted: Wanted) -> Template | Refusal:
    """Return the pod template with a sidecar; one that is there already is brought up to date.

    Args:
        template: not changed.
        workload: the name of what the pod belongs to.

    Returns:
        A new template, equal to the old one where nothing changes; or why there cannot be a sidecar.
    """
    bare = uninject(template)
    if isinstance(bare, Refusal):
        return bare
    spec = bare["spec"]
    app, faults = read_app(bare, workload)
    faults = _clashes(spec) + place_faults(spec, app.settled.get("port", "")) + faults
    if faults:
        return refuse(faults)
    return _add(bare, app, wanted)


def uninject(template: Template) -> Template | Refusal:
    """Return the pod template without what `inject` has added; a template that has no mark is returned as it is."""
    fault = _shape_fault(template)
    if fault:
        return Refusal(fault)
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(INJECTED)
    if text is None:
        return copy.deepcopy(template)
    mark = _read_mark(text)
    if mark is None:
        return Refusal(f"the annotation {INJECTED} is not as inject writes it: take the annotation out, and what was injected by hand")
    bare = copy.deepcopy(template)
    spec = bare["spec"]
    for key, names in (("containers", (container.SIDECAR,)), ("initContainers", (container.SIDECAR,)), ("volumes", container.VOLUMES)):
        _drop(spec, key, names)
    for one in spec["containers"]:
        _take_from(one, mark)
    del bare["metadata"]["annotations"][INJECTED]
    if "label" in mark.pod:
        (bare["metadata"].get("labels") or {}).pop(LABEL, None)
        _drop_empty(bare["metadata"], "labels")
    if "grace" in mark.pod:
        spec.pop("terminationGracePeriodSeconds", None)
    _drop_empty(bare["metadata"], "annotations")
    _drop_empty(bare, "metadata")
    return bare


def has_sidecar(template: Template) -> bool:
    """Return whether a sidecar of ours is in the pod."""
    marked = INJECTED in ((template.get("metadata") or {}).get("annotations") or {})
    spec = template.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return marked and any(one.get("name") == container.SIDECAR for one in containers)


def _add(bare: Template, app: App, wanted: Wanted) -> Template:
    spec, made, volumes = bare["spec"], container.sidecar(app, wanted), container.volumes(wanted)
    hook = container.stop_hook(app)
    env, files, pre_stop = [], [], []
    serving = _serving(spec["containers"], app.settled["port"])
    for one in spec["containers"]:
        if all(entry.get("name") != URL_NAME for entry in one.get("env") or ()):
            _append(one, "env", {"name": URL_NAME, "value": container.LOCAL_URL})
            env.append(one["name"])
        if app.files and all(mount.get("mountPath") != container.FILES_DIR for mount in one.get("volumeMounts") or ()):
            _append(one, "volumeMounts", {"name": container.FILES, "mountPath": container.FILES_DIR, "readOnly": True})
            files.append(one["name"])
        if hook and one is serving and not (one.get("lifecycle") or {}).get("preStop"):
            one["lifecycle"] = {**(one.get("lifecycle") or {}), "preStop": hook}
            pre_stop.append(one["name"])
    for volume in volumes:
        _append(spec, "volumes", volume)
    if wanted.native:
        spec["initContainers"] = [made, *(spec.get("initContainers") or ())]
    else:
        spec["containers"] = [*spec["containers"], made]
    mark = Mark(tuple(env), tuple(files), tuple(pre_stop), _add_to_pod(bare))
    parts = json.dumps([made, volumes, hook], sort_keys=True)
    bare["metadata"]["annotations"] = {**(bare["metadata"].get("annotations") or {}), INJECTED: _text_of(mark, parts)}
    return bare


def _add_to_pod(bare: Template) -> tuple[str, ...]:
    """Give the pod a label and a time to stop where it has none; return which of them it was given."""
    given, spec = [], bare["spec"]
    metadata = bare["metadata"] = bare.get("metadata") or {}
    if LABEL not in (metadata.get("labels") or {}):
        metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: "true"}
        given.append("label")
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = DEFAULT_GRACE_S
        given.append("grace")
    return tuple(given)


def _text_of(mark: Mark, parts: str) -> str:
    digest = hashlib.sha256(parts.encode()).hexdigest()[:16]
    told = {"version": __version__, "hash": digest, "env": mark.env, "files": mark.files, "preStop": mark.pre_stop, "pod": mark.pod}
    return json.dumps(told, separators=(",", ":"))


def _serving(containers: list[dict[str, Any]], port: str) -> dict[str, Any]:
    """Return the container that listens on the port: the one that declares it, else the first."""
    return next((one for one in containers if int(port) in tcp_ports(one)), containers[0])


def _take_from(one: dict[str, Any], mark: Mark) -> None:
    if one["name"] in mark.env:
        _drop(one, "env", (URL_NAME,))
    if one["name"] in mark.files:
        _drop(one, "volumeMounts", (container.FILES,))
    if one["name"] in mark.pre_stop and one.get("lifecycle"):
        one["lifecycle"].pop("preStop", None)
        _drop_empty(one, "lifecycle")


def _clashes(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of ours that are another's, in a template without a mark."""
    faults = []
    for key, what in (("containers", "a container"), ("initContainers", "an init container")):
        if any(one.get("name") == container.SIDECAR for one in spec.get(key) or ()):
            faults.append(f"it has {what} {container.SIDECAR} that inject has not made: rename it, or take it out")
    taken = [volume["name"] for volume in spec.get("volumes") or () if volume.get("name") in container.VOLUMES]
    faults += [f"it has a volume {name} that inject has not made: rename it" for name in taken]
    return faults


def _shape_fault(template: Template) -> str:
    """Return what keeps this from being a pod template; the API server would refuse it as well."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(containers, list) or not containers:
        return "it has no spec.containers, so it is no pod"
    metadata = template.get("metadata") or {}
    if not isinstance(metadata, Mapping) or any(not isinstance(metadata.get(key) or {}, Mapping) for key in ("annotations", "labels")):
        return "its metadata, annotations or labels are not a mapping"
    for key in ("containers", "initContainers", "volumes"):
        if not _is_named_list(spec.get(key)):
            return f"spec.{key} is not a list of entries with names"
    for one in containers:
        for key in ("env", "ports", "volumeMounts"):
            value = one.get(key) or []
            if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
                return f"{key} of its container {one['name']} is not a list of mappings"
        if not isinstance(one.get("lifecycle") or {}, Mapping):
            return f"lifecycle of its container {one['name']} is not a mapping"
    grace = spec.get("terminationGracePeriodSeconds")
    return "" if grace is None or (isinstance(grace, int) and grace >= 0) else "terminationGracePeriodSeconds is not a whole number"


def _is_named_list(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in value)
    )


def _read_mark(text: Any) -> Mark | None:
    try:
        found = json.loads(text)
        return Mark(*(tuple(str(name) for name in found[key]) for key in ("env", "files", "preStop", "pod")))
    except (ValueError, TypeError, KeyError):
        return None


def _append(holder: dict[str, Any], key: str, entry: dict[str, Any]) -> None:
    holder[key] = [*(holder.get(key) or ()), entry]


def _drop(holder: dict[str, Any], key: str, names: Collection[str]) -> None:
    if holder.get(key):
        holder[key] = [entry for entry in holder[key] if entry.get("name") not in names]
        _drop_empty(holder, key)


def _drop_empty(holder: dict[str, Any], key: str) -> None:
    if key in holder and not holder[key]:
        del holder[key]
