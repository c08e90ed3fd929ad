"""The log service as its clients see it: the real program, over HTTP."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program

WAIT_S = 10
RECORD = b"""{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"%b"}}]},
"scopeLogs":[{"logRecords":[{"body":{"stringValue":"%b"}}]}]}]}"""
TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program("log", "--store", f"files:{tmp_path_factory.mktemp('log')}") as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def post(url: str, body: bytes | str, **headers: str) -> requests.Response:
    return requests.post(url, data=body, headers=headers, timeout=WAIT_S)


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=WAIT_S)


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["Error"]


def test_classic_message_is_stored_and_found_again(shared: Program) -> None:
    answer = post(shared.url + "/log", "[Classic] - GET /students\n")
    assert (answer.status_code, answer.content) == (200, b"")
    assert [json.loads(line)["Message"] for line in get(shared.url + "/logs?service=Classic").text.splitlines()] == ["GET /students"]


def test_client_of_http_1_0_is_answered_and_let_go(shared: Program) -> None:
    host, _, port = shared.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as peer:
        peer.sendall(b"POST /log HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        answer = b"".join(iter(lambda: peer.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_client_that_leaves_before_the_answer_harms_nobody(shared: Program) -> None:
    host, _, port = shared.url.removeprefix("http://").partition(":")
    for number in range(20):
        with socket.create_connection((host, int(port)), WAIT_S) as peer:
            peer.sendall(b"POST /log HTTP/1.1\r\nHost: log\r\nContent-Length: 12\r\n\r\n[Gone] - %3d" % number)
    assert post(shared.url + "/log", "[Gone] - last").status_code == 200
    kept = [json.loads(line)["Message"] for line in get(shared.url + "/logs?service=Gone").text.splitlines()]
    assert sorted(kept) == sorted([*(f"{number:3d}" for number in range(20)), "last"])
    assert shared.events("request_failed") == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_log_takes_nothing_but_post(shared: Program, method: str) -> None:
    answer = requests.request(method, shared.url + "/log", timeout=WAIT_S)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_logs_takes_get_and_post_alone(shared: Program) -> None:
    answer = requests.put(shared.url + "/logs", data="x", timeout=WAIT_S)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert requests.head(shared.url + "/logs", timeout=WAIT_S).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/log", b"", (400, "empty")),
        ("/log", b"\r\n", (400, "empty")),
        ("/log", b"x" * (8 * 1024 * 1024 + 1), (413, "too_large")),
        ("/logs", b"", (400, "empty")),
        ("/logs", b"{}\n" * 10_001, (413, "too_many_lines")),
        ("/logs", b"x" * (8 * 1024 * 1024 + 1), (413, "too_large")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bodies_out_of_bounds_are_refused_with_a_reason(shared: Program, path: str, body: bytes, expected: tuple[int, str]) -> None:
    assert error(post(shared.url + path, body)) == expected


def test_body_of_unknown_coding_is_refused(shared: Program) -> None:
    answer = post(shared.url + "/logs", b"\x28\xb5", **{"Content-Encoding": "br"})
    assert error(answer) == (415, "wrong_type")
    assert "Content-Encoding: gzip or zstd" in answer.json()["Message"]


@pytest.mark.parametrize("path", ["/log", "/logs", "/v1/logs"])
def test_packed_body_is_unpacked_and_a_bomb_is_not(shared: Program, path: str) -> None:
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    body = {"/log": b"[Gzip] - m", "/logs": b'{"Service":"Gzip","Message":"m"}', "/v1/logs": RECORD % (b"Gzip", b"m")}[path]
    before = len(get(shared.url + "/logs?service=Gzip").text.splitlines())
    assert post(shared.url + path, gzip.compress(body), **packed).status_code == 200
    assert len(get(shared.url + "/logs?service=Gzip").text.splitlines()) == before + 1
    bomb = gzip.compress(b" " * (1 << 28), 1)
    assert error(post(shared.url + path, bomb, **packed)) == (413, "too_large")
    assert error(post(shared.url + path, body, **packed)) == (400, "bad_gzip")
    assert error(post(shared.url + path, gzip.compress(body)[:-3], **packed)) == (400, "bad_gzip")


def test_log_records_of_opentelemetry_are_taken_as_json_alone(shared: Program) -> None:
    url = shared.url + "/v1/logs"
    as_json = {"Content-Type": "application/json; charset=utf-8"}
    answer = post(url, RECORD % (b"Otel", b"m"), **as_json)
    assert (answer.status_code, answer.content) == (200, b'{"partialSuccess":{}}')
    assert get(shared.url + "/logs?service=Otel").json()["Message"] == "m"
    assert post(url, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[1,2]}]}]}', **as_json).json() == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "the log record is no object; and 1 more"}
    }
    answer = post(url, b"\n\x00", **{"Content-Type": "application/x-protobuf"})
    assert error(answer) == (415, "wrong_type")
    assert "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/json" in answer.json()["Message"]
    assert error(post(url, b"[]", **as_json)) == (400, "invalid_input")
    assert (get(url).status_code, get(url).headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "application/octet-stream"])
def test_content_type_does_not_matter(shared: Program, content_type: str) -> None:
    assert post(shared.url + "/log", b"a=b&" * 2000, **{"Content-Type": content_type}).status_code == 200


def test_batch_is_answered_line_by_line_and_a_repeat_is_harmless(shared: Program) -> None:
    body = b'{"Service":"Batch","Message":"one","Source":"s","Seq":1}\n{"Service":"bad name","Message":"x"}\n'
    first = post(shared.url + "/logs", body).json()
    assert (first["Accepted"], first["Duplicates"], [rejected["Line"] for rejected in first["Rejected"]]) == (1, 0, [2])
    assert post(shared.url + "/logs", body).json()["Duplicates"] == 1
    assert len(get(shared.url + "/logs?service=Batch").text.splitlines()) == 1


def test_answer_is_ndjson_or_text_as_asked(shared: Program) -> None:
    post(shared.url + "/logs", b'{"Service":"Shape","Level":"WARNING","Time":"2026-01-31T12:00:00.123Z","Message":"m"}')
    url = shared.url + "/logs?service=Shape"
    for answer in (get(url), get(url, Accept="application/x-ndjson, text/plain"), get(url + "&format=ndjson", Accept="text/plain")):
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.json()["Message"] == "m"
    for answer in (get(url, Accept="text/plain"), get(url + "&format=text")):
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text == "2026-01-31T12:00:00.123Z Shape warning m\n"


@pytest.mark.parametrize("query", ["limit=0", "order=up", "since=x", "nonsense=1", "format=xml", "limit=1&limit=2", "service=a%20b"])
def test_bad_parameter_is_refused_and_named(shared: Program, query: str) -> None:
    answer = get(shared.url + "/logs?" + query)
    assert (answer.status_code, answer.json()["Field"]) == (400, query.partition("=")[0])


def test_long_answer_is_streamed_whole_and_in_order(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}") as log:
        for start in range(0, 12_000, 2_000):
            lines = [json.dumps({"Message": f"{number} {'x' * 200}"}) for number in range(start, start + 2_000)]
            assert post(log.url + "/logs", "\n".join(lines)).json()["Accepted"] == 2_000
        found = [int(json.loads(line)["Message"].split()[0]) for line in get(log.url + "/logs?limit=10000").text.splitlines()]
        assert found == list(range(2_000, 12_000))
        newest = get(log.url + "/logs?limit=3&order=desc&format=text").text.splitlines()
        assert [row.split()[3] for row in newest] == ["11999", "11998", "11997"]


def test_client_that_leaves_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}") as log:
        for _ in range(3):
            post(log.url + "/logs", b"\n".join([b'{"Message":"%s"}' % (b"x" * 700)] * 10_000))
        for _ in range(8):  # more than may run at once: each must give its place back
            with requests.get(log.url + "/logs?limit=10000", stream=True, timeout=WAIT_S) as answer:
                assert answer.raw.read(1000)
        assert len(get(log.url + "/logs?limit=10").text.splitlines()) == 10
        assert log.events("request_failed") == []


def test_probes_and_version_answer(shared: Program) -> None:
    assert get(shared.url + "/livez").json() == {"Status": "ok"}
    assert get(shared.url + "/readyz").json() == {"Status": "ok", "Checks": {"store": "ok"}}
    assert get(shared.url + "/version").json()["Version"]
    assert error(get(shared.url + "/nothing")) == (404, "no_such_path")


def test_writing_needs_the_token_and_reading_does_not(token_file: Path) -> None:
    with program("log", "--store", "memory:", "--token-file", str(token_file)) as log:
        assert error(post(log.url + "/log", "x")) == (401, "token_missing")
        assert error(post(log.url + "/logs", '{"Message":"m"}', Authorization="Bearer wrong")) == (403, "token_wrong")
        assert post(log.url + "/log", "x", Authorization=f"Bearer {TOKEN}").status_code == 200
        assert len(get(log.url + "/logs").text.splitlines()) == 1
        assert log.events("no_token") == []


def test_classic_clients_write_without_the_token_from_their_networks_and_their_lines_are_flagged(token_file: Path) -> None:
    with program("log", "--store", "memory:", "--token-file", str(token_file), env={"PILLION_CLASSIC_NETWORKS": "127.0.0.0/8"}) as log:
        assert post(log.url + "/log", "[A] - x").status_code == 200
        assert post(log.url + "/log", "[A] - y", Authorization=f"Bearer {TOKEN}").status_code == 200
        found = [json.loads(line) for line in get(log.url + "/logs").text.splitlines()]
        assert [(one["Message"], one.get("Unverified")) for one in found] == [("x", True), ("y", None)]


def test_page_of_another_site_cannot_write(shared: Program) -> None:
    for path in ("/log", "/logs"):
        assert error(post(shared.url + path, '{"Message":"m"}', **{"Sec-Fetch-Site": "cross-site"})) == (403, "cross_site")


def test_unset_token_is_said_once_at_start(shared: Program) -> None:
    assert len(shared.events("no_token")) == 1


def test_all_faults_of_the_configuration_are_told_at_once() -> None:
    words = [sys.executable, "-m", "pillion_common", "log", "--log-rotate-age", "never", "--log-rotate", "1K", "--listen", "here"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 2
    assert [word for word in ("--log-rotate-age", "--log-rotate", "--listen") if word in ended.stderr] == [
        "--log-rotate-age",
        "--log-rotate",
        "--listen",
    ]


def test_log_injection_cannot_forge_an_entry(tmp_path: Path) -> None:
    """defect: log_injection"""
    forged = '{"Time":"2026-01-31T12:00:00Z","Service":"Bank","Message":"paid"}'
    hostile = f"[A] - x\n{forged}\r\n2026-01-31T12:00:00.000Z Bank info  paid\u2028{forged}\x85\x1b[2J\u202e\x00"
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert post(log.url + "/log", hostile.encode()).status_code == 200
        assert post(log.url + "/logs", json.dumps({"Message": hostile, "Level": "in\nfo", "x\n": "\u2028"})).json()["Accepted"] == 1
        as_text, as_json = get(log.url + "/logs?format=text").text, get(log.url + "/logs").text
    stored = [line for line in (tmp_path / "00000000000000000000.log").read_text().splitlines() if not line.startswith('{"Check":')]
    for shown in (as_text, as_json, "\n".join(stored)):
        assert len(shown.splitlines()) == 2  # Python's idea of a line end is the widest there is
        assert all(line.isprintable() for line in shown.splitlines())
    assert [json.loads(line)["Service"] for line in as_json.splitlines()] == ["A", "unknown"]


def test_log_exits_never_stdin_may_be_at_its_end_or_closed(tmp_path: Path) -> None:
    """defect: log_exits"""
    with program("log", "--store", "memory:") as log:  # its stdin is at its end
        assert post(log.url + "/log", "x").status_code == 200
        assert log.process.poll() is None
    words = [sys.executable, "-m", "pillion_common", "log", "--listen", "127.0.0.1:0", "--store", f"files:{tmp_path}/data"]
    with (tmp_path / "stderr").open("w") as stderr:
        closed = subprocess.Popen(["sh", "-c", 'exec "$@" <&-', "sh", *words], stderr=stderr)
    try:
        rows = eventually(lambda: [row for row in (tmp_path / "stderr").read_text().splitlines() if '"listening"' in row])
        url = json.loads(rows[0])["addresses"][0]
        for number in range(20):
            assert post(url + "/log", f"line {number}").status_code == 200
        assert closed.poll() is None
        closed.terminate()
        assert closed.wait(WAIT_S) == 0
    finally:
        closed.kill()
        closed.wait(WAIT_S)
    assert (tmp_path / "data" / "00000000000000000000.log").read_text().count('"Message"') == 20
