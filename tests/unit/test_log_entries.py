"""What becomes of what clients send: texts and NDJSON lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pillion_common.errors import InvalidInput
from pillion_log.entries import canonical_time, from_line, from_text, stamp
from pillion_log.escapes import escape_text

NOW = "2026-01-31T12:00:00.123Z"


def line(**fields: object) -> bytes:
    return json.dumps({"Message": "m"} | fields).encode()


def stored(body: bytes) -> dict[str, Any]:
    return json.loads(from_line(body, NOW).lines)


def test_classic_message_fills_the_service_from_its_brackets() -> None:
    assert from_text(b"[GradingService] - GET /students\n", NOW).lines == (
        b'{"Time":"2026-01-31T12:00:00.123Z","Received":"2026-01-31T12:00:00.123Z","Service":"GradingService","Level":"info",'
        b'"Message":"GET /students"}\n'
    )


@pytest.mark.parametrize(
    ("body", "service", "message"),
    [
        (b"just text", "unknown", "just text"),
        (b"\r\n[A] - x\r\n", "A", "x"),
        (b"[A] - ", "A", ""),
        (b"[" + b"a" * 63 + b"] - x", "a" * 63, "x"),
        (b"[] - x", "unknown", "[] - x"),
        (b"[A]B] - x", "unknown", "[A]B] - x"),
        (b"A] - x", "unknown", "A] - x"),
        (b" [A] - x", "unknown", " [A] - x"),
        (b"[", "unknown", "["),
        (b"[A] x", "unknown", "[A] x"),
        (b"[not a name] - x", "unknown", "[not a name] - x"),
        (b"[" + b"a" * 64 + b"] - x", "unknown", "[" + "a" * 64 + "] - x"),
        (b"[A] - one\n[B] - two", "A", "one\n[B] - two"),
        (b"[A] - \xff\x00\xed\xa0\x80", "A", "\ufffd\x00\ufffd\ufffd\ufffd"),
    ],
)
def test_text_without_a_valid_name_in_brackets_is_all_message(body: bytes, service: str, message: str) -> None:
    entry = json.loads(from_text(body, NOW).lines)
    assert (entry["Service"], entry["Message"]) == (service, message)


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\r\n"])
def test_text_with_nothing_in_it_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="the body is empty"):
        from_text(body, NOW)


def test_line_keeps_its_own_fields_and_order_and_cannot_say_when_it_was_received() -> None:
    body = line(Time="2026-01-31T11:00:00Z", Received="1999-01-01T00:00:00Z", Source="s", Seq=7, student={"id": [1, None]})
    entry = from_line(body, NOW)
    assert (entry.length, entry.source, entry.seqs) == (1, "s", (7,))
    assert entry.lines == (
        b'{"Time":"2026-01-31T11:00:00.000Z","Received":"2026-01-31T12:00:00.123Z","Service":"unknown","Level":"info","Message":"m",'
        b'"Source":"s","Seq":7,"student":{"id":[1,null]}}\n'
    )


def test_own_fields_stand_in_one_order_whatever_order_they_came_in() -> None:
    assert from_line(b'{"x":1,"Seq":7,"Source":"s","y":2,"Message":"m","Instance":"i"}', NOW).lines == (
        b'{"Time":"2026-01-31T12:00:00.123Z","Received":"2026-01-31T12:00:00.123Z","Service":"unknown","Level":"info","Message":"m",'
        b'"Instance":"i","Source":"s","Seq":7,"x":1,"y":2}\n'
    )


def test_line_without_time_and_level_gets_now_and_info() -> None:
    entry = stored(line(Time=None, Level=None))
    assert (entry["Time"], entry["Level"]) == (NOW, "info")


def test_level_is_lower_case_and_cut_at_16_characters() -> None:
    assert stored(line(Level="WARNING"))["Level"] == "warning"
    assert stored(line(Level="Averyveryverylonglevel"))["Level"] == "averyveryverylon"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123Z"),
        ("2026-01-31T14:00:00.5+02:00", "2026-01-31T12:00:00.500Z"),
        ("2026-01-31t12:00:00.123456789z", "2026-01-31T12:00:00.123456Z"),
        ("2026-01-31 12:00:00", "2026-01-31T12:00:00.000Z"),
    ],
)
def test_times_become_utc_and_keep_microseconds(text: str, expected: str) -> None:
    assert canonical_time(text, "Time") == expected


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-01-31", "2026-02-30T12:00:00.000Z", "2026-01-31T25:00:00Z", "0001-01-01T00:00:00+02:00", "٢٠٢٦-01-31T12:00:00Z"],
)
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an RFC 3339 time; write it like 2026-01-31T12:00:00"):
        canonical_time(text, "Time")


def test_stamp_rounds_to_the_nearest_millisecond() -> None:
    assert stamp(1769860800.123) == "2026-01-31T12:00:00.123Z"
    assert [stamp(1769860800 + ms / 1000)[-4:-1] for ms in range(1000)] == [f"{ms:03d}" for ms in range(1000)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "the line is not a JSON object"),
        (b"[1]", "the line is not a JSON object"),
        (b"null", "the line is not a JSON object"),
        (b'{"Message":"m","x":NaN}', "NaN is not JSON"),
        (b'{"Message":"m","x":1e999}', "the line is not a JSON object"),
        (b'{"Message":"m"} trailing', "the line is not a JSON object"),
        (b'{"Message":"m","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "the line is not a JSON object"),
        (b'{"Message":"m","x":' + b"[" * 64 + b"]" * 64 + b"}", "the line is nested deeper than 64 levels"),
        (b"{}", "Message must be a text that is not empty"),
        (line(Message=""), "Message must be a text that is not empty"),
        (line(Message=5), "Message must be a text that is not empty"),
        (line(Service="no name"), "Service 'no name' is"),
        (line(Service=["A"]), "Service must be a text of at most 256 characters"),
        (line(Instance="i" * 257), "Instance must be a text of at most 256 characters"),
        (line(Time="noon"), "Time 'noon' is not an RFC 3339 time"),
        (line(Time=5), "Time must be a text"),
        (line(Level={}), "Level must be a text"),
        (line(Seq=1), "with a Source whose entries it counts"),
        (line(Source="s", Seq=-1), "Seq must be a whole number from 0"),
        (line(Source="s", Seq=True), "Seq must be a whole number from 0"),
        (line(Source="s", Seq=1.5), "Seq must be a whole number from 0"),
        (line(Source="s", Seq=2**63), "Seq must be a whole number from 0"),
        (line(**{f"f{number}": 1 for number in range(65)}), "the entry has 65 fields of its own; 64 are possible"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_line_that_is_no_entry_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        from_line(body, NOW)
    assert reason in refusal.value.message


def test_64_fields_besides_the_known_ones_are_possible() -> None:
    assert stored(line(Source="s", Seq=1, **{f"f{number}": 1 for number in range(64)}))["f63"] == 1


def test_64_levels_and_any_number_of_brackets_beside_each_other_are_possible() -> None:
    assert stored(b'{"Message":"[[[[","x":' + b"[" * 63 + b"]" * 63 + b"}")["Message"] == "[[[["
    assert len(stored(b'{"Message":"m","x":[' + b",".join([b"[{}]"] * 100) + b"]}")["x"]) == 100


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"Message":"a\\ud800b"}', "a\ufffdb"),
        (b'{"Message":"a\\ud83d\\ude00b \\udc00"}', "a\U0001f600b \ufffd"),
        (b'{"Message":"a\xffb"}', "a\ufffdb"),
        (b'{"Message":"a\\u0000b"}', "a\x00b"),
    ],
)
def test_broken_characters_are_replaced_not_refused(body: bytes, message: str) -> None:
    assert stored(body)["Message"] == message


HOSTILE = [
    "\n",
    "\r",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\u2028",
    "\u2029",
    "\u202a",
    "\u202e",
    "\u2066",
    "\u2069",
    "\u200f",
    "\u061c",
    "\u2060",
    "\ufeff",
    "\ufff9",
    "\U000e0001",
    "\U000e007f",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_characters_are_escaped_in_storage_and_in_text(text: str) -> None:
    line = from_text(b"[A] - x" + text.encode() + b"y", NOW).lines.decode()
    assert json.loads(line)["Message"] == f"x{text}y"
    assert not any(character in line[:-1] for character in text if not character.isprintable())
    assert escape_text(f"x{text}y").isprintable()


def test_escapes_in_text_read_as_in_source_code() -> None:
    assert escape_text("a\r\nb\t\x1b[1m\u202ec\x7fé") == r"a\r\nb\t\x1b[1m\u202ec\x7fé"
    assert escape_text("a\U000e0041b") == r"a\U000e0041b"


def test_line_over_64_kb_is_cut_and_says_so() -> None:
    entry = stored(line(Message="m" * 70_000, Source="s", Seq=7, student=3))
    assert (entry["Source"], entry["Seq"], entry["student"], entry["Cut"]) == ("s", 7, 3, 4476)
    assert entry["Message"] == "m" * (65_536 - 12) + "…[cut: 4476 bytes]"
    assert stored(line(Message="\0" * 20_000))["Message"] == "\0" * 20_000  # it is long only as it is written


def test_false_claims_are_kept_under_another_name() -> None:
    assert stored(line(Gap=5))["Gap_"] == 5
    assert stored(line(Gap=8, Source="s", Seq=7))["Gap_"] == 8
    assert stored(line(Gap=True, Source="s", Seq=7))["Gap_"] is True
    assert stored(line(Gap=7, Source="s", Seq=7))["Gap"] == 7
    entry = stored(line(Gap=7, Source="s", Seq=7, Unverified=False))
    assert (entry["Gap"], entry["Unverified_"], "Unverified" in entry) == (7, False, False)
