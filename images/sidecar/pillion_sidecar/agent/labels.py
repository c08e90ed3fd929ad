"""What a container says of itself: Pillion's labels, else Registrator's SERVICE_… labels and environment. Pure.

    pillion.dev/name=Shop  pillion.dev/port=8080  pillion.dev/requires=Db       -> one service: Shop at port 8080
    SERVICE_8080_NAME=Shop SERVICE_9090_NAME=Metrics SERVICE_9090_TAGS=a,b      -> two services

The agent's one place that knows which labels there are. What they mean, and what a valid value is, is the sidecar's table of options: a
label is the text of an option.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pillion_common.keys import KEYS, MARKS, OTHER_NAME, PREFIX

OPTIONS = tuple(key.option for key in KEYS)
REGISTRATOR = "SERVICE_"
# A label may not run commands here or read files: it speaks for its container, the agent for all.
CHECKS = ("tcp", "http", "none")


class Given(NamedTuple):
    """The text of an option, and the label it came from."""

    text: str
    label: str


class Reading(NamedTuple):
    """What was found: each service's options, by the sidecar's names for them; and what is wrong, with its label and a remedy."""

    services: tuple[dict[str, Given], ...] = ()
    faults: tuple[str, ...] = ()


def wanted_label(label: str) -> bool:
    """Return whether a label or a variable of the environment is of interest; all others are not even remembered: they may be secrets."""
    return label.startswith((PREFIX, REGISTRATOR)) or label == OTHER_NAME


def read(labels: Mapping[str, str], environ: Mapping[str, str], ports: Iterable[int], registrator: bool = True) -> Reading:
    """Find out which services a container offers.

    Args:
        labels, environ: the container's.
        ports: the TCP ports it exposes.
        registrator: whether Registrator's names count where Pillion's do not stand.
    """
    own = {label.removeprefix(PREFIX): text.strip() for label, text in labels.items() if label.startswith(PREFIX) and label not in MARKS}
    if own:
        return _read_own(own, environ, sorted(ports))
    if registrator:
        return _read_registrator({**labels, **environ}, sorted(ports))
    return Reading()


def refused_check(options: Mapping[str, Given]) -> str:
    """Return why the check asked for is none that an agent makes; empty if it is."""
    check = options.get("check")
    if check is None or check.text.partition(":")[0] in CHECKS:
        return ""
    return f"{check.label}: {check.text!r} is not a check that an agent makes; use {_listed(CHECKS)}, e.g. tcp or http:/health"


def _read_own(own: Mapping[str, str], environ: Mapping[str, str], ports: list[int]) -> Reading:
    options = {key: Given(own[key], PREFIX + key) for key in OPTIONS if own.get(key)}
    faults = [_unknown(key) for key in own if key not in OPTIONS]
    if "name" not in options and environ.get(OTHER_NAME):
        options["name"] = Given(environ[OTHER_NAME], OTHER_NAME)
    missing = []
    if "name" not in options:
        missing.append(f"{PREFIX}name is missing; set it to the name others find the service by")
    if "port" not in options:
        if len(ports) == 1:
            options["port"] = Given(str(ports[0]), "EXPOSE")
        else:
            shown = f"exposes {_listed(ports)}" if ports else "exposes none"
            missing.append(f"{PREFIX}port is missing, and the container {shown}; set it to the port the service listens on")
    return Reading((), tuple(faults + missing)) if missing else Reading((options,), tuple(faults))


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, OPTIONS, n=1)
    remedy = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {_listed(OPTIONS)}"
    return f"{PREFIX}{key} is not a label of Pillion's; {remedy}"


def _read_registrator(given: Mapping[str, str], ports: list[int]) -> Reading:
    """Read as Registrator does (bridge/util.go, serviceMetaData, and bridge.go, newService, with its flags -explicit and -internal):
    the environment goes before labels, a port's own keys before general ones; several ports under one name get the port appended.
    """
    general: dict[str, Given] = {}
    own: dict[int, dict[str, Given]] = {port: {} for port in ports}
    for label, text in given.items():
        if label.startswith(REGISTRATOR) and text:
            first, _, rest = label.removeprefix(REGISTRATOR).lower().partition("_")
            if first.isdecimal() and rest:
                own.setdefault(int(first), {})[rest] = Given(text, label)
            else:
                general[label.removeprefix(REGISTRATOR).lower()] = Given(text, label)
    own = {port: keys for port, keys in sorted(own.items()) if port in ports or "name" in keys}
    found = []
    for port, keys in own.items():
        merged = general | keys
        if "name" in merged and "ignore" not in merged:
            found.append(_as_options(port, merged, grouped=len(own) > 1 and "name" not in keys))
    faults = []
    if "name" in general and "ignore" not in general and not own:
        faults.append(f"{general['name'].label} is set, but the container exposes no port; set {PREFIX}name and {PREFIX}port instead")
    return Reading(tuple(found), tuple(faults))


def _as_options(port: int, merged: Mapping[str, Given], grouped: bool) -> dict[str, Given]:
    name = merged["name"]
    options = {"name": Given(f"{name.text}-{port}", name.label) if grouped else name, "port": Given(str(port), "EXPOSE")}
    if "tags" in merged:
        options["tags"] = merged["tags"]
    if "check_http" in merged:
        options["check"] = Given(f"http:{merged['check_http'].text}", merged["check_http"].label)
    return options


def _listed(words: Iterable[object]) -> str:
    return ", ".join(str(word) for word in words)
