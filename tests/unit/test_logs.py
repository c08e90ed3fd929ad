"""The programs' own log lines."""

from __future__ import annotations

import json
import logging

import pytest

from pillion_common import logs


@pytest.fixture(autouse=True)
def kept_as_it_was() -> object:
    root, pillion = logging.getLogger(), logging.getLogger("pillion")
    before = root.handlers[:], root.level, pillion.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    pillion.setLevel(before[2])


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    (text, rest) = capsys.readouterr().err.split("\n")
    assert rest == ""
    found: dict[str, object] = json.loads(text)
    assert text == json.dumps(found, ensure_ascii=False)  # written as json writes it
    assert str(found.pop("time")).endswith("Z")
    return found


def test_a_line_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("test")
    logs.EventLog("part").info("instance_up", 'a "quoted" %s\n\u2028ü', count=1, share=0.5, nothing=None, names=["a", 'b"'], good=True)
    assert line(capsys) == {
        "level": "info",
        "program": "test",
        "event": "instance_up",
        "message": 'a "quoted" %s\n\u2028ü',
        "count": 1,
        "share": 0.5,
        "nothing": None,
        "names": ["a", 'b"'],
        "good": True,
    }


def test_a_fault_carries_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("test")
    try:
        raise ValueError("it broke")
    except ValueError as exc:
        logs.EventLog("part").fault("failed", "that failed", exc)
    found = line(capsys)
    assert str(found.pop("trace")).endswith("ValueError: it broke")
    assert found == {"level": "error", "program": "test", "event": "failed", "message": "that failed"}


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("test", "warning")
    logs.EventLog("part").info("quiet", "nobody sees this")
    logs.EventLog("part").warning("loud", "everybody does")
    assert line(capsys) == {"level": "warning", "program": "test", "event": "loud", "message": "everybody does"}


def test_other_formatters_find_what_they_look_for(caplog: pytest.LogCaptureFixture) -> None:
    logs.EventLog("part").warning("loud", "everybody does", service="Log")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("pillion.part", "WARNING", "everybody does")
    assert logging.Formatter("%(name)s %(filename)s %(lineno)d %(threadName)s %(message)s").format(record).startswith("pillion.part ")
