"""Log lines of the app, many at once: what is taken, what is refused, and that whatever is taken here is taken by the log service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import InvalidInput, PillionError, StorageFull, TooLarge
from pillion_common.http.message import Request, Response
from pillion_common.http.router import Router
from pillion_log.entries import from_line
from pillion_sidecar.logs import intake as intake_module
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.intake import Intake
from pillion_sidecar.logs.spool import Spool

NOW = "2026-01-31T12:00:00.000Z"


class Bench:
    def __init__(self, folder: Path, pod: str = "") -> None:
        self.spool = Spool(folder / "spool", 1 << 24)
        self.nudges = 0
        self._router = Router()
        Intake(self.spool, EntryMaker("Portald", lambda: "Portald-1", time.time, pod), self._nudge).add_to(self._router)

    def _nudge(self) -> None:
        self.nudges += 1

    def send(self, body: bytes) -> Response:
        request = Request("POST", b"/logs", [], "127.0.0.1", "1.1", True)
        request.body = body
        handler = self._router(request)
        assert handler is not None
        answer = handler(request)
        assert isinstance(answer, Response)
        return answer

    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in self.spool.peek(10_000, 1 << 24)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with closing(made.spool):
        yield made


def test_entries_are_kept_with_what_the_app_said_and_its_own_name(bench: Bench) -> None:
    first = {
        "Message": "a",
        "Level": "error",
        "Time": "2026-01-31T13:00:00+01:00",
        "student": 3,
        "Service": "Other",
        "Source": "x",
        "Seq": 9,
    }
    answer = bench.send(json.dumps(first).encode() + b'\n\n{"Message":"b"}\n')
    assert (answer.status, json.loads(answer.body)) == (200, {"Accepted": 2, "Rejected": [], "RejectedLines": 0})
    one, two = bench.kept()
    assert one == {
        "Time": NOW, "Service": "Portald", "Instance": "Portald-1", "Level": "error", "Message": "a", "student": 3,
        "Source": bench.spool.source, "Seq": 1,
    }  # fmt: skip
    assert (two["Level"], two["Message"], two["Seq"]) == ("info", "b", 2)
    assert bench.nudges == 1


def test_in_a_pod_each_line_tells_its_name_whatever_the_app_says(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "portal-5d4f-x7k2p")
    bench.send(b'{"Message":"a"}\n{"Message":"b","Pod":"another"}\n')
    assert [line["Pod"] for line in bench.kept()] == ["portal-5d4f-x7k2p"] * 2
    bench.spool.close()


@pytest.mark.parametrize(
    "line",
    ["x", "[]", "7", "{}", '{"Message":""}', '{"Message":7}', '{"Message":"a","Time":"soon"}', '{"Message":"a","Level":7}',
     '{"Message":"a","x":NaN}', '{"Message":"a","Time":"x' + "x" * 300 + '"}', "[" * 60_000],
)  # fmt: skip
def test_a_line_that_is_no_entry_is_told_with_its_number(bench: Bench, line: str) -> None:
    answer = bench.send(b'{"Message":"a"}\n' + line.encode() + b"\n")
    told = json.loads(answer.body)
    assert (answer.status, told["Accepted"], told["RejectedLines"], told["Rejected"][0]["Line"]) == (200, 1, 1, 2)
    assert len(told["Rejected"][0]["Error"]) > 15


def test_nothing_but_faults_is_400(bench: Bench) -> None:
    answer = bench.send(b"x\ny\n")
    assert (answer.status, json.loads(answer.body)["RejectedLines"]) == (400, 2)
    assert bench.nudges == 0


def test_what_is_too_much_or_nothing_is_refused_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="one JSON object a line"):
        bench.send(b"\n \n")
    monkeypatch.setattr(intake_module, "MAX_LINES", 2)
    with pytest.raises(TooLarge):
        bench.send(b'{"Message":"a"}\n' * 3)
    assert bench.kept() == []


def test_what_went_in_before_the_disk_was_full_is_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    append, taken = bench.spool.append, []

    def fill(entry: dict[str, Any]) -> int:
        if taken:
            raise StorageFull("the disk is full")
        taken.append(entry)
        return append(entry)

    monkeypatch.setattr(bench.spool, "append", fill)
    with pytest.raises(PillionError):
        bench.send(b'{"Message":"a"}\n{"Message":"b"}\n')
    assert bench.nudges == 1


def nested(depth: int) -> str:
    return '{"Message":"a","x":' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    "line",
    [nested(40), nested(47), nested(48), nested(70), json.dumps({"Message": "a", **{f"f{number}": 1 for number in range(63)}}),
     json.dumps({"Message": "a", **{f"f{number}": 1 for number in range(66)}}), '{"Message":"\\ud800"}', '{"Message":"a","Level":null}',
     '{"Message":"a","Time":null}', '{"Message":"a","Time":"2026-01-31 12:00:00"}', '{"Message":"a","Time":"9999-12-31T23:59:59-23:00"}',
     '{"Message":"a","Received":7,"Instance":7}', '{"Message":"a","Level":"' + "x" * 100 + '"}'],
)  # fmt: skip
def test_what_is_taken_here_the_log_service_takes(bench: Bench, line: str) -> None:
    bench.send(line.encode())
    for _, kept in bench.spool.peek(10, 1 << 20):
        from_line(kept.rstrip(b"\n"), NOW)


@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5), max_size=5)
)
def test_whatever_is_taken_here_the_log_service_takes(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    bench = Bench(tmp_path_factory.mktemp("intake"))
    with closing(bench.spool):
        bench.send(json.dumps({"Message": "a", **fields}).encode())
        for _, kept in bench.spool.peek(10, 1 << 20):
            from_line(kept.rstrip(b"\n"), NOW)
