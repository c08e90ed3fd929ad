"""Which app a pod holds: its keys, from annotations, labels and ports; and why a sidecar cannot stand beside it. Pure.

`pillion.dev/port: "8080"` among the annotations of the pod template is the port; without it, it is the only one the containers have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pillion_common import keys
from pillion_common.key_values import fault_of, name_of, nearest
from pillion_injector.facts import SWITCH, Template

NAME_LABEL = "app.kubernetes.io/name"
SIDECAR_PORTS = (7070, 7071)
DEFAULT_GRACE_S = 30  # terminationGracePeriodSeconds, where a pod says nothing


class App(NamedTuple):
    """An app in a pod.

    Args:
        settled: option -> text; see pillion_common.keys.
        files: whether its containers see the providers' files.
        ends: whether the pod ends with it, as a job's does.
        grace_s: time the pod has to stop.
    """

    settled: Mapping[str, str]
    files: bool
    ends: bool
    grace_s: int


def asked(metadata: Mapping[str, Any]) -> str:
    """Return what an object's metadata say under pillion.dev/inject; the annotation goes before the label; empty: nothing."""
    for where in ("annotations", "labels"):
        value = (metadata.get(where) or {}).get(keys.INJECT)
        if value is not None:
            return str(value).strip()
    return ""


def wishes(metadata: Mapping[str, Any]) -> list[str]:
    """Return the annotations that speak to Pillion, but for its own mark."""
    annotations = metadata.get("annotations") or {}
    return [name for name in annotations if str(name).startswith(keys.PREFIX) and name != keys.INJECTED]


def read_app(template: Template, workload: str) -> tuple[App, list[str]]:
    """Return the app of a pod and the faults in what is said of it.

    Args:
        template: without a sidecar of ours.
        workload: the name of what the pod belongs to; a name is made of it where none is given.
    """
    metadata, spec = template.get("metadata") or {}, template["spec"]
    annotations = metadata.get("annotations") or {}
    faults = [_slip(name) for name in keys.unknown_labels({name: "" for name in annotations if isinstance(name, str)})]
    faults += [
        f'the annotation {name} is not a text; write it in quotes: "{annotations[name]}"'
        for name in wishes(metadata)
        if not isinstance(annotations[name], str)
    ]
    texts = {name: text for name, text in annotations.items() if isinstance(text, str)}
    settled = keys.from_labels(texts)
    if "name" not in settled:
        settled["name"] = name_of(str((metadata.get("labels") or {}).get(NAME_LABEL) or workload))
        faults += [] if settled["name"] else [f"nothing says what it is called: set the annotation {keys.PREFIX}name"]
    if "port" not in settled:
        port, fault = only_port(spec["containers"])
        settled["port"] = port
        faults += [fault] if fault else []
    faults += [_key_fault(key, texts, settled[key.option]) for key in keys.KEYS if settled.get(key.option)]
    faults += [_switch_fault(name, texts) for name in (keys.FILES, keys.INJECT)]
    ends = spec.get("restartPolicy", "Always") != "Always"
    grace = spec.get("terminationGracePeriodSeconds")
    app = App(settled, texts.get(keys.FILES, "").strip() != "disabled", ends, DEFAULT_GRACE_S if grace is None else int(grace))
    return app, [fault for fault in faults if fault]


def only_port(containers: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the only TCP port that containers declare, as text; or the fault that there is none, or that there are several."""
    ports = sorted({port for container in containers for port in tcp_ports(container)})
    if len(ports) == 1:
        return str(ports[0]), ""
    how = f"say which one others use with the annotation {keys.PREFIX}port on the pod template"
    if ports:
        return "", f"its containers have the ports {', '.join(map(str, ports))}: {how}"
    return "", f"none of its containers declares a TCP containerPort: {how}"


def tcp_ports(container: Mapping[str, Any]) -> list[int]:
    """Return the TCP ports that a container declares."""
    return [
        port["containerPort"]
        for port in container.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP" and isinstance(port.get("containerPort"), int)
    ]


def place_faults(spec: Mapping[str, Any], port: str) -> list[str]:
    """Return why no sidecar can share this pod's network, if so."""
    faults = []
    if spec.get("hostNetwork"):
        faults.append(
            "it uses the node's network (hostNetwork), where a sidecar would take the node's ports 7070 and 7071: "
            "take hostNetwork out, or register the app by a `pillion agent` on the node"
        )
    used = {port for container in spec["containers"] for port in tcp_ports(container)} | ({int(port)} if port.isdigit() else set())
    taken = [str(number) for number in SIDECAR_PORTS if number in used]
    if taken:
        faults.append(f"the app uses port {' and '.join(taken)} itself, which is the sidecar's in the pod: let it listen on another")
    return faults


def _key_fault(key: keys.Key, texts: Mapping[str, str], text: str) -> str:
    fault = fault_of(key.option, text)
    if not fault:
        return ""
    source = f"the annotation {key.label}" if texts.get(key.label) else f"the {key.option} made of its labels or its workload's name,"
    return f"{source} {text!r} {fault}" + ("" if texts.get(key.label) else f": set the annotation {key.label}")


def _switch_fault(name: str, texts: Mapping[str, str]) -> str:
    if name not in texts or texts[name].strip() in SWITCH:
        return ""
    return f"the annotation {name} {texts[name][:40]!r} is neither enabled nor disabled"


def _slip(name: str) -> str:
    there = [key.label for key in keys.KEYS] + [keys.INJECT, keys.FILES]
    return f"the annotation {name} is none of Pillion's{nearest(name, there)}"
