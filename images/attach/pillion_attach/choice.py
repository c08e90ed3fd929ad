"""What an app is called, which port it has, and whether a sidecar can live beside it. Pure; every refusal says what to do instead."""

from __future__ import annotations

from collections.abc import Iterable

from pillion_attach.facts import App
from pillion_common import keys
from pillion_common.key_values import fault_of, name_of, nearest

SIDECAR_PORTS = (7070, 7071)


def settle(app: App, given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Decide the keys of an app.

    Each comes from the flags, else from what it was attached with before, else from its labels, else from its environment. Without any, the
    name is made of the app's own, and the port is the only one it has.

    Args:
        given: option -> text of the flags.

    Returns:
        option -> text, and the faults: sentences that begin with the app's name.
    """
    faults = [_slip(app, label) for label in keys.unknown_labels(app.labels)]
    settled: dict[str, str] = {}
    for key in keys.KEYS:
        text, source = _first(app, given, key)
        if not text and key.option == "port":
            text, fault = only_port(app)
            faults += [fault] if fault else []
        if not text and key.option == "name":
            text, source = name_of(app.service or app.name), "its name"
        if not text:
            continue
        if fault := fault_of(key.option, text):
            faults.append(f"{app.name}: {source or key.option} {text!r} {fault}")
        settled[key.option] = text
    return settled, faults


def only_port(app: App) -> tuple[str, str]:
    """Return the port an app has, as text, or the fault that it has none or several."""
    ports = sorted(set(app.ports))
    if len(ports) == 1:
        return str(ports[0]), ""
    how = "say which one others use, with --port N or the label pillion.dev/port"
    if ports:
        return "", f"{app.name} has the ports {', '.join(map(str, ports))}: {how}"
    return "", f"{app.name} neither exposes nor publishes a TCP port: say on which it listens, with --port N or the label pillion.dev/port"


def place_faults(app: App, neighbours: Iterable[int] = (), port: str = "") -> list[str]:
    """Return why no sidecar can share this app's network, if so.

    Args:
        neighbours: the ports of others that share this network already.
        port: the port that was settled on.
    """
    fault = _network_fault(app)
    used = {*app.ports, *neighbours, *([int(port)] if port.isdigit() else [])}
    taken = [number for number in SIDECAR_PORTS if number in used]
    faults = [fault] if fault else []
    if taken and not fault:
        which = " and ".join(map(str, taken))
        faults.append(f"{app.name} uses port {which} itself, which is the sidecar's in the network they share: let it listen on another")
    return faults


def _first(app: App, given: dict[str, str], key: keys.Key) -> tuple[str, str]:
    """Return a key's text and where it came from."""
    sources = (
        (given, f"--{key.option}"),
        (app.attached, f"{key.env} of its sidecar"),
        (keys.from_labels(app.labels), f"the label {key.label}"),
        (keys.from_environ(app.environ), f"{key.env} in its environment"),
    )
    for texts, source in sources:
        if texts.get(key.option):
            return texts[key.option], source
    return "", ""


def _slip(app: App, label: str) -> str:
    near = nearest(label, (key.label for key in keys.KEYS))
    return f"{app.name}: the label {label} is none of Pillion's{near}"


def _network_fault(app: App) -> str:
    mode, _, other = app.network_mode.partition(":")
    if mode == "host":
        return (
            f"{app.name} uses the host's network, where a sidecar would take the host's ports 7070 and 7071: "
            "run `pillion agent` on that host, or give it a network of its own (no network_mode: host)"
        )
    if mode == "none":
        return f"{app.name} has no network (network_mode: none), so nobody could reach it: remove that line first"
    if mode == "service":
        return f"{app.name} lives in the network of the service {other}: attach to {other} instead, with {app.name}'s --name and --port"
    if mode == "container":
        return (
            f"{app.name} lives in the network of the container {other}: pillion attach docker {other}, with {app.name}'s --name and --port"
        )
    return ""
