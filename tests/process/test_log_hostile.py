"""Hostile messages through every intake: stored once, one line each, shown harmless, and nobody's entry but their sender's."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import requests
from hostile import FORGED, MESSAGES, in_json, plain
from programs import Program, eventually, program

WAIT_S = 20
TEN_MB = 10 * 1024 * 1024
HEAD = b"<14>1 - - Hostile - - - "
END = b"."  # a final line end or NUL is no part of a message

Send = Callable[[Program, Sequence[bytes]], None]


def post(log: Program, path: str, body: bytes) -> requests.Response:
    return requests.post(log.url + path, body, headers={"Content-Type": "application/json"}, timeout=WAIT_S)


def as_text(log: Program, messages: Sequence[bytes]) -> None:
    for message in messages:
        assert post(log, "/log", b"[Hostile] - " + message).status_code == 200


def as_ndjson(log: Program, messages: Sequence[bytes]) -> None:
    body = b"".join(b'{"Service":"Hostile","Message":%b}\n' % in_json(message) for message in messages)
    assert post(log, "/logs", body).json() == {"Accepted": len(messages), "Duplicates": 0, "Rejected": []}


def as_otlp(log: Program, messages: Sequence[bytes]) -> None:
    records = b",".join(b'{"body":{"stringValue":%b}}' % in_json(message) for message in messages)
    resource = b'{"attributes":[{"key":"service.name","value":{"stringValue":"Hostile"}}]}'
    answer = post(log, "/v1/logs", b'{"resourceLogs":[{"resource":%b,"scopeLogs":[{"logRecords":[%b]}]}]}' % (resource, records))
    assert answer.json() == {"partialSuccess": {}}


def where(log: Program) -> tuple[str, int]:
    host, _, port = log.addresses[1].removeprefix("syslog://").rpartition(":")
    return host, int(port)


def as_counted_syslog(log: Program, messages: Sequence[bytes]) -> None:
    with socket.create_connection(where(log), WAIT_S) as sender:
        for message in messages:
            sender.sendall(b"%d %b%b" % (len(HEAD + message), HEAD, message))


def as_syslog_lines(log: Program, messages: Sequence[bytes]) -> None:
    with socket.create_connection(where(log), WAIT_S) as sender:
        for message in messages:
            sender.sendall(HEAD + message + b"\n")


def as_datagrams(log: Program, messages: Sequence[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for message in messages:
            sender.sendto(HEAD + message, where(log))


INTAKES = [as_text, as_ndjson, as_otlp, as_counted_syslog, as_syslog_lines, as_datagrams]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Program]:
    with program("log", "--store", f"files:{tmp_path}", env={"PILLION_LOG_SYSLOG": "127.0.0.1:0"}) as running:
        yield running


def stored_lines(folder: Path) -> list[str]:
    lines = b"".join(path.read_bytes().rstrip(b"\0") for path in sorted(folder.glob("*.log"))).decode().splitlines()  # the widest idea
    return [line for line in lines if not line.startswith('{"Check":')]


@pytest.mark.parametrize("send", INTAKES)
def test_every_hostile_message_is_stored_once_and_shown_harmless(log: Program, tmp_path: Path, send: Send) -> None:
    sent = [message + END for message in MESSAGES]
    assert len(sent) >= 40
    if send is as_syslog_lines:  # where a line end is the end of a message, none has one
        sent = [message for message in sent if not {*b"\n\0"} & {*message}]
    send(log, sent)
    ask = f"{log.url}/logs?limit=10000"
    eventually(lambda: len(requests.get(ask, timeout=WAIT_S).content.splitlines()) >= len(sent), WAIT_S)
    as_json = requests.get(ask, timeout=WAIT_S)
    as_text = requests.get(ask, headers={"Accept": "text/plain"}, timeout=WAIT_S)
    for answer in (as_json, as_text):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not answer.headers["Content-Type"].startswith("text/html")
    for shown in (stored_lines(tmp_path), as_json.content.decode().splitlines(), as_text.content.decode().splitlines()):
        assert len(shown) == len(sent)
        assert [line for line in shown if not line.isprintable()] == []
    entries = [json.loads(line) for line in as_json.content.splitlines()]
    assert [plain(entry["Message"]) for entry in entries] == [plain(message) for message in sent]
    assert {entry["Service"] for entry in entries} == {"Hostile"}
    assert [entry for entry in entries if "Gap" in entry or "Check" in entry] == []


@pytest.mark.parametrize("send", INTAKES[3:5])
def test_line_of_10_mb_over_tcp_is_cut_and_says_so(log: Program, send: Send) -> None:
    send(log, [b"x" * TEN_MB, b"next"])
    eventually(lambda: len(requests.get(f"{log.url}/logs", timeout=WAIT_S).content.splitlines()) == 2, WAIT_S)
    first, second = requests.get(f"{log.url}/logs", timeout=WAIT_S).text.splitlines()
    entry = json.loads(first)
    assert len(entry["Message"]) <= 65_536 + 40
    kept = entry["Message"].index("…")
    assert entry["Message"] == "x" * kept + f"…[cut: {TEN_MB - kept} bytes]"
    assert entry["Cut"] == TEN_MB - kept
    assert json.loads(second)["Message"] == "next"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/log", b"x" * TEN_MB),
        ("/logs", b'{"Message":"%b"}' % (b"x" * TEN_MB)),
        ("/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"%b"}}]}]}]}' % (b"x" * TEN_MB)),
    ],
)
def test_line_of_10_mb_by_http_is_refused_with_what_to_do_and_nothing_of_it_is_stored(log: Program, path: str, body: bytes) -> None:
    answer = post(log, path, body)
    assert (answer.status_code, answer.json()["Error"]) == (413, "too_large")
    assert "8388608" in answer.json()["Message"]
    assert requests.get(f"{log.url}/logs", timeout=WAIT_S).content == b""


def test_fields_cannot_claim_what_only_the_log_service_says(log: Program) -> None:
    hostile = [
        b'{"Message":"m","Check":"00000000"}',
        b'{"Message":"m","Gap":17,"From":"x","To":"y"}',
        b'{"Message":"m","Unverified":false}',
        b'{"Message":"m","Received":"1999-01-01T00:00:00.000Z"}',
        b'{"Message":"m","Message":"n","Service":"A","Service":"B"}',
        b'{"Message":"m","\\n":"\\u2028","__proto__":{"Service":"Bank"}}',
        FORGED.replace(b"Bank", b"no bank"),
    ]
    answer = post(log, "/logs", b"\n".join(hostile)).json()
    assert (answer["Accepted"], [one["Line"] for one in answer["Rejected"]]) == (6, [7])
    lines = requests.get(f"{log.url}/logs", timeout=WAIT_S).content.decode().splitlines()
    entries = [json.loads(line) for line in lines]
    assert len(lines) == 6
    assert [line for line in lines if not line.isprintable() or not line.startswith('{"Time":')] == []
    assert [one for one in entries if "Gap" in one or "Unverified" in one or one["Received"] < "2000"] == []
