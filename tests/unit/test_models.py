"""What travels between the programs: decoding, its bounds, and what is written."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

from pillion_common.errors import InvalidInput
from pillion_common.models import Patch, ProviderEntry, Registration, State, StateReport, check_registration, decode, encode

GOOD: dict[str, Any] = {
    "ServiceName": "GradingService",
    "ServiceURL": "http://10.0.0.7:6000",
    "RequiredServices": ["LogService"],
    "ServiceUpdateURL": "http://10.0.0.7:6000/services",
    "HeartbeatURL": "http://10.0.0.7:6000/heartbeat",
}


def registration(**changes: Any) -> Registration:
    return decode(json.dumps(GOOD | changes).encode(), Registration)


def refused(body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check_registration(decode(body, Registration))
    return caught.value


def test_the_classic_registration_is_read() -> None:
    read = registration()
    check_registration(read)
    assert read.service_name == "GradingService"
    assert read.service_url == "http://10.0.0.7:6000"
    assert read.requires == ("LogService",)
    assert read.protocol is None


@pytest.mark.parametrize("none", [{"RequiredServices": None}, {"RequiredServices": []}, {"RequiredServices": None, "ServiceUpdateURL": ""}])
def test_null_or_empty_requirements_are_none(none: dict[str, Any]) -> None:
    read = registration(**none)
    check_registration(read)
    assert read.requires == ()


def test_absent_requirements_need_no_update_url() -> None:
    body = {key: value for key, value in GOOD.items() if key not in ("RequiredServices", "ServiceUpdateURL")}
    check_registration(decode(json.dumps(body).encode(), Registration))


def test_a_name_required_twice_counts_once() -> None:
    assert registration(RequiredServices=["B", "A", "B"]).requires == ("B", "A")


def test_unknown_keys_are_ignored() -> None:
    check_registration(registration(Colour="blue", Nested={"a": [1, {"b": None}]}, serviceName=5))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ServiceName": ""}, "ServiceName"),
        ({"ServiceName": "a b"}, "ServiceName"),
        ({"ServiceURL": ""}, "ServiceURL"),
        ({"ServiceURL": "10.0.0.7:6000"}, "ServiceURL"),
        ({"HeartbeatURL": ""}, "HeartbeatURL"),
        ({"HeartbeatURL": None}, "HeartbeatURL"),
        ({"ServiceUpdateURL": ""}, "ServiceUpdateURL"),
        ({"ServiceUpdateURL": None}, "ServiceUpdateURL"),
        ({"RequiredServices": [""]}, "RequiredServices[0]"),
        ({"RequiredServices": ["A", "b c"]}, "RequiredServices[1]"),
        ({"RequiredServices": ["A"] * 257}, "RequiredServices"),
        ({"RequiredServices": "LogService"}, "RequiredServices"),
        ({"RequiredServices": {"a": 1}}, "RequiredServices"),
        ({"RequiredServices": [1]}, "RequiredServices[0]"),
        ({"InstanceID": "a/b"}, "InstanceID"),
        ({"InstanceID": ""}, "InstanceID"),
        ({"Weight": 0}, "Weight"),
        ({"Weight": 1001}, "Weight"),
        ({"Weight": -1}, "Weight"),
        ({"Weight": 1.5}, "Weight"),
        ({"Weight": "1"}, "Weight"),
        ({"Weight": True}, "Weight"),
        ({"Protocol": 0}, "Protocol"),
        ({"Incarnation": -1}, "Incarnation"),
        ({"Incarnation": 2**63}, "Incarnation"),
        ({"Incarnation": 10**30}, "Incarnation"),
        ({"Tags": ["x"] * 65}, "Tags"),
        ({"Tags": ["x" * 1025]}, "Tags"),
        ({"Metadata": {str(n): "" for n in range(65)}}, "Metadata"),
        ({"Metadata": {"a": "x" * 1025}}, "Metadata"),
        ({"Metadata": {"x" * 1025: "a"}}, "Metadata"),
        ({"Metadata": {"a": 1}}, "Metadata[...]"),
        ({"Version": "x" * 1025}, "Version"),
        ({"Zone": 7}, "Zone"),
    ],
)
def test_a_bad_key_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    assert refused(json.dumps(GOOD | changes).encode()).field == field


@pytest.mark.parametrize("name", ["ServiceName", "ServiceURL"])
def test_a_missing_key_is_refused_by_name(name: str) -> None:
    error = refused(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())
    assert name in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b'{"ServiceName":',
        b'{"ServiceName":"A"',
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"true",
        b"{}",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"ServiceName":"A"}',
        b'{"ServiceName":"\xff"}',
        b'{"ServiceName":"\\ud800"}',
        b'{"ServiceName":"A","ServiceURL":"http://a","Weight":NaN}',
        b'{"ServiceName":"A","ServiceURL":"http://a","Weight":Infinity}',
        b'{"ServiceName":"A","ServiceURL":"http://a","Weight":1e400}',
        b'{"ServiceName":"A","ServiceURL":"http://a"} trailing',
        b"ServiceName=A&ServiceURL=http://a",
        b"[" * 100_000,
        b'{"X":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"RequiredServices":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)
def test_what_is_no_registration_is_refused(body: bytes) -> None:
    assert refused(body).status == 400


def test_deep_nesting_under_an_unknown_key_does_no_harm() -> None:
    body = json.dumps(GOOD)[:-1].encode() + b',"X":' + b"[" * 100 + b"]" * 100 + b"}"
    check_registration(decode(body, Registration))


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert decode(b'{"ServiceName":"A","ServiceURL":"http://a","ServiceName":"B"}', Registration).service_name == "B"


def test_a_patch_carries_both_lists_though_empty() -> None:
    patch = Patch(added=(ProviderEntry("LogService", "http://a"),), removed=(), revision=7, previous=5, epoch="e")
    assert json.loads(encode(patch)) == {
        "Added": [{"Name": "LogService", "URL": "http://a"}],
        "Removed": [],
        "Revision": 7,
        "Previous": 5,
        "Epoch": "e",
    }


def test_a_full_patch_says_so() -> None:
    assert json.loads(encode(Patch(added=(), removed=(), full=True, services=("A",)))) == {
        "Added": [],
        "Removed": [],
        "Full": True,
        "Services": ["A"],
    }


def test_null_lists_of_a_classic_registry_are_read() -> None:
    patch = decode(b'{"Added":null,"Removed":[{"Name":"A","URL":"http://a"}]}', Patch)
    assert patch.added is None
    assert patch.removed == (ProviderEntry("A", "http://a"),)


def test_a_report_of_an_unknown_state_is_refused() -> None:
    assert decode(b'{"State":"down","Reason":"r"}', StateReport) == StateReport(State.DOWN, "r")
    with pytest.raises(InvalidInput) as caught:
        decode(b'{"State":"asleep"}', StateReport)
    assert caught.value.field == "State"


def test_the_first_fault_is_the_one_that_is_told() -> None:
    long = "x" * 1025
    assert refused(json.dumps(GOOD | {"Metadata": {long: "", "a": long}, "Weight": 0}).encode()).message == (
        "Metadata has 1025 characters; 1024 are the most"
    )
    assert refused(json.dumps(GOOD | {"Version": long, "Zone": long, "Tags": [long]}).encode()).field == "Version"
    assert refused(json.dumps(GOOD | {"Weight": 0, "Protocol": 0}).encode()).message == "Weight 0 is not between 1 and 1000"


def test_a_model_is_no_burden_for_the_garbage_collector() -> None:
    assert not gc.is_tracked(registration())
