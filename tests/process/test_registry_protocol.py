"""Section 1 of the protocol by raw bytes, as an old client speaks it: the right status and a reason each time, never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from classic import Classic
from programs import Program, eventually
from raw_http import RawAnswer, RawPeer, request
from registry_lab import instances, port_of, registry

GO_HEAD = (
    b"POST /services HTTP/1.1\r\nHost: registry:3000\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\n"
    b"Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
)
GOOD: dict[str, Any] = {
    "ServiceName": "GradingService",
    "ServiceURL": "http://127.0.0.1:1/grading",
    "RequiredServices": ["LogService"],
    "ServiceUpdateURL": "http://127.0.0.1:1/services",
    "HeartbeatURL": "http://127.0.0.1:1/heartbeat",
}
BODY = json.dumps(GOOD).encode()


@pytest.fixture(scope="module")
def running() -> Iterator[Program]:
    with registry("--heartbeat-interval", "10s") as running:
        yield running
        assert running.stop() == 0
        assert [line["message"] for line in running.events("request_failed")] == []


@pytest.fixture(autouse=True)
def clean(running: Program) -> Iterator[None]:
    yield
    for url in {one["ServiceURL"] for one in instances(running)}:
        assert delete(running, url.encode()).status == 200


def post(running: Program, body: bytes, *headers: str) -> RawAnswer:
    return request(port_of(running), "POST", "/services", body, *headers)


def delete(running: Program, body: bytes) -> RawAnswer:
    return request(port_of(running), "DELETE", "/services", body, "Content-Type: text/plain")


def assert_refused(got: RawAnswer, *statuses: int) -> None:
    assert got.status in (statuses or (400,))
    said = got.json()
    assert said["Error"]
    assert len(said["Message"]) > 10
    assert got.headers["content-type"] == "application/json"


def test_what_a_go_client_sends_is_taken(running: Program) -> None:
    with RawPeer(port_of(running)) as peer:
        peer.send(GO_HEAD % len(BODY) + BODY)
        got = peer.answer()
    assert got.status == 200
    assert set(got.json()) == {"InstanceID", "Revision", "Epoch", "State", "HeartbeatInterval", "Warnings"}
    (one,) = instances(running)
    assert (one["ServiceName"], one["ServiceURL"], one["RequiredServices"]) == ("GradingService", GOOD["ServiceURL"], ["LogService"])
    assert (one["State"], one["Protocol"]) == ("starting", 1)


@pytest.mark.parametrize(
    "changes", [{"RequiredServices": None}, {"RequiredServices": []}, {"RequiredServices": None, "ServiceUpdateURL": ""}]
)
def test_null_and_empty_lists_are_none(running: Program, changes: dict[str, Any]) -> None:
    assert post(running, json.dumps(GOOD | changes).encode()).status == 200
    assert instances(running)[0]["RequiredServices"] == []


def test_unknown_keys_are_ignored_however_they_look(running: Program) -> None:
    deep = BODY[:-1] + b',"X":' + b"[" * 100 + b"]" * 100 + b',"Y":{"Z":1e999}}'
    assert post(running, json.dumps(GOOD | {"Colour": {"a": [None, 1.5]}}).encode()).status == 200
    assert post(running, BODY[:-1] + b',"X":' + b"[" * 100 + b"]" * 100 + b"}").status == 200
    assert post(running, deep).status in (200, 400)


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Type: text/plain",),
        ("Content-Type: application/x-www-form-urlencoded",),
        ("Content-Type: application/json; charset=utf-8",),
        ("Content-Type:",),
        (),
    ],
)
def test_the_content_type_of_a_registration_does_not_matter(running: Program, headers: tuple[str, ...]) -> None:
    assert post(running, BODY, *headers).status == 200


def test_a_client_that_offers_http_2_is_registered_all_the_same(running: Program) -> None:
    """Java's own HttpClient and `curl --http2` send this with every first request."""
    assert post(running, BODY, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAA").status == 200


@pytest.mark.parametrize("head", [b"Host: a b\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a,b\r\n"])
def test_a_strange_host_is_400_with_a_reason_and_no_fault_in_the_log(running: Program, head: bytes) -> None:
    with RawPeer(port_of(running)) as peer:
        peer.send(b"POST /services HTTP/1.1\r\n" + head + b"Content-Length: 2\r\n\r\n{}")
        assert_refused(peer.answer())


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x", "multipart/mixed; boundary=x"])
def test_a_multipart_body_is_taken_or_refused_with_a_reason(running: Program, kind: str) -> None:
    got = post(running, BODY, f"Content-Type: {kind}")
    if got.status != 200:
        assert_refused(got, 400, 415)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        BODY[:-1],
        BODY[: len(BODY) // 2],
        BODY + b"x",
        BODY + BODY,
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf" + BODY,
        BODY.replace(b"GradingService", b"Grading\xffService"),
        BODY.replace(b"GradingService", b"\\ud800"),
        BODY.replace(b"GradingService", b"a\\u0000b"),
        BODY[:-1] + b',"Weight":NaN}',
        BODY[:-1] + b',"Weight":Infinity}',
        BODY[:-1] + b',"Weight":-Infinity}',
        BODY[:-1] + b',"Weight":1e400}',
        BODY[:-1] + b',"Weight":' + b"9" * 5000 + b"}",
        BODY[:-1] + b',"Incarnation":-1}',
        BODY[:-1] + b',"Incarnation":9223372036854775808}',
        b"[" * 100,
        b"[" * 100_000,
        b'{"RequiredServices":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"RequiredServices":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        BODY[:-1] + b',"X":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        BODY[:-1] + b',"X":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"ServiceName=A&ServiceURL=http://127.0.0.1:1",
        b"<xml/>",
    ],
)
def test_a_body_that_is_no_registration_is_400_with_a_reason(running: Program, body: bytes) -> None:
    assert_refused(post(running, body))
    assert instances(running) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ServiceName": 5}, "ServiceName"),
        ({"ServiceName": None}, "ServiceName"),
        ({"ServiceName": ["A"]}, "ServiceName"),
        ({"ServiceName": "a b"}, "ServiceName"),
        ({"ServiceName": "x" * 64}, "ServiceName"),
        ({"ServiceURL": {}}, "ServiceURL"),
        ({"ServiceURL": "localhost:6000"}, "ServiceURL"),
        ({"ServiceURL": "http://127.0.0.1:1/\r\nX: y"}, "ServiceURL"),
        ({"HeartbeatURL": "gopher://127.0.0.1:1/"}, "HeartbeatURL"),
        ({"HeartbeatURL": None}, "HeartbeatURL"),
        ({"ServiceUpdateURL": None}, "ServiceUpdateURL"),
        ({"RequiredServices": "LogService"}, "RequiredServices"),
        ({"RequiredServices": [None]}, "RequiredServices[0]"),
        ({"RequiredServices": ["A", ""]}, "RequiredServices[1]"),
    ],
)
def test_a_bad_key_is_named_in_the_answer(running: Program, changes: dict[str, Any], field: str) -> None:
    got = post(running, json.dumps(GOOD | changes).encode())
    assert_refused(got)
    assert got.json()["Field"].split("[")[0] == field.split("[")[0]


def test_of_a_key_given_twice_one_counts(running: Program) -> None:
    assert post(running, b'{"ServiceName":"First",' + BODY[1:]).status == 200
    assert len(instances(running)) == 1


def test_an_oversized_body_is_413_and_seen_while_still_sending(running: Program) -> None:
    with RawPeer(port_of(running)) as peer:
        peer.send(b"POST /services HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            peer.send(b" " * 100_000)
        assert_refused(peer.answer(), 413)


def test_truncated_by_the_clients_end_registers_nothing(running: Program) -> None:
    with RawPeer(port_of(running)) as peer:
        peer.send(b"POST /services HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(BODY) + 1) + BODY)
        peer.half_close()
        assert b"200 OK" not in peer.rest()
    assert instances(running) == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_405_with_what_is_possible(running: Program, method: str) -> None:
    got = request(port_of(running), method, "/services", BODY)
    assert_refused(got, 405)
    assert {"POST", "DELETE"} <= set(got.headers["allow"].split(", "))


@pytest.mark.parametrize("path", ["/", "/service", "/services/", "/Services", "//services", "/services/a/b/c", "/services%00", "/%ff"])
def test_another_path_is_never_a_fault(running: Program, path: str) -> None:
    assert request(port_of(running), "POST", path, BODY).status in (404, 405, 400)


def test_delete_removes_by_url_and_says_when_there_is_none(running: Program) -> None:
    assert post(running, BODY).status == 200
    assert post(running, json.dumps(GOOD | {"ServiceName": "Second"}).encode()).status == 200
    url = GOOD["ServiceURL"].encode()
    got = delete(running, url + b"\n")
    assert (got.status, got.json()) == (200, {"Removed": 2})
    assert_refused(delete(running, url), 404)
    assert instances(running) == []


@pytest.mark.parametrize("body", [b"", b" ", b"garbage", b"\xff\xfe", "http://ä".encode(), b"http://", b'{"ServiceURL":"x"}', b"x" * 5000])
def test_delete_of_what_is_no_url_is_400(running: Program, body: bytes) -> None:
    assert_refused(delete(running, body))


def test_registering_twice_is_one(running: Program) -> None:
    first, second = post(running, BODY).json(), post(running, BODY).json()
    assert first["InstanceID"] == second["InstanceID"]
    assert second["Revision"] > first["Revision"]
    assert len(instances(running)) == 1


def test_reads_with_filters(running: Program) -> None:
    port = port_of(running)
    post(running, json.dumps(GOOD | {"Tags": ["blue"], "Zone": "east"}).encode())
    post(running, json.dumps(GOOD | {"ServiceName": "LogService", "ServiceURL": "http://127.0.0.1:2"}).encode())

    def names(query: str) -> list[str]:
        return sorted(one["ServiceName"] for one in request(port, "GET", f"/services{query}").json()["Services"])

    assert names("") == ["GradingService", "LogService"]
    assert names("?name=LogService") == names("/LogService") == ["LogService"]
    assert names("?tag=blue") == names("?zone=east") == ["GradingService"]
    assert names("?state=up") == []
    assert names("?state=starting&tag=blue") == ["GradingService"]
    assert set(request(port, "GET", "/services").json()) == {"Revision", "Epoch", "Services"}
    assert request(port, "HEAD", "/services").status == 200


def test_a_name_never_seen_is_404_and_one_that_left_is_empty(running: Program) -> None:
    port = port_of(running)
    assert_refused(request(port, "GET", "/services/NeverSeen"), 404)
    post(running, json.dumps(GOOD | {"ServiceName": "WasHere"}).encode())
    delete(running, GOOD["ServiceURL"].encode())
    got = request(port, "GET", "/services/WasHere")
    assert (got.status, got.json()["Services"]) == (200, [])


def test_an_old_incarnation_is_409(running: Program) -> None:
    assert post(running, BODY[:-1] + b',"InstanceID":"i1","Incarnation":5}').status == 200
    assert_refused(post(running, BODY[:-1] + b',"InstanceID":"i1","Incarnation":4}'), 409)


def test_a_report_of_an_unknown_instance_is_404_and_a_bad_one_400(running: Program) -> None:
    port = port_of(running)
    assert_refused(request(port, "POST", "/services/none/state", b'{"State":"down"}'), 404)
    identity = post(running, BODY).json()["InstanceID"]
    for body in (b"", b"{}", b'{"State":"draining"}', b'{"State":"x"}', b"null"):
        assert_refused(request(port, "POST", f"/services/{identity}/state", body))
    assert_refused(request(port, "GET", f"/services/{identity}/state"), 405)


def test_patches_are_what_a_classic_client_reads(running: Program) -> None:
    with Classic() as provider, Classic() as dependent:
        dependent.register(running.url, "Portald", ["LogService"])
        provider.register(running.url, "LogService")
        eventually(lambda: dependent.table == [("LogService", provider.url)])
        provider.deregister(running.url)
        eventually(lambda: dependent.table == [])
        first, last = dependent.patches[0], dependent.patches[-1]
        assert [(entry["Name"], entry["URL"]) for entry in first["Added"]] == [("LogService", provider.url)]
        assert first["Removed"] == last["Added"] == []
        assert "Full" not in first
        assert dependent.patch_headers[0]["Content-Type"] == "application/json"
        dependent.deregister(running.url)
