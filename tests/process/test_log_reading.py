"""Reading the log over HTTP, from the real program: pages, numbers, tails, and what becomes of them at its end."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program

WAIT_S = 10


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program("log", "--store", f"files:{tmp_path_factory.mktemp('log')}") as running:
        yield running


def add(log: Program, service: str, *messages: str, **fields: object) -> None:
    lines = [json.dumps({"Service": service, "Message": message, **fields}) for message in messages]
    assert requests.post(log.url + "/logs", data="\n".join(lines), timeout=WAIT_S).json()["Accepted"] == len(messages)


def get(log: Program, path: str, **headers: str) -> requests.Response:
    return requests.get(log.url + path, headers=headers, timeout=WAIT_S)


def messages(answer: requests.Response) -> list[str]:
    return [told["Message"] for line in answer.text.splitlines() if "Message" in (told := json.loads(line))]


class Tail(threading.Thread):
    """Reads a tail until it ends."""

    def __init__(self, log: Program, query: str, **headers: str) -> None:
        super().__init__(daemon=True)
        self._connection = HTTPConnection(log.url.removeprefix("http://"), timeout=WAIT_S)
        self._connection.connect()
        self._socket = self._connection.sock
        self._connection.request("GET", f"/logs/tail?{query}", headers=headers)
        self._answer = self._connection.getresponse()
        self.lines: list[str] = []
        self.start()
        eventually(lambda: ": here" in self.lines)

    def run(self) -> None:
        with self._answer:
            while line := self._answer.readline():
                self.lines.append(line.decode().rstrip("\n"))

    def messages(self) -> list[str]:
        return [json.loads(line[6:])["Message"] for line in list(self.lines) if line.startswith("data: {")]

    def last_id(self) -> str:
        return [line for line in self.lines if line.startswith("id: ")][-1][4:]

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self.join(WAIT_S)
        self._connection.close()


def test_pages_give_each_entry_once_while_others_are_written(log: Program) -> None:
    add(log, "Paged", *(f"p{number}" for number in range(25)))
    pages, cursor = [], ""
    for number in range(4):
        answer = get(log, f"/logs?service=Paged&limit=10&order=desc&cursor={cursor}")
        pages += messages(answer)
        cursor = answer.headers.get("X-Pillion-Cursor", "")
        if not cursor:
            break
        add(log, "Paged", f"new {number}")
    assert pages == [f"p{number}" for number in range(24, -1, -1)]
    assert answer.headers["X-Pillion-Done"] == "true"


def test_last_line_has_the_cursor_where_it_is_asked_for(log: Program) -> None:
    add(log, "Told", "a", "b", "c")
    told = json.loads(get(log, "/logs?service=Told&limit=2&page=1&order=desc").text.splitlines()[-1])
    assert messages(get(log, f"/logs?service=Told&cursor={told['Cursor']}")) == ["a"]
    text = get(log, "/logs?service=Told&page=1&format=text").text.splitlines()
    assert text[-1] == '# {"Cursor":null,"Scanned":"","Done":true}'


def test_regular_expressions_and_case(log: Program) -> None:
    add(log, "Sought", "GET /students/17 200", "POST /students 500", "Timed OUT")
    assert messages(get(log, r"/logs?service=Sought&re=students/\d%2B")) == ["GET /students/17 200"]
    assert messages(get(log, "/logs?service=Sought&q=timed out&i=1")) == ["Timed OUT"]
    refused = get(log, "/logs?re=(")
    assert (refused.status_code, refused.json()["Field"]) == (400, "re")


def test_stats_count_lines_and_gaps_as_json_and_as_a_table(log: Program) -> None:
    add(log, "Counted", "one", Source="s", Seq=1)
    add(log, "Counted", "five", Source="s", Seq=5)
    told = get(log, "/stats").json()
    counted = told["Services"]["Counted"]
    assert (counted["Lines"], counted["Gaps"]) == (3, 3)  # the gap is an entry as well
    assert told["Total"]["Lines"] == sum(count["Lines"] for count in told["Services"].values())
    rows = get(log, "/stats", Accept="text/plain").text.splitlines()
    assert [row.split()[:2] for row in rows if row.startswith("Counted")] == [["Counted", "3"]]


def test_metrics_are_numbers_that_prometheus_reads(log: Program) -> None:
    add(log, "Measured", "one")
    answer = get(log, "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    rows = [row for row in answer.text.splitlines() if not row.startswith("#")]
    assert all(re.fullmatch(r'pillion_log_\w+(\{service="[^"]+"\})? \d+', row) for row in rows)
    assert 'pillion_log_entries{service="Measured"} 1' in rows
    assert "pillion_log_store_fault 0" in rows


def test_metrics_count_what_was_taken_repeated_and_refused(log: Program) -> None:
    def counted() -> list[int]:
        rows = dict(row.rsplit(" ", 1) for row in get(log, "/metrics").text.splitlines() if not row.startswith("#"))
        return [int(rows[f"pillion_log_{name}_total"]) for name in ("accepted", "duplicates", "rejected")]

    before = counted()
    requests.post(f"{log.url}/log", data=b"[Counts] - text", timeout=5).raise_for_status()
    line = b'{"Message":"m","Source":"counts","Seq":1}\n'
    requests.post(f"{log.url}/logs", data=line + line + b"no entry\n", timeout=5).raise_for_status()
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [2, 1, 1]


def test_tail_follows_and_is_resumed_by_its_id_over_a_restart(tmp_path: Path) -> None:
    words = ("--store", f"files:{tmp_path}")
    with program("log", *words) as log:
        add(log, "A", "before")
        tail = Tail(log, "service=A")
        add(log, "A", "one", "two")
        eventually(lambda: tail.messages() == ["one", "two"])
        seen = tail.last_id()
    tail.close()
    assert not tail.is_alive()  # the stream ended with the log service
    with program("log", *words) as log:
        add(log, "A", "three")
        again = Tail(log, "service=A", **{"Last-Event-ID": seen})
        add(log, "A", "four")
        eventually(lambda: again.messages() == ["three", "four"])
        again.close()


def test_log_service_stops_at_once_with_tails_open() -> None:
    with program("log", "--store", "memory:") as log:
        tails = [Tail(log, f"service=S{number % 3}") for number in range(20)]
        began = time.monotonic()
        assert log.stop() == 0
        assert time.monotonic() - began < 3
        for tail in tails:
            tail.close()
            assert not tail.is_alive()
        assert log.events("request_failed") == []


def test_reader_that_does_not_read_costs_the_others_nothing(log: Program) -> None:
    with contextlib.closing(requests.get(f"{log.url}/logs/tail?service=Flood", stream=True, timeout=WAIT_S)):
        tail = Tail(log, "service=Flood")
        for number in range(40):
            add(log, "Flood", *(f"{number} {line} " + "x" * 900 for line in range(500)))
            eventually(lambda told=500 * (number + 1): len(tail.lines) >= 3 * told, 20)  # one that keeps up, however slow the machine
        assert len(tail.messages()) == 20_000
        tail.close()
