"""NDJSON bodies: whatever is read as a whole becomes what it would have become line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pillion_log import batches
from pillion_log.batches import Rejected, read_batch
from pillion_log.entries import MAX_LINE_BYTES, Run
from pillion_log.store.summaries import Tally, summarize

NOW = "2026-01-31T12:00:00.123Z"

SENT = (
    b'{"Service":"A","Message":"one","Source":"s","Seq":1}\n'
    b'{"Time":"2026-01-31T11:00:00.000Z","Level":"error","Message":"two","Seq":2,"Source":"s","Instance":"a-1"}\n'
)


def lines_of(runs: list[Run]) -> tuple[bytes, list[tuple[str, int] | None]]:
    """Return what runs hold, however they are cut: their lines, and each entry's identity."""
    identities: list[tuple[str, int] | None] = []
    for run in runs:
        assert run.lines.count(b"\n") == run.length
        assert len(run.seqs) in (0, run.length)
        identities += [(run.source, seq) for seq in run.seqs] or [None] * run.length
    return b"".join(run.lines for run in runs), identities


def same_both_ways(body: bytes) -> bool:
    """Hold the way in one go against the way line by line; return whether the body took it."""
    whole = batches._read_whole(body, len(body.split(b"\n")) - body.endswith(b"\n"), NOW)
    runs, rejected = batches._read_lines(body, NOW)
    assert read_batch(body, NOW) == (([whole], []) if whole else (runs, rejected))
    if whole is not None:
        assert not rejected
        assert lines_of([whole]) == lines_of(runs)
        tally = Tally()
        tally.add_runs([whole])
        assert tally.summary() == summarize(whole.lines)  # what it says of itself is true
    return whole is not None


def test_plain_body_becomes_one_run() -> None:
    assert read_batch(SENT, NOW) == (
        [
            Run(
                b'{"Time":"2026-01-31T12:00:00.123Z","Received":"2026-01-31T12:00:00.123Z","Service":"A","Level":"info","Message":"one",'
                b'"Source":"s","Seq":1}\n'
                b'{"Time":"2026-01-31T11:00:00.000Z","Received":"2026-01-31T12:00:00.123Z","Service":"unknown","Level":"error",'
                b'"Message":"two","Instance":"a-1","Source":"s","Seq":2}\n',
                2,
                "s",
                range(1, 3),
            )
        ],
        [],
    )


PLAIN = [
    SENT,
    SENT[:-1],
    b'{"Message":"m"}',
    b'{"Message":"m"}\n{"Message":"m","Source":"s"}\n{"Message":"m","Source":""}\n',
    b'{"Message":"m","Source":"s","Seq":0}\n{"Message":"m","Source":"s","Seq":9223372036854775807}\n',
    b'{"Message":"m","Source":"s","Seq":1}\n{"Message":"m","Source":"s","Seq":5}\n{"Message":"m","Source":"s","Seq":6}\n',
    '{"Message":"gr\u00fc\u00dfe \u2028 \u202e \x7f \x85","Instance":"\u200f"}'.encode(),
    b'{"Message":"a\\nb\\u0000 \\ud83d\\ude00 }\\n{"}\n{"Message":"} {"}',
    b'{"\\u004dessage":"m"}',
    b'{"Message":"first","Message":"last","Time":"","Received":"1999-01-01T00:00:00.000Z"}',
    b'{"Message":"m","Time":"2026-01-31T11:00:00.000Z"}\n{"Message":"m","Time":"2026-01-31T11:00:01.999Z"}\n{"Message":"m"}',
    b'{"Message":"m","Level":"debug"}\n{"Message":"m","Level":"a level"}',
    b'{"Message":"' + b"m" * (MAX_LINE_BYTES - 14) + b'"}\n' + b'{"Message":"m"}\n',
]


@pytest.mark.parametrize("body", PLAIN, ids=range(len(PLAIN)))
def test_plain_body_is_read_as_a_whole_with_the_same_result(body: bytes) -> None:
    assert same_both_ways(body)


ODD = [
    b"",
    b"\n",
    b"nonsense",
    b"{}",
    b"[]\n",
    SENT + b"\n",
    b"\n" + SENT,
    SENT + b" ",
    SENT.replace(b"\n", b"\r\n"),
    SENT.replace(b"}\n", b"} \n"),
    SENT.replace(b"}\n", b"}", 1),  # two objects on one line
    SENT.replace(b",", b",\n", 1),  # one object on two
    SENT.replace(b"}\n", b"}", 1).replace(b'"Time"', b'\n"Time"') + SENT,
    b'{"Message":"a"}{"Message":"b"}\n\n{"Message":"c"}',
    b'{"Message":"a"}{"Message":"b"}\n{\n"Message":"c"}',
    b'{"Message":"m","student":3}',
    b'{"Message":"m","message":"x"}',
    b'{"Message":""}',
    b'{"Service":"A"}',
    b'{"Message":5}',
    b'{"Message":null}',
    b'{"Message":"a\nb"}',
    b'{"Message":"a\xffb"}',
    b'{"Message":"a\\ud800b"}',
    b'\xef\xbb\xbf{"Message":"m"}',
    b'{"Message":"m","Service":""}',
    b'{"Message":"m","Service":"no name"}',
    b'{"Message":"m","Service":null}',
    b'{"Message":"m","Level":"INFO"}',
    b'{"Message":"m","Level":"averyveryverylonglevel"}',
    b'{"Message":"m","Level":""}',
    b'{"Message":"m","Level":"' + b"x" * 257 + b'"}',
    b'{"Message":"m","Time":"2026-01-31T11:00:00Z"}',
    b'{"Message":"m","Time":"2026-01-31 11:00:00.000Z"}',
    b'{"Message":"m","Time":"2026-01-31T11:00:00.000+00:00"}',
    b'{"Message":"m","Time":"2026-02-30T11:00:00.000Z"}',
    b'{"Message":"m","Time":"2026-01-31T11:00:00.123000Z"}',
    b'{"Message":"m","Time":"2026-01-31T11:00:00.123456Z"}',
    b'{"Message":"m","Time":"2026"}',
    b'{"Message":"m","Received":5}',
    b'{"Message":"m","Instance":"' + b"i" * 257 + b'"}',
    b'{"Message":"m","Instance":null}',
    b'{"Message":"m","Seq":1}',
    b'{"Message":"m","Source":"","Seq":1}',
    b'{"Message":"m","Source":"s","Seq":-1}',
    b'{"Message":"m","Source":"s","Seq":1.0}',
    b'{"Message":"m","Source":"s","Seq":true}',
    b'{"Message":"m","Source":"s","Seq":9223372036854775808}',
    b'{"Message":"m","Source":"s","Seq":null}',
    b'{"Message":"m","Source":"s","Seq":1}\n{"Message":"m","Source":"s","Seq":1}',
    b'{"Message":"m","Source":"s","Seq":2}\n{"Message":"m","Source":"s","Seq":1}',
    b'{"Message":"m","Source":"s","Seq":1}\n{"Message":"m","Source":"t","Seq":2}',
    b'{"Message":"m","Source":"s","Seq":1}\n{"Message":"m","Source":"s"}',
    b'{"Message":"m","Source":"s"}\n{"Message":"m","Source":"s","Seq":1}',
    b'{"Message":"' + b"m" * (MAX_LINE_BYTES - 13) + b'"}',
    (SENT * 2).replace(b"one", b"1" * 50_000) + b'{"Message":"' + b"m" * (MAX_LINE_BYTES - 13) + b'"}\n' + SENT,
    b'{"Message":"m","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_body_with_anything_else_is_read_line_by_line(body: bytes) -> None:
    assert not same_both_ways(body)


def test_long_lines_are_found_wherever_they_stand() -> None:
    short, longest = b'{"Message":"m"}\n', b'{"Message":"' + b"m" * (MAX_LINE_BYTES - 14) + b'"}\n'
    too_long = longest.replace(b"m", b"mm", 1)
    many = (b'{"Message":"' + b"m" * 1000 + b'"}\n') * 100
    for before in (b"", short, many, longest, longest * 2):
        for after in (b"", short, many, longest):
            assert same_both_ways(before + longest + after)
            assert not same_both_ways(before + too_long + after)


def test_bad_lines_are_numbered_with_the_empty_ones_counted() -> None:
    runs, rejected = read_batch(b'\n{"Message":"a"}\n{}\n \n{"Message":"b"}', NOW)
    assert rejected == [Rejected(3, "Message must be a text that is not empty")]
    assert [run.length for run in runs] == [1, 1]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "Time": st.sampled_from(["2026-01-31T11:00:00.000Z", "2026-01-31T11:00:00.5Z", "2026-01-31T11:00:01.123Z", "", "noon", None]),
    "Received": TEXTS,
    "Service": st.sampled_from(["A", "B-1", "", "no name", None, 5]),
    "Level": st.sampled_from(["info", "error", "WARN", "", None]),
    "Message": st.one_of(st.just("m"), TEXTS, st.none()),
    "Instance": TEXTS,
    "Source": st.sampled_from(["s", "s", "s", "t", ""]),
    "Seq": st.one_of(st.integers(0, 9), st.sampled_from([-1, 1.0, True, None, 2**63, 2**70])),
    "x": st.integers(),
}
USUAL = {"Service": st.just("A"), "Message": TEXTS.map("m{}".format), "Time": st.just(NOW), "Instance": st.just("a-1")}


def shaped(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields).flatmap(lambda entry: st.permutations(list(entry.items())).map(dict))


@settings(max_examples=300, deadline=None)
@given(st.lists(shaped(FIELDS), max_size=4), st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", ""]), st.booleans(), st.booleans())
def test_any_body_gets_the_same_result_both_ways(entries: list[dict[str, Any]], end: str, ascii_only: bool, last_end: bool) -> None:
    body = end.join(json.dumps(entry, ensure_ascii=ascii_only) for entry in entries) + (end if last_end else "")
    same_both_ways(body.encode())


@settings(max_examples=200, deadline=None)
@given(st.lists(shaped(USUAL), min_size=1, max_size=6), st.integers(0, 2**62), st.booleans())
@example([{"Message": "m"}], 0, True)
def test_body_as_a_sidecar_sends_it_is_always_read_as_a_whole(entries: list[dict[str, Any]], first: int, ascii_only: bool) -> None:
    numbered = [{"Message": "m", **entry, "Source": "s", "Seq": first + index} for index, entry in enumerate(entries)]
    assert same_both_ways(b"".join(json.dumps(entry, ensure_ascii=ascii_only).encode() + b"\n" for entry in numbered))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(SENT)), st.integers(0, 12), st.sampled_from(["", "\n", "{", "}", '"', ",", " ", "}\n{", "\\", "\x7f", "\u2028", "0"])
)
def test_damaged_body_gets_the_same_result_both_ways(start: int, length: int, put: str) -> None:
    same_both_ways(SENT[:start] + put.encode() + SENT[start + length :])
