"""Which programs the suites work with, by the names they are called by."""

from __future__ import annotations

from sidecar_subject import CutOffSidecarSubject, SidecarSubject
from subjects import CrowdedLogSubject, LogSubject, RegistrySubject, Subject

COMMANDS = {"log": "log", "crowded log": "log", "registry": "registry", "sidecar": "sidecar", "cut off sidecar": "sidecar"}


def make_subject(name: str, seed: int = 1) -> Subject:
    """Return a new one."""
    if name == "sidecar":
        return SidecarSubject(seed)
    if name == "cut off sidecar":
        return CutOffSidecarSubject(seed)
    if name == "registry":
        return RegistrySubject(seed)
    return CrowdedLogSubject(seed) if name == "crowded log" else LogSubject(seed)
