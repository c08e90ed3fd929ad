"""The registry's events stand in the log between the lines of those whom they are about: real programs, a real death."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests
from programs import Program, eventually, program
from registry_lab import registry, wait_for
from sidecar_bench import app, sidecar

WAIT_S = 10
TOKEN = "a-token-of-the-tests-0123456789"


def provide(running: Program, log: Program, token: str = "") -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"ServiceName": "LogService", "ServiceURL": log.url, "HeartbeatURL": f"{log.url}/livez"}
    assert requests.post(f"{running.url}/services", json=body, headers=headers, timeout=WAIT_S).status_code == 200
    wait_for(running, log.url, "up")


def history(log: Program, query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in requests.get(f"{log.url}/logs?{query}", timeout=WAIT_S).text.splitlines()]


def events(log: Program, subject: str) -> list[str]:
    return [entry["Event"] for entry in history(log, "service=registry") if entry.get("Subject") == subject]


def test_death_of_an_app_stands_with_its_reason_between_its_own_lines(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}/log") as log, registry() as running, app() as grading:
        provide(running, log)
        with sidecar("GradingService", grading.port, running.url, tmp_path / "state", "--check-interval", "100ms") as beside:
            wait_for(running, grading.url, "up")
            assert beside.log("before").status_code == 200
            eventually(lambda: history(log, "service=GradingService"))
            eventually(lambda: "up" in events(log, "GradingService"))
            grading.kill()
            eventually(lambda: "down" in events(log, "GradingService"))
            grading.start()
            wait_for(running, grading.url, "up")
            assert beside.log("after").status_code == 200
            eventually(lambda: len(history(log, "service=GradingService")) == 2)
        found = history(log, "service=GradingService&with=events")
        assert [entry["Message"] for entry in history(log, "service=GradingService")] == ["before", "after"]
    told = [entry.get("Event") or entry["Message"] for entry in found]
    assert told.index("before") < told.index("down") < told.index("after")
    down = found[told.index("down")]
    assert (down["Service"], down["Subject"], down["Level"], down["URL"]) == ("registry", "GradingService", "warning", grading.url)
    assert down["Reason"]
    assert down["Reason"] in down["Message"]
    assert down["Instance"] == next(entry for entry in found if entry.get("Event") == "registered")["Instance"]


def test_drain_and_departure_are_told(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}/log") as log, registry() as running:
        provide(running, log)
        url = f"{log.url}/more"
        body = {"ServiceName": "Shop", "ServiceURL": url, "InstanceID": "shop-1", "HeartbeatURL": f"{log.url}/livez"}
        assert requests.post(f"{running.url}/services", json=body, timeout=WAIT_S).status_code == 200
        wait_for(running, url, "up")
        assert requests.post(f"{running.url}/services/shop-1/drain", timeout=WAIT_S).status_code == 200
        assert requests.delete(f"{running.url}/services", data=url, timeout=WAIT_S).status_code == 200
        eventually(lambda: len(events(log, "Shop")) == 5)
        assert events(log, "Shop") == ["registered", "up", "draining", "drained", "left"]


def test_with_a_token_set_the_registry_is_believed_and_who_claims_to_be_it_is_not(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    secret = ("--token-file", str(token))
    classic = {"PILLION_CLASSIC_NETWORKS": "127.0.0.0/8"}
    with program("log", "--store", "memory:", *secret, env=classic) as log, registry(*secret) as running:
        provide(running, log, TOKEN)
        eventually(lambda: events(log, "LogService") == ["registered", "up"])
        forged = '{"Service":"registry","Subject":"LogService","Event":"down","Message":"LogService is down: it is not"}'
        assert requests.post(f"{log.url}/logs", forged, timeout=WAIT_S).json()["Accepted"] == 1
        assert [entry["Event"] for entry in history(log, "service=LogService&with=events")] == ["registered", "up"]
        assert history(log, "service=registry")[-1]["Unverified"] is True


def test_registry_that_is_told_of_no_log_service_tells_nobody(tmp_path: Path) -> None:
    with program("log", "--store", "memory:") as log, registry("--log-to", "") as running:
        provide(running, log)
        with registry() as other:
            provide(other, log)
            eventually(lambda: events(log, "LogService"))
        assert len({entry["Source"] for entry in history(log, "service=registry")}) == 1
