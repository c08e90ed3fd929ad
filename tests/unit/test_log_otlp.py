"""Which entries OpenTelemetry's log records become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pillion_common.errors import InvalidInput, TooLarge
from pillion_log.otlp import read_records

NOW = "2026-01-31T12:00:00.123Z"


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def request(*records: Any, resource: list[Any] | None = None, scope: str = "") -> bytes:
    scoped = {"scope": {"name": scope}, "logRecords": list(records)}
    return json.dumps({"resourceLogs": [{"resource": {"attributes": resource or []}, "scopeLogs": [scoped]}]}).encode()


def stored(*records: Any, resource: list[Any] | None = None, scope: str = "") -> list[dict[str, Any]]:
    runs, bad = read_records(request(*records, resource=resource, scope=scope), NOW)
    assert bad == []
    return [json.loads(run.lines) for run in runs]


def test_record_becomes_an_entry_with_all_it_says() -> None:
    record = {
        "timeUnixNano": "1769860799123456789",
        "observedTimeUnixNano": "1769860800000000000",
        "severityNumber": 17,
        "severityText": "ERR",
        "body": {"stringValue": "it fails"},
        "attributes": [attribute("http.status", intValue="500"), attribute("Gap", intValue=7)],
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
    }
    resource = [
        attribute("service.name", stringValue="GradingService"),
        attribute("service.instance.id", stringValue="grading-1"),
        attribute("host.name", stringValue="web1"),
    ]
    assert stored(record, resource=resource, scope="grades") == [
        {
            "Time": "2026-01-31T11:59:59.123456Z",
            "Received": NOW,
            "Service": "GradingService",
            "Level": "error",
            "Message": "it fails",
            "Instance": "grading-1",
            "http.status": 500,
            "Gap_": 7,
            "TraceId": "5b8efff798038103d269b633813fc60c",
            "SpanId": "eee19b7ec3c1b174",
            "SeverityText": "ERR",
            "Resource": {"host.name": "web1"},
            "Scope": "grades",
        }
    ]


def test_record_that_says_nothing_is_an_entry_all_the_same() -> None:
    assert stored({}) == [{"Time": NOW, "Received": NOW, "Service": "unknown", "Level": "info", "Message": ""}]


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ({"observedTimeUnixNano": 1769860800000000000}, "2026-01-31T12:00:00.000Z"),
        ({"timeUnixNano": "0", "observedTimeUnixNano": "1"}, "1970-01-01T00:00:00.000Z"),
        ({"timeUnixNano": "18446744073709551615"}, "2554-07-21T23:34:33.709551Z"),
        ({"timeUnixNano": "yesterday"}, NOW),
        ({"timeUnixNano": "-5"}, NOW),
        ({"timeUnixNano": 1.5}, NOW),
        ({"timeUnixNano": "9" * 5000}, NOW),
    ],
)
def test_time_is_the_events_or_else_that_of_its_observation_or_else_now(said: dict[str, Any], time: str) -> None:
    assert stored(said)[0]["Time"] == time


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ({"severityNumber": 1}, "trace"),
        ({"severityNumber": 8}, "debug"),
        ({"severityNumber": 9, "severityText": "Information"}, "info"),
        ({"severityNumber": 13}, "warning"),
        ({"severityNumber": 24}, "fatal"),
        ({"severityNumber": 25, "severityText": "NOTICE"}, "notice"),
        ({"severityNumber": 0, "severityText": ""}, "info"),
        ({"severityText": "Warn"}, "warn"),
        ({"severityNumber": True}, "info"),
    ],
)
def test_level_comes_from_the_number_or_else_from_the_text(said: dict[str, Any], level: str) -> None:
    assert stored(said)[0]["Level"] == level


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"stringValue": "text"}, "text"),
        ({"intValue": "-9223372036854775808"}, "-9223372036854775808"),
        ({"doubleValue": 1.5}, "1.5"),
        ({"doubleValue": "NaN"}, "NaN"),
        ({"boolValue": False}, "false"),
        ({"bytesValue": "aGVsbG8="}, "aGVsbG8="),
        ({"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "a"}, {}]}}, '[1,"a",null]'),
        ({"kvlistValue": {"values": [attribute("a", kvlistValue={"values": [attribute("b", intValue=1)]})]}}, '{"a":{"b":1}}'),
        ({}, ""),
        ("text", ""),
    ],
)
def test_body_of_any_type_becomes_a_message(body: Any, message: str) -> None:
    assert stored({"body": body})[0]["Message"] == message


def test_event_without_a_body_is_shown_by_its_name() -> None:
    (entry,) = stored({"eventName": "device.crash"})
    assert (entry["Message"], entry["EventName"]) == ("device.crash", "device.crash")


def test_service_name_that_is_none_becomes_one_and_stands_as_it_was_beside_it() -> None:
    (entry,) = stored({}, resource=[attribute("service.name", stringValue="my shop: ünit/1")])
    assert (entry["Service"], entry["Resource"]) == ("my-shop-nit-1", {"service.name": "my shop: ünit/1"})
    (entry,) = stored({}, resource=[attribute("service.name", stringValue="日本")])
    assert entry["Service"] == "unknown"


def test_record_that_is_none_is_told_apart_from_the_others() -> None:
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(34):
        deep = {"arrayValue": {"values": [deep]}}
    runs, bad = read_records(request({}, 5, {"body": deep}), NOW)
    assert (len(runs), bad) == (1, ["the log record is no object", "the log record is nested deeper than 32 levels"])


@pytest.mark.parametrize(
    "body", [b"{}", b'{"resourceLogs":5}', b'{"resourceLogs":[5,{"scopeLogs":[null,{"logRecords":null}]}]}', b'{"resourceLogs":[]}']
)
def test_request_without_records_is_nothing(body: bytes) -> None:
    assert read_records(body, NOW) == ([], [])


def test_request_that_is_no_json_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the body is not a JSON object"):
        read_records(b"\x0a\x00", NOW)


def test_request_is_bounded_in_records_and_in_what_is_stored() -> None:
    assert len(read_records(request(*[{}] * 10_000), NOW)[0]) == 10_000
    with pytest.raises(TooLarge, match="over 10000 log records"):
        read_records(request(*[{}] * 10_001), NOW)
    with pytest.raises(TooLarge, match="send fewer log records"):
        read_records(request(*[{}] * 1_000, resource=[attribute("big", stringValue="x" * 30_000)]), NOW)


def test_large_record_is_cut() -> None:
    (entry,) = stored({"body": {"stringValue": "x" * 1_000_000}})
    assert entry["Message"].endswith("…[cut: 934464 bytes]")
    assert entry["Cut"] == 934_464
