"""The keys by which an app is described to Pillion, the same ones everywhere.

`pillion.dev/port: "8080"` as a Docker label or a Kubernetes annotation, `PILLION_PORT=8080` in the environment and `--port 8080` on a
command line all mean the same. Imports nothing that costs memory: whatever stands beside an app may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PREFIX = "pillion.dev/"
OTHER_NAME = "OTEL_SERVICE_NAME"  # serves as the name where PILLION_NAME is not set


class Key(NamedTuple):
    """One key, in its three forms."""

    option: str
    label: str
    env: str
    what: str


KEYS = (
    Key("name", "pillion.dev/name", "PILLION_NAME", "the service name others find the app by"),
    Key("port", "pillion.dev/port", "PILLION_PORT", "the port the app listens on"),
    Key("requires", "pillion.dev/requires", "PILLION_REQUIRES", "services it requires: Db:2 is two of it, Cache? may be missing"),
    Key("check", "pillion.dev/check", "PILLION_CHECK", "how to tell whether it is well, e.g. tcp, http:/path or none"),
    Key("zone", "pillion.dev/zone", "PILLION_ZONE", "where it runs"),
    Key("version", "pillion.dev/version", "PILLION_VERSION", "its version, told to those who look it up"),
    Key("weight", "pillion.dev/weight", "PILLION_WEIGHT", "its share among its like, 1 to 1000"),
    Key("tags", "pillion.dev/tags", "PILLION_TAGS", "words to filter by, comma-separated"),
)

# Labels and annotations that are no keys of an app: what Pillion writes on what it makes, and what asks for an injected sidecar.
ATTACHED_TO = "pillion.dev/attached-to"
JOINED_NETWORK = "pillion.dev/joined-network"
INJECT = "pillion.dev/inject"  # enabled or disabled, on a pod
FILES = "pillion.dev/files"  # disabled: the app does not see the providers' files in /run/pillion
SIDECAR = "pillion.dev/sidecar"  # a label of pods that have one, for those who look for all sidecars
INJECTED = "pillion.dev/injected"  # what was added to a pod, so that it can be taken out again
MARKS = (ATTACHED_TO, JOINED_NETWORK, INJECT, FILES, SIDECAR, INJECTED)


def from_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return option -> text of the keys among labels or annotations; empty texts say nothing."""
    return {key.option: labels[key.label].strip() for key in KEYS if labels.get(key.label, "").strip()}


def from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return option -> text of the keys in an environment; empty texts say nothing."""
    found = {key.option: environ[key.env].strip() for key in KEYS if environ.get(key.env, "").strip()}
    if "name" not in found and environ.get(OTHER_NAME, "").strip():
        found["name"] = environ[OTHER_NAME].strip()
    return found


def unknown_labels(labels: Mapping[str, str]) -> list[str]:
    """Return the labels that look like keys of Pillion and are none: most likely a slip of the pen."""
    known = {key.label for key in KEYS} | set(MARKS)
    return [label for label in labels if label.startswith(PREFIX) and label not in known]
