"""Renders charts and finds things in what comes out."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pillion"
LIBRARY = ROOT / "charts" / "pillion" / "charts" / "pillion-sidecar"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
VERSIONS = ("1.20.0", "1.28.0", "1.37.0")
NATIVE, ORDINARY = "1.37.0", "1.20.0"
WITHIN_S = 60

Object = dict[str, Any]


class Refused(Exception):
    """Helm did not render; the text says why."""


def helm(*words: str, program: str = "") -> str:
    """Return what helm prints.

    Raises:
        Refused: it failed.
    """
    done = subprocess.run([program or os.environ["PILLION_HELM"], *words], capture_output=True, text=True, timeout=WITHIN_S)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(values: Object | Path | None = None, version: str = NATIVE, chart: Path = CHART, program: str = "") -> list[Object]:
    """Return the objects of a chart, as release `pillion` in namespace `apps`."""
    return list(_parsed(values if isinstance(values, Path) else json.dumps(values or {}), version, chart, program))


@functools.lru_cache(maxsize=64)
def _parsed(values: Path | str, version: str, chart: Path, program: str) -> tuple[Object, ...]:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        if isinstance(values, str):
            file.write(values)
            file.flush()
            values = Path(file.name)
        words = ("template", "pillion", str(chart), "--namespace", "apps", "--kube-version", version, "--values", str(values))
        text = helm(*words, program=program)
    return tuple(one for one in yaml.load_all(text, yaml.CSafeLoader) if one)


def one(objects: list[Object], kind: str, name: str) -> Object:
    """Return the object of that kind and name."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the spec of each pod and pod template."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers(spec: Object) -> list[Object]:
    """Return all containers of a pod, init containers among them."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def container(spec: Object, name: str) -> Object:
    """Return one container of a pod."""
    [found] = [each for each in containers(spec) if each["name"] == name]
    return found


def environment(of: Object) -> dict[str, str]:
    """Return a container's plain environment."""
    return {each["name"]: each["value"] for each in of.get("env", []) if "value" in each}
