"""What is wanted of an injection, and what comes of it when it cannot be: the words all parts share. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

DEFAULT_IMAGE = "pillion/sidecar:dev"
DEFAULT_REGISTRY = "http://pillion-registry.pillion.svc:3000"
SWITCH = ("enabled", "disabled")

# A pod template as Kubernetes has it: {"metadata": {...}, "spec": {...}}. A pod itself is one as well.
Template = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """How sidecars are injected.

    Args:
        image: the sidecar's.
        registry: URLs, comma-separated.
        token_secret: a Secret in the pod's namespace whose key `token` is the shared token; empty: none.
        native: as an init container that restarts, which servers have from 1.29 on.
    """

    image: str = DEFAULT_IMAGE
    registry: str = DEFAULT_REGISTRY
    token_secret: str = ""
    native: bool = False


class Refusal(NamedTuple):
    """Why a pod gets no sidecar, and what to do about it."""

    reason: str


def refuse(faults: Iterable[str]) -> Refusal:
    """Return one refusal that tells all faults."""
    return Refusal("; ".join(faults))
