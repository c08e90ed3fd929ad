"""Whether an object fits a server's own schema, where no key may be unknown."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft7Validator

OLD = "1.20.0"


class Unfit(Exception):
    """The object does not fit, or the server has no such kind."""


def validate(one: dict[str, Any], version: str) -> None:
    """Check an object.

    Raises:
        Unfit: it does not fit.
    """
    if version == OLD:
        faults = [error.message for error in _old(one["kind"], one["apiVersion"]).iter_errors(one)]
        if faults:
            raise Unfit(f"{one['kind']}: {faults}")
        return
    try:
        used = kubernetes_validate.validate(one, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as exc:
        raise Unfit(f"{one['kind']}: {exc}") from exc
    assert version.startswith(used), "there is no schema of that version"


@functools.cache
def _old(kind: str, api_version: str) -> Draft7Validator:
    definitions = _definitions()
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "kind": kind, "version": version}
    for name, schema in definitions.items():
        if wanted in schema.get("x-kubernetes-group-version-kind", []):
            return Draft7Validator({"$ref": f"#/definitions/{name}", "definitions": definitions})
    raise Unfit(f"1.20 has no {kind} of {api_version}")


@functools.cache
def _definitions() -> dict[str, Any]:
    folder = Path(os.environ["PILLION_HELM"]).parents[1] / "schemas-1.20"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["definitions"]
    return found
