"""Which entries a query finds, in which order, and how little it reads for that."""

from __future__ import annotations

import pytest

from pillion_common.errors import InvalidInput
from pillion_log.entries import from_line
from pillion_log.query import Query, as_json, as_text, parse_query, scan

NOW_S = 1769860800.0  # 2026-01-31T12:00:00Z


class CountedBlock:
    """A block that knows how often it was read."""

    start, end, summary = 0, 1, None

    def __init__(self, *lines: bytes) -> None:
        self._lines = b"".join(line + b"\n" for line in lines)
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self._lines


def entry(message: str, time: str = "12:00:00.000", service: str = "A", level: str = "info", received: str = "12:00:00.000") -> bytes:
    body = f'{{"Message":"{message}","Time":"2026-01-31T{time}Z","Service":"{service}","Level":"{level}"}}'
    return from_line(body.encode(), f"2026-01-31T{received}Z").lines[:-1]


def ask(blocks: list[CountedBlock], **parameters: str) -> list[str]:
    text = b"".join(scan(iter(blocks), parse_query(parameters, NOW_S), as_text)).decode()
    return [row.split()[-1] for row in text.splitlines()]


BLOCKS = [CountedBlock(entry("m5"), entry("m6")), CountedBlock(entry("m3"), entry("m4")), CountedBlock(entry("m1"), entry("m2"))]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["m1", "m2", "m3", "m4", "m5", "m6"]),
        ({"limit": "3"}, ["m4", "m5", "m6"]),
        ({"limit": "1"}, ["m6"]),
        ({"order": "desc"}, ["m6", "m5", "m4", "m3", "m2", "m1"]),
        ({"order": "desc", "limit": "3"}, ["m6", "m5", "m4"]),
        ({"q": "m4"}, ["m4"]),
        ({"q": "nowhere"}, []),
        ({"service": "B"}, []),
    ],
)
def test_limit_gives_the_newest_and_order_says_how_they_are_shown(parameters: dict[str, str], expected: list[str]) -> None:
    assert ask(BLOCKS, **parameters) == expected


def test_entries_are_found_by_service_level_and_time() -> None:
    block = CountedBlock(
        entry("a", "11:00:00.000", "A", "info"), entry("b", "11:30:00.000", "B", "ERROR"), entry("c", "12:00:00.000123", "A", "fatal")
    )
    assert ask([block], service="A") == ["a", "c"]
    assert ask([block], level="error,Fatal") == ["b", "c"]
    assert ask([block], since="2026-01-31T11:30:00Z") == ["b", "c"]
    assert ask([block], since="45m") == ["b", "c"]
    assert ask([block], since="1.5h", until="15m") == ["a", "b"]
    assert ask([block], until="2026-01-31T12:30:00+01:00") == ["a", "b"]
    assert ask([block], until="2026-01-31T12:30:00 01:00") == ["a", "b"]  # a plus sign that was not percent-encoded
    assert ask([block], since="2026-01-31T12:00:00.0001Z") == ["c"]


def test_scan_ends_as_soon_as_it_has_enough() -> None:
    blocks = [CountedBlock(entry("m3"), entry("m4")), CountedBlock(entry("m1"), entry("m2"))]
    assert ask(blocks, limit="2") == ["m3", "m4"]
    assert blocks[1].reads == 0


def test_scan_ends_an_hour_before_since_because_clocks_differ() -> None:
    blocks = [
        CountedBlock(entry("new")),
        CountedBlock(entry("skewed", received="11:10:00.000")),
        CountedBlock(entry("x", received="10:00:00.000")),
    ]
    blocks.append(CountedBlock(entry("never looked at", received="09:00:00.000")))
    assert ask(blocks, since="2026-01-31T11:59:00Z")[-2:] == ["skewed", "new"]
    assert (blocks[2].reads, blocks[3].reads) == (2, 0)


def test_damaged_lines_and_checksums_are_passed_over() -> None:
    assert ask([CountedBlock(b"{torn", b"\x00\xff", entry("good"), b"[]", b'{"Check":"8c736521","Bytes":212}')]) == ["good"]


def test_text_shows_time_service_level_message_on_one_line() -> None:
    found, _ = Query().look(CountedBlock(entry("one\\ntwo", "12:00:00.123", "GradingService")))
    assert as_text(found[0]) == b"2026-01-31T12:00:00.123Z GradingService info  one\\ntwo\n"
    assert as_json(found[0]).endswith(b'"Message":"one\\ntwo"}\n')


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"order": "newest"}, "order"),
        ({"since": "yesterday"}, "since"),
        ({"since": "5x"}, "since"),
        ({"since": "9" * 400 + "d"}, "since"),
        ({"until": "2026-13-01T00:00:00Z"}, "until"),
        ({"service": "no name"}, "service"),
        ({"q": "q" * 1001}, "q"),
        ({"svc": "A"}, "svc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_parameter_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_query(parameters, NOW_S)
    assert refusal.value.field == field


def test_since_at_the_beginning_of_the_calendar_is_possible() -> None:
    assert parse_query({"since": "0001-01-01T00:00:00Z"}, NOW_S).horizon == ""


def test_events_of_the_registry_stand_between_the_lines_of_the_service_they_are_about() -> None:
    def event(message: str, subject: str, service: str = "registry") -> bytes:
        body = f'{{"Message":"{message}","Service":"{service}","Subject":{subject}}}'
        return from_line(body.encode(), "2026-01-31T12:00:00.000Z").lines[:-1]

    forged = event("e", '"A"').replace(b"}", b',"Unverified":true}')
    others = (event("b", '"B"'), event("odd", "[5]"), event("c", '"A"', "Other"), entry("b1", service="B"), forged)
    block = CountedBlock(entry("a1"), event("e1", '"A"'), *others, entry("a2"))
    assert ask([block], service="A", **{"with": "events"}) == ["a1", "e1", "a2"]
    assert ask([block], service="A") == ["a1", "a2"]
    assert ask([block], service="registry") == ["e1", "b", "odd", "e"]
    with pytest.raises(InvalidInput, match="with 'others' is not events"):
        parse_query({"with": "others"}, NOW_S)
