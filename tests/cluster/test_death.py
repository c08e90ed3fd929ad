"""A container of a provider is killed: who depends on it knows at once, and it is back after the kubelet has started it again."""

from __future__ import annotations

import figures
import pytest
from caller import Caller
from cluster import Namespace, component, container, eventually
from host import Host

KNOWN_MS = 100.0


@pytest.mark.parametrize(("part", "service"), [("grading", "GradingService"), ("log", "LogService")])
def test_a_killed_container_is_known_within_a_tenth_of_a_second_and_comes_back(
    release: Namespace, caller: Caller, host: Host, part: str, service: str
) -> None:
    pod = release.pod(component(part))
    address, before = pod["status"]["podIP"], container(pod, part)["restartCount"]
    killed_at = host.kill(pod, part)
    known_ms = (caller.told(killed_at, service, address, there=False) - killed_at) * 1000
    back_s = caller.told(killed_at + known_ms / 1000, service, address, there=True) - killed_at
    figures.note(f"kill -9 of {part}'s container to a dependent's knowledge", known_ms, "ms")
    figures.note(f"kill -9 of {part}'s container to its being a provider again", back_s, "s")
    assert known_ms <= KNOWN_MS
    eventually(lambda: container(release.pod(component(part)), part)["restartCount"] == before + 1, 15.0, "the kubelet has told of it")
    assert release.pod(component(part))["metadata"]["uid"] == pod["metadata"]["uid"], "the container was started again, not the pod"
    eventually(lambda: caller.states(service) == ["up"], 10.0, f"{service} up")
    release.until_ready(component(part))
