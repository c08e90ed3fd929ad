"""What the sidecar keeps of a line: whose it is, and what is left of one that is too long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_sidecar.logs.entry import MAX_LINE_BYTES, EntryMaker, encode

MAKER = EntryMaker("Portald", lambda: "Portald-1", lambda: 1_769_860_800.5)


def test_an_entry_says_when_and_whose() -> None:
    assert MAKER.make("a", fields={"message": "field"}) == {
        "Time": "2026-01-31T12:00:00.500Z",
        "Service": "Portald",
        "Instance": "Portald-1",
        "Level": "info",
        "Message": "a",
        "message": "field",
    }


def test_an_app_can_neither_be_another_nor_speak_of_gaps() -> None:
    entry = MAKER.complete({"Message": "a", "Service": "Other", "Instance": "x", "Gap": 99})
    assert (entry["Service"], entry["Instance"], entry["gap"]) == ("Portald", "Portald-1", 99)
    assert "Gap" not in entry


@pytest.mark.parametrize("text", ["x" * 70_000, "ü" * 40_000, "\u0001" * 20_000, '"' * 40_000, "\u0001" * 60_000 + "x" * 300_000])
def test_a_message_that_is_too_long_is_cut_with_a_mark(text: str) -> None:
    line = encode({"Message": text}, "s", 1)
    assert line is not None
    assert MAX_LINE_BYTES // 8 < len(line) <= MAX_LINE_BYTES
    entry = json.loads(line)
    kept, mark, missing = entry["Message"].rpartition("…[cut: ")
    assert (mark, missing) == ("…[cut: ", f"{entry['Cut']} bytes]")
    assert text.startswith(kept)
    assert entry["Cut"] == len(text.encode()) - len(kept.encode())


def test_a_message_that_was_cut_before_says_all_that_is_missing() -> None:
    line = encode({"Message": "\u0001" * 20_000 + "…[cut: 7 bytes]", "Cut": 7}, "s", 1)
    assert line is not None
    entry = json.loads(line)
    kept = entry["Message"].partition("…")[0]
    assert entry["Cut"] == 20_000 - len(kept) + 7
    assert entry["Message"].count("cut:") == 1


def test_an_entry_that_is_too_long_by_its_fields_is_none() -> None:
    assert encode({"Message": "a", "x": "y" * 70_000}, "s", 1) is None


@given(st.text(), st.integers(1, 40_000))
def test_no_text_makes_a_line_too_long(text: str, times: int) -> None:
    line = encode({"Message": (text * times)[:400_000]}, "s", 1)
    assert line is not None
    assert len(line) <= MAX_LINE_BYTES
