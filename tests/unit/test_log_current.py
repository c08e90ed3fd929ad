"""current.log, the log for the eye."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillion_log.entries import from_line, from_text
from pillion_log.store.current import CurrentLog

NOW = "2026-01-31T12:00:00.123Z"


def test_entries_stand_there_in_the_classic_format_one_a_line_and_harmless(tmp_path: Path) -> None:
    current = CurrentLog(tmp_path)
    current.write(
        from_text(b"[GradingService] - one\ntwo \x1b[2J", NOW).lines + from_line(b'{"Message":"three","Level":"error"}', NOW).lines
    )
    current.write(from_text("grüße".encode(), NOW).lines)
    assert (tmp_path / "current.log").read_text().splitlines() == [
        f"{NOW} [GradingService] - one\\ntwo \\x1b[2J",
        f"{NOW} [unknown] - three",
        f"{NOW} [unknown] - grüße",
    ]


def test_it_begins_anew_with_each_segment(tmp_path: Path) -> None:
    current = CurrentLog(tmp_path)
    current.rotate()
    for text in (b"one", b"two", b"three"):
        current.write(from_text(text, NOW).lines)
        current.rotate()
    current.write(from_text(b"four", NOW).lines)
    assert [(tmp_path / name).read_text().split()[-1] for name in ("current.1.log", "current.log")] == ["three", "four"]


def test_file_that_cannot_be_written_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "current.log").mkdir()
    current = CurrentLog(tmp_path)
    current.write(from_text(b"one", NOW).lines)
    assert "cannot be written" in caplog.text
