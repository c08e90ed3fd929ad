"""Containers' logs as the engine sends them: frames to records, and from where on to ask after a restart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import PeerBroken
from pillion_sidecar.agent.log_records import Record, RecordReader, entry_time, format_places, parse_places, since

T1, T2 = "2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:05.000000001Z"


def frame(stream: int, text: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(text).to_bytes(4, "big") + text


def records(*pieces: bytes, terminal: bool = False) -> list[Record]:
    reader = RecordReader(terminal)
    return [record for piece in pieces for record in reader.feed(piece)]


def test_frames_are_records_with_their_place() -> None:
    data = (
        frame(1, f"{T1} one\n".encode())
        + frame(2, f"{T1} two\n".encode())
        + frame(1, f"{T1} three".encode())
        + frame(1, f"{T2} \n".encode())
    )
    assert records(data) == [
        Record("stdout", (T1, 1), b"one\n"),
        Record("stderr", (T1, 1), b"two\n"),
        Record("stdout", (T1, 2), b"three"),
        Record("stdout", (T2, 1), b"\n"),
    ]


def test_with_a_terminal_there_are_lines_alone() -> None:
    assert records(f"{T1} one\r\n{T2} tw".encode(), b"o\n", terminal=True) == [
        Record("stdout", (T1, 1), b"one\r\n"),
        Record("stdout", (T2, 1), b"two\n"),
    ]


@pytest.mark.parametrize("data", [b"HTTP/1.1 200", frame(3, b"x"), b"\1\0\0\0\xff\xff\xff\xff"])
def test_what_is_no_log_is_refused(data: bytes) -> None:
    with pytest.raises(PeerBroken):
        records(data)


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(0, 400)))
def test_records_do_not_depend_on_how_the_bytes_are_cut(texts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frame(1, f"{T1} ".encode() + text) for text in texts)
    marks = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[low:high] for low, high in pairwise(marks)]
    assert [record.data for record in records(*pieces)] == texts


def test_places_are_kept_as_text() -> None:
    places = {"stdout": (T1, 2), "stderr": (T2, 1)}
    assert format_places(places) == f"stdout {T1} 2 stderr {T2} 1"
    assert parse_places(format_places(places)) == places
    assert parse_places("") == parse_places("what else") == parse_places("stdin x 1") == {}


@pytest.mark.parametrize(
    ("places", "asked"),
    [
        ({}, "1769860790.000000000"),
        ({"stdout": (T1, 1), "stderr": (T1, 4)}, "1769860800.123456789"),
        ({"stdout": ("2026-01-31T12:00:04.000000002Z", 1), "stderr": (T2, 4)}, "1769860804.000000002"),
        ({"stdout": (T2, 1)}, "1769860803.000000000"),  # of stderr nothing was seen: two seconds of it may come late
        ({"stdout": ("2026-01-01T00:00:00.000000000Z", 1), "stderr": (T2, 1)}, "1769860803.000000000"),
    ],
)
def test_asks_from_where_nothing_is_missed_and_little_is_read_again(places: dict[str, tuple[str, int]], asked: str) -> None:
    assert since(places, 1_769_860_790.0) == asked


def test_an_entrys_time_is_to_the_microsecond() -> None:
    assert entry_time((T1, 3)) == "2026-01-31T12:00:00.123456Z"
    assert entry_time(("", 0)) == ""
