"""Where Kubernetes' objects hold their pod templates, and what they are called. Pure; works on any mapping, of JSON or of YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pillion_common import keys
from pillion_injector.app import asked, wishes

# kind -> the way to its pod template
TEMPLATES: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
GROUPS = ("", "apps", "batch", "extensions")
MAX_DEPTH = 5  # of Lists in Lists

_TIMES = re.compile(r"-\d{8,}$")  # a CronJob's Job ends with its minute


class Found(NamedTuple):
    """A pod template's place: its object, the way from the document's root to it, and what to call it."""

    kind: str
    name: str
    path: tuple[str | int, ...]
    way: tuple[str, ...]
    body: Mapping[str, Any]

    @property
    def template(self) -> Any:
        """Return the pod template; None if the object lacks it."""
        return at(self.body, self.way)

    def __str__(self) -> str:
        return f"{self.kind} {self.name or 'without a name'}"


def find(document: Any, path: tuple[str | int, ...] = (), kind: str = "") -> Iterator[Found]:
    """Yield the objects with pod templates in a document, those of Lists one by one."""
    if not isinstance(document, Mapping) or len(path) > 2 * MAX_DEPTH:
        return
    kind = str(document.get("kind") or kind)
    if kind.endswith("List") and isinstance(document.get("items"), list):
        for index, item in enumerate(document["items"]):
            yield from find(item, (*path, "items", index), kind.removesuffix("List"))
    elif kind in TEMPLATES and _group(str(document.get("apiVersion") or "")) in GROUPS:
        metadata = document.get("metadata")
        named = metadata if isinstance(metadata, Mapping) else {}
        name = str(named.get("name") or str(named.get("generateName") or "").rstrip("-"))
        yield Found(kind, name, path, TEMPLATES[kind], document)


def misplaced(found: Found) -> str:
    """Return what to do about annotations for Pillion that stand on the workload instead of its pod template; empty: there are none."""
    if not found.way:
        return ""
    template = at(found.body, found.way)
    there = template.get("metadata") if isinstance(template, Mapping) else None
    if isinstance(there, Mapping) and (asked(there) or wishes(there)):
        return ""
    for step in range(len(found.way) - 1):
        holder = at(found.body, found.way[:step])
        metadata = holder.get("metadata") if isinstance(holder, Mapping) else None
        if isinstance(metadata, Mapping) and (asked(metadata) == "enabled" or wishes(metadata)):
            what = keys.INJECT if asked(metadata) else wishes(metadata)[0]
            where = ".".join((*found.way, "metadata", "annotations"))
            return f"{what} is on the {found.kind} itself, where it does nothing: put it under {where}"
    return ""


def unlabelled(found: Found) -> str:
    """Return what to do about a pod template with the annotation but without the label, where pods are chosen by labels; empty: nothing."""
    metadata = at(found.template, ("metadata",)) or {}
    if asked(metadata) != "enabled" or keys.INJECT in (metadata.get("labels") or {}):
        return ""
    where = ".".join((*found.way, "metadata", "labels"))
    return f"this server can choose pods by labels only: put {keys.INJECT}: enabled under {where} too, or as a label on the namespace"


def workload_of(metadata: Mapping[str, Any]) -> str:
    """Return the name of the workload that a pod belongs to, as its file has it: a Deployment's, not its ReplicaSet's."""
    owners = metadata.get("ownerReferences") or ()
    owner = next((one for one in owners if one.get("controller")), None)
    if owner is None:
        return str(metadata.get("name") or str(metadata.get("generateName") or "").rstrip("-"))
    name = str(owner.get("name") or "")
    if owner.get("kind") == "ReplicaSet":
        made = (metadata.get("labels") or {}).get("pod-template-hash")
        return name.removesuffix(f"-{made}") if made else name
    return _TIMES.sub("", name) if owner.get("kind") == "Job" else name


def at(document: Any, way: tuple[str | int, ...]) -> Any:
    """Return what lies at the end of a way; None if it ends before."""
    for step in way:
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def _group(version: str) -> str:
    return version.rpartition("/")[0]
