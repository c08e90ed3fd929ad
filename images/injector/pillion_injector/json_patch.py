"""JSON Patch (RFC 6902) from one document to another: as small as is easy to read. Pure.

`[{"op": "add", "path": "/metadata/annotations/pillion.dev~1injected", "value": "…"}]`
"""

from __future__ import annotations

from typing import Any

Operation = dict[str, Any]


def difference(old: Any, new: Any, path: str = "") -> list[Operation]:
    """Return the operations that make new of old. Lists only grow at their ends; any other list is replaced whole."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        operations: list[Operation] = [{"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in old if key not in new]
        for key, value in new.items():
            below = f"{path}/{_escaped(key)}"
            operations += difference(old[key], value, below) if key in old else [{"op": "add", "path": below, "value": value}]
        return operations
    if isinstance(old, list) and isinstance(new, list) and 0 < len(old) <= len(new):
        operations = []
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            operations += difference(before, after, f"{path}/{index}")
        return operations + [{"op": "add", "path": f"{path}/-", "value": value} for value in new[len(old) :]]
    return [{"op": "replace", "path": path, "value": new}]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
