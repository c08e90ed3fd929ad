"""GET /why: each situation made for real, and the finding that is expected first. GET /graph, and warnings at registration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from classic import Classic
from programs import Program, eventually
from registry_lab import registry, wait_for

TOKEN = "s3cret-s3cret-s3cret-s3cret"


class Case:
    """A registry with a consumer Portald that requires GradingService, and what is wrong with it."""

    def __init__(self, running: Program, stack: ExitStack) -> None:
        self.running = running
        self.stack = stack
        self.consumer = stack.enter_context(Classic())
        self.provider = stack.enter_context(Classic())

    def register(self, requires: list[str] | None = None, **more: Any) -> None:
        self.consumer.register(self.running.url, "Portald", ["GradingService"] if requires is None else requires, **more)
        wait_for(self.running, self.consumer.url, "up")

    def provide(self, peer: Classic | None = None, name: str = "GradingService", **more: Any) -> str:
        peer = peer or self.provider
        known = peer.register(self.running.url, name, **more).json()["InstanceID"]
        if peer.heartbeat == "ok":
            wait_for(self.running, peer.url, "up")
        return known

    def post(self, instance_id: str, what: str, **body: Any) -> None:
        assert requests.post(f"{self.running.url}/services/{instance_id}/{what}", json=body, timeout=5).status_code == 200

    def why(self, consumer: str = "Portald", service: str = "GradingService") -> list[dict[str, Any]]:
        answer = requests.get(f"{self.running.url}/why", params={"consumer": consumer, "service": service}, timeout=5)
        assert answer.status_code == 200, answer.text
        findings = answer.json()["Findings"]
        assert all(one["Code"] and one["Text"].endswith(".") and one["Do"] for one in findings)
        return findings

    def expect(self, code: str, consumer: str = "Portald", service: str = "GradingService") -> dict[str, Any]:
        """Return the first finding, as soon as it is that one."""
        return eventually(
            lambda: (found := self.why(consumer, service)[0])["Code"] == code and found, 5, lambda: f"{self.why(consumer, service)}"
        )


@pytest.fixture
def case() -> Iterator[Case]:
    with registry() as running, ExitStack() as stack:
        yield Case(running, stack)


def test_a_service_that_was_never_registered(case: Case) -> None:
    case.register()
    found = case.expect("not_registered")
    assert found["Text"] == "No instance of GradingService was ever registered here."


def test_a_service_that_left(case: Case) -> None:
    case.register()
    case.provide()
    case.provider.deregister(case.running.url)
    found = case.expect("not_registered")
    assert "the last one was left at 2" in found["Text"]
    assert found["Since"]


@pytest.mark.parametrize("name", ["gradingservice", "grading-service", "GradingServce", "Grading"])
def test_a_service_registered_under_a_similar_name(case: Case, name: str) -> None:
    case.register()
    case.provide(name=name)
    assert case.expect("similar_name")["Similar"] == name


def test_a_service_that_is_starting_with_its_last_error(case: Case) -> None:
    case.register()
    case.provider.heartbeat, case.provider.body = 503, b"reading the index"
    case.provide()
    found = eventually(lambda: (one := case.expect("starting"))["LastError"] and one)
    assert found["LastError"] == "reading the index"
    assert found["Since"] in found["Text"]


def test_a_service_whose_check_fails_with_its_last_error(case: Case) -> None:
    case.register()
    known = case.provide()
    case.provider.heartbeat, case.provider.body = 503, b"the disk is full"
    found = case.expect("check_failing")
    assert (found["LastError"], found["Instances"]) == ("the disk is full", [known])
    case.provider.die()
    eventually(lambda: "refused" in case.expect("check_failing")["LastError"])


def test_a_service_that_drains(case: Case) -> None:
    case.register()
    case.post(case.provide(), "drain", Reason="a new release")
    assert case.expect("draining")["LastError"] == "a new release"


def test_a_service_that_an_operator_hid(case: Case) -> None:
    case.register()
    case.post(case.provide(), "hide", Seconds=60, Reason="a drill")
    assert "a drill" in case.expect("withdrawn_by_hand")["LastError"]


def test_what_most_instances_have_comes_first(case: Case) -> None:
    case.register()
    others = [case.stack.enter_context(Classic()) for _ in range(2)]
    case.post(case.provide(), "drain")
    for other in others:
        case.provide(other)
        other.heartbeat = 503
        wait_for(case.running, other.url, "down")
    assert [one["Code"] for one in case.why()][:2] == ["check_failing", "draining"]


def test_a_consumer_that_never_required_it(case: Case) -> None:
    case.register(requires=["Other"])
    case.provide()
    assert "PILLION_REQUIRES" in case.expect("not_required")["Do"]


def test_a_consumer_that_is_not_registered(case: Case) -> None:
    case.provide()
    case.expect("consumer_not_registered")
    case.register()
    assert case.expect("similar_name", consumer="portal")["Similar"] == "Portald"


def test_a_consumer_that_does_not_acknowledge(case: Case) -> None:
    case.register()
    case.consumer.patch = 500
    case.provide()
    found = case.expect("patch_unacknowledged")
    assert "500" in found["LastError"]
    assert found["Since"] in found["Text"]
    case.consumer.patch = "ok"
    assert case.expect("fine")["Text"] == "Portald has acknowledged the only provider of GradingService."


def test_a_consumer_that_has_not_answered_yet_has_a_stale_table(case: Case) -> None:
    case.register()
    case.consumer.delay_s = 0.25
    case.provide()
    case.expect("stale_table")
    case.consumer.delay_s = 0.0
    case.expect("fine")


def test_a_consumer_that_cannot_be_reached(case: Case) -> None:
    case.register()
    case.provide()
    case.consumer.die()
    wait_for(case.running, case.consumer.url, "down")
    case.provider.heartbeat = 503
    wait_for(case.running, case.provider.url, "down")
    case.provider.heartbeat = "ok"
    wait_for(case.running, case.provider.url, "up")
    assert case.expect("consumer_unreachable")["LastError"]


def test_a_consumer_that_refuses_the_token(case: Case) -> None:
    case.register()
    case.consumer.patch = 401
    case.provide()
    assert "401" in case.expect("token_refused")["LastError"]


def test_a_service_or_consumer_whose_token_was_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    with registry("--token-file", str(token)) as running, ExitStack() as stack:
        case = Case(running, stack)
        assert case.provider.register(running.url, "GradingService").status_code == 401
        found = case.expect("token_refused")
        assert "GradingService wanted to register from 127.0.0.1" in found["Text"]
        assert case.consumer.register(running.url, "Portald").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        requests.post(running.url + "/services", json=case.provider.registration("GradingService"), headers=headers, timeout=5)
        assert "Portald wanted" in case.expect("token_refused")["Text"]


def test_a_service_whose_registration_was_refused(case: Case) -> None:
    case.register()
    refused = case.provider.register(case.running.url, "GradingService", Weight=5000)
    assert refused.status_code == 400
    assert "Weight" in case.expect("registration_refused")["LastError"]


def silent_peers(case: Case, count: int = 4) -> list[str]:
    """Make all instances of a service hang at once; return their ids."""
    peers = [case.provider] + [case.stack.enter_context(Classic()) for _ in range(count - 1)]
    ids = [case.provide(peer) for peer in peers]
    for peer in peers:
        peer.heartbeat = "hang"
    return ids


def test_a_service_that_the_guard_keeps(case: Case) -> None:
    case.register()
    ids = silent_peers(case)
    found = case.expect("kept_by_guard")
    assert "kept by the guard: " in found["LastError"]
    assert set(found["Instances"]) <= set(ids)
    shown = requests.get(f"{case.running.url}/services/GradingService", timeout=5).json()["Services"]
    assert {one["State"] for one in shown} == {"up"}
    assert any(one["Suspect"] and one["SuspectUntil"] for one in shown)
    metrics = requests.get(f"{case.running.url}/metrics", timeout=5).text
    assert 'pillion_registry_guards{scope="service"} 1' in metrics
    events = requests.get(f"{case.running.url}/events?name=GradingService", timeout=5).json()["Events"]
    assert [(one["Service"], one["InstanceID"]) for one in events if one["Event"] == "guard on"] == [("GradingService", None)]


def test_a_service_that_was_withdrawn_when_the_guards_time_was_over() -> None:
    with registry("--guard-time", "1s") as running, ExitStack() as stack:
        case = Case(running, stack)
        case.register()
        silent_peers(case)
        assert "the guard kept it for " in case.expect("withdrawn_after_guard")["LastError"]

        def turns() -> list[str]:
            events = requests.get(f"{running.url}/events?name=GradingService", timeout=5).json()["Events"]
            return [one["Event"] for one in events if one["Event"].startswith("guard")]

        eventually(lambda: turns() == ["guard on", "guard off"])


def test_a_service_that_is_held_down_for_flapping(case: Case) -> None:
    case.register()
    known = case.provide()
    for _ in range(4):
        case.provider.heartbeat = 503
        wait_for(case.running, case.provider.url, "down")
        case.provider.heartbeat = "ok"
        eventually(lambda: case.why()[0]["Code"] in ("fine", "held_for_flapping"))
    found = case.expect("held_for_flapping")
    assert found["Instances"] == [known]
    assert found["LastError"].startswith("held down for flapping: more than 6 changes within a minute")
    shown = requests.get(f"{case.running.url}/services/GradingService", timeout=5).json()["Services"][0]
    assert (shown["State"], shown["Reason"]) == ("down", found["LastError"])
    events = requests.get(f"{case.running.url}/events?name=GradingService", timeout=5).json()["Events"]
    assert [one["Event"] for one in events][-2:] == ["down", "held"]
    assert "pillion_registry_held 1" in requests.get(f"{case.running.url}/metrics", timeout=5).text
    wait_for(case.running, case.provider.url, "up", timeout_s=10)


def test_too_few_of_what_is_needed(case: Case) -> None:
    case.register(Needs={"GradingService": 2})
    case.provide()
    assert case.expect("too_few")["Text"] == "Portald needs 2 of GradingService, and 1 is up."


def test_providers_that_have_not_been_checked_since_the_registry_restarted(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:{tmp_path}/registry.db")
    with ExitStack() as stack:
        with registry(*store) as running:
            case = Case(running, stack)
            case.register()
            case.provide()
            time.sleep(0.3)
            running.kill()
        case.provider.heartbeat = "hang"
        with registry(*store, "--heartbeat-timeout", "3s") as running:
            case.running = running
            case.expect("unchecked")


def test_an_address_that_only_its_own_host_reaches_is_a_warning(case: Case) -> None:
    address = _own_address()
    with registry("--listen", "0.0.0.0:0", "--targets", "0.0.0.0/0") as running:
        port = running.url.rpartition(":")[2]
        case.running = running
        running_url = f"http://127.0.0.1:{port}"
        requests.post(f"{running_url}/services", json=case.provider.registration("GradingService"), timeout=5)
        body = case.consumer.registration("Portald", ["GradingService"])
        requests.post(f"http://{address}:{port}/services", json=body, timeout=5)
        eventually(lambda: case.consumer.table)
        case.expect("fine")
        assert [(one["Code"], one["Warning"]) for one in case.why()] == [("fine", False), ("address_not_reachable", True)]


def test_all_is_well(case: Case) -> None:
    case.register()
    case.provide()
    found = case.expect("fine")
    assert found["Since"]
    known = requests.get(case.running.url + "/services/Portald", timeout=5).json()["Services"][0]["InstanceID"]
    assert case.expect("fine", consumer=known)


def test_what_is_not_said_is_asked_for(case: Case) -> None:
    answer = requests.get(case.running.url + "/why", params={"consumer": "Portald"}, timeout=5)
    assert (answer.status_code, answer.json()["Field"]) == (400, "service")


def test_a_registration_is_warned_of_what_nobody_offers_and_once_in_the_log(case: Case) -> None:
    case.provide()
    for _ in range(3):
        answer = case.consumer.register(case.running.url, "Portald", ["GradingServce", "Db", "Cache"], Needs={"Cache": 0, "Db": 2})
    assert answer.json()["Warnings"] == [
        "Portald requires GradingServce, which nobody has registered; did you mean GradingService?",
        "Portald requires Db, which nobody has registered yet",
    ]
    eventually(lambda: [one["required"] for one in case.running.events("requirement_missing")] == ["GradingServce", "Db"])
    shown = requests.get(case.running.url + "/services/Portald", timeout=5).json()["Services"][0]
    assert (shown["RequiredServices"], shown["Needs"]) == (["GradingServce", "Db", "Cache"], {"Cache": 0, "Db": 2})
    graph = requests.get(case.running.url + "/graph", timeout=5).json()
    assert [(one["Name"], one["Similar"]) for one in graph["Missing"]] == [("Db", None), ("GradingServce", "GradingService")]


@pytest.mark.parametrize("needs", [{"Other": 1}, {"Db": -1}, {"Db": 1001}, {"Db": "x"}])
def test_needs_that_make_no_sense_are_refused(case: Case, needs: dict[str, Any]) -> None:
    refused = case.consumer.register(case.running.url, "Portald", ["Db"], Needs=needs)
    assert (refused.status_code, refused.json()["Field"].partition("[")[0]) == (400, "Needs")


def _own_address() -> str:
    """Return an address of this machine that is not loopback; what is sent to it stays on the machine."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])
