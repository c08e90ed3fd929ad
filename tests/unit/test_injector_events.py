"""Events for the API server: few, short, and never twice the same in a short time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillion_common.errors import ConfigError
from pillion_injector.events import MAX_KEPT, MAX_WAITING, Api, Events, document, find_api

ABOUT = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "namespace": "shop", "name": "shop-1", "uid": ""}


async def test_the_same_is_told_once_in_five_minutes_and_beyond_the_bound_is_dropped() -> None:
    now = 0.0
    events = Events(Api("http://127.0.0.1:9", "", ""), clock=lambda: now)
    for _ in range(3):
        events.tell(ABOUT, "no port")
    assert events._waiting.qsize() == 1
    now = 301.0
    events.tell(ABOUT, "no port")
    assert events._waiting.qsize() == 2
    for number in range(MAX_WAITING + 5):
        events.tell({**ABOUT, "name": f"shop-{number}"}, "other")
    assert events._waiting.qsize() == MAX_WAITING
    assert events.dropped == 7
    for number in range(MAX_KEPT + 50):
        while not events._waiting.empty():
            events._waiting.get_nowait()
        events.tell({**ABOUT, "name": f"many-{number}"}, "other")
    assert len(events._told) == MAX_KEPT
    events.close()


def test_an_event_is_of_the_form_the_api_server_takes() -> None:
    assert document(ABOUT, "x" * 2000, 1_790_000_000.9) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "pillion-", "namespace": "shop"},
        "involvedObject": {"kind": "ReplicaSet", "apiVersion": "apps/v1", "namespace": "shop", "name": "shop-1"},
        "reason": "SidecarNotInjected",
        "message": "x" * 1000,
        "type": "Warning",
        "source": {"component": "pillion-injector"},
        "firstTimestamp": "2026-09-21T14:13:20Z",
        "lastTimestamp": "2026-09-21T14:13:20Z",
        "count": 1,
    }


def test_the_api_server_is_found_as_a_pod_finds_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    here = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert find_api("", str(tmp_path), here).url == "https://[fd00::1]:6443"
    assert find_api("http://api:1/", str(tmp_path), {}) == Api("http://api:1", str(tmp_path / "token"), str(tmp_path / "ca.crt"))
    with pytest.raises(ConfigError, match="PILLION_API is needed"):
        find_api("", str(tmp_path), {})
    with pytest.raises(ConfigError, match="no file `token`"):
        find_api("http://api:1", str(tmp_path / "none"), {})
