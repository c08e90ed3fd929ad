"""Which entries a query finds, in which order, how little it reads for that, and where the next page begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from query_lab import NOW_S, CountedBlock, entry

from pillion_common.errors import InvalidInput
from pillion_log.entries import from_line
from pillion_log.query import matching, paging
from pillion_log.query.matching import Matcher
from pillion_log.query.paging import MAX_SEARCH_S, Page, Search
from pillion_log.query.question import Cursor, parse_question, parse_tail
from pillion_log.query.shapes import as_json, as_text


def laid_out(blocks: list[CountedBlock]) -> list[CountedBlock]:
    """Give blocks, oldest first, their positions."""
    position = 1000
    for block in blocks:
        block.start = position
        position = block.end
    return blocks


def search(blocks: list[CountedBlock], **parameters: str) -> tuple[list[str], Search]:
    """Answer a query over blocks, oldest first."""
    question = parse_question(parameters, NOW_S)
    laid_out(blocks)
    matcher = Matcher(question.filter)
    order = blocks[::-1] if question.cursor.back else blocks
    searched = Search(iter(order), question, matcher)
    page = Page(question, matcher, as_text)
    while not searched.over:
        if step := searched.step():
            page.add(*step)
    return [row.split(maxsplit=3)[-1] for row in b"".join(page.pieces()).decode().splitlines()], searched


def ask(blocks: list[CountedBlock], **parameters: str) -> list[str]:
    return search(blocks, **parameters)[0]


def six() -> list[CountedBlock]:
    return [CountedBlock(entry("m1"), entry("m2")), CountedBlock(entry("m3"), entry("m4")), CountedBlock(entry("m5"), entry("m6"))]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["m1", "m2", "m3", "m4", "m5", "m6"]),
        ({"limit": "3"}, ["m4", "m5", "m6"]),
        ({"limit": "1"}, ["m6"]),
        ({"order": "desc"}, ["m6", "m5", "m4", "m3", "m2", "m1"]),
        ({"order": "desc", "limit": "3"}, ["m6", "m5", "m4"]),
        ({"from": "oldest", "limit": "3"}, ["m1", "m2", "m3"]),
        ({"from": "oldest"}, ["m1", "m2", "m3", "m4", "m5", "m6"]),
        ({"q": "m4"}, ["m4"]),
        ({"q": "nowhere"}, []),
        ({"service": "B"}, []),
    ],
)
def test_limit_gives_the_newest_and_order_says_how_they_are_shown(parameters: dict[str, str], expected: list[str]) -> None:
    assert ask(six(), **parameters) == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", ["1", "2", "3", "4", "6"])
def test_pages_going_back_give_each_entry_once(order: str, limit: str) -> None:
    found, searched = search(six(), limit=limit, order=order)
    pages = [found]
    while searched.cursor and len(pages) < 9:
        found, searched = search(six(), limit=limit, order=order, cursor=str(searched.cursor))
        pages.append(found)
    everything = [message for page in (pages if order == "desc" else pages[::-1]) for message in page]
    assert everything == (["m6", "m5", "m4", "m3", "m2", "m1"] if order == "desc" else ["m1", "m2", "m3", "m4", "m5", "m6"])
    assert all(len(page) == int(limit) for page in pages[:-1] if page)


@pytest.mark.parametrize("limit", ["1", "2", "4", "6"])
def test_pages_going_forth_give_each_entry_once_and_what_comes_later(limit: str) -> None:
    blocks = six()
    found, searched = search(blocks[:2], **{"from": "oldest", "limit": limit})
    everything = list(found)
    for _ in range(8):
        found, searched = search(blocks, limit=limit, cursor=str(searched.cursor))
        everything += found
    assert everything == ["m1", "m2", "m3", "m4", "m5", "m6"]
    assert str(searched.cursor) == f"f{blocks[-1].end:x}"


def test_entries_are_found_by_service_level_instance_and_time() -> None:
    block = CountedBlock(
        entry("a", "11:00:00.000", "A", "info", Instance="a-1"),
        entry("b", "11:30:00.000", "B", "ERROR", Instance="b-1"),
        entry("c", "12:00:00.000123", "A", "fatal", Instance="a-2"),
    )
    assert ask([block], service="A") == ["a", "c"]
    assert ask([block], service="B, A") == ["a", "b", "c"]
    assert ask([block], level="error,Fatal") == ["b", "c"]
    assert ask([block], level="info") == ["a"]
    assert ask([block], instance="a-2,b-1") == ["b", "c"]
    assert ask([block], since="2026-01-31T11:30:00Z") == ["b", "c"]
    assert ask([block], since="45m") == ["b", "c"]
    assert ask([block], since="1.5h", until="15m") == ["a", "b"]
    assert ask([block], until="2026-01-31T12:30:00+01:00") == ["a", "b"]
    assert ask([block], until="2026-01-31T12:30:00 01:00") == ["a", "b"]  # a plus sign that was not percent-encoded
    assert ask([block], since="2026-01-31T12:00:00.0001Z") == ["c"]


@pytest.mark.parametrize("parameters", [{"service": "A"}, {"service": "A", "order": "asc"}, {"q": "message"}, {"level": "error"}])
@pytest.mark.parametrize("kept", [0, 100, 1000, 10_000])
def test_page_beyond_what_is_kept_is_read_again_and_lacks_nothing(
    parameters: dict[str, str], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocks() -> list[CountedBlock]:
        named = [entry(f"message{n}", service="BA"[n % 3 == 0], level=("info", "error")[n % 2]) for n in range(60)]
        return [CountedBlock(*named[n : n + 10], summary=True) for n in range(0, 60, 10)]

    at_once = ask(blocks(), **parameters)
    assert len(at_once) >= 20
    monkeypatch.setattr(paging, "KEPT_BYTES", kept)
    assert ask(blocks(), **parameters) == at_once


def test_scan_ends_as_soon_as_it_has_enough() -> None:
    blocks = [CountedBlock(entry("m1"), entry("m2")), CountedBlock(entry("m3"), entry("m4"))]
    assert ask(blocks, limit="2") == ["m3", "m4"]
    assert blocks[0].reads == 0


def test_blocks_that_cannot_have_a_wanted_entry_are_not_read() -> None:
    blocks = [
        CountedBlock(entry("long ago", "09:00:00.000", received="09:00:00.000"), summary=True),
        CountedBlock(entry("late", "09:30:00.000", received="11:59:00.000"), summary=True),
        CountedBlock(entry("new", "12:00:00.000", "B"), summary=True),
    ]
    assert ask(blocks, since="2026-01-31T09:30:00Z", until="2026-01-31T10:00:00Z") == ["late"]
    assert [block.reads for block in blocks] == [0, 1, 0]
    assert ask(blocks, service="B") == ["new"]
    assert [block.reads for block in blocks] == [0, 1, 1]
    assert ask(blocks, service="C,A", since="2026-01-31T11:00:00Z") == []
    assert [block.reads for block in blocks] == [0, 1, 1]


def test_rare_service_is_looked_for_by_its_name_among_lines_that_all_have_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [entry(f"GET /{number}", service="Busy") for number in range(40)]
    block = CountedBlock(*lines, entry("GET /rare", service="Rare"), *lines, summary=True)
    looked: list[bytes] = []
    decode = matching._decode
    monkeypatch.setattr(matching, "_decode", lambda line: looked.append(line) or decode(line))
    assert ask([block], service="Rare", q="GET") == ["GET /rare"]
    assert ask([block], service="Rare", re="G.T") == ["GET /rare"]
    assert len(looked) == 2


def test_damaged_lines_and_checksums_are_passed_over() -> None:
    blocks = [CountedBlock(b"{torn", b"\x00\xff", entry("good"), b"[]", b'{"Check":"8c736521","Bytes":212}')]
    assert ask(blocks) == ["good"]
    assert ask(blocks, q="o") == ["good"]
    assert ask(blocks, re="o") == ["good"]


def test_text_shows_time_service_level_message_on_one_line() -> None:
    block = CountedBlock(entry("one\ntwo", "12:00:00.123", "GradingService"))
    (match,) = Matcher(parse_question({}, NOW_S).filter).look(block.read(), 0)
    assert as_text(match) == b"2026-01-31T12:00:00.123Z GradingService info  one\\ntwo\n"
    assert as_json(match).endswith(b'"Message":"one\\ntwo"}\n')


class Clock:
    """Goes on by some seconds whenever it is looked at."""

    def __init__(self, step_s: float) -> None:
        self._now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


def bounded(blocks: Iterator[CountedBlock], **parameters: str) -> tuple[list[str], Search]:
    question = parse_question(parameters, NOW_S)
    searched = Search(blocks, question, Matcher(question.filter), Clock(MAX_SEARCH_S / 2))
    found = []
    while not searched.over:
        if step := searched.step():
            found += [match.stored.message for match in step[1]]
    return found, searched


@pytest.mark.parametrize("summary", [True, False])
def test_search_that_takes_too_long_says_up_to_where_it_came_and_goes_on_from_there(summary: bool) -> None:
    def blocks() -> list[CountedBlock]:
        times = ("10:00:00.000", "11:00:00.000", "12:00:00.000")
        return laid_out([CountedBlock(entry(f"at {time}", received=time), summary=summary) for time in times])

    found, searched = bounded(iter(blocks()[::-1]))
    assert (found, searched.done) == (["at 12:00:00.000", "at 11:00:00.000"], False)
    assert searched.scanned == "2026-01-31T11:00:00.000Z"
    assert searched.cursor == Cursor(blocks()[1].start, back=True)
    assert ask(blocks(), cursor=str(searched.cursor)) == ["at 10:00:00.000"]
    found, searched = bounded(iter(blocks()), **{"from": "oldest"})
    assert (found, searched.done, searched.scanned) == (["at 10:00:00.000", "at 11:00:00.000"], False, "2026-01-31T11:00:00.000Z")
    assert ask(blocks(), cursor=str(searched.cursor)) == ["at 12:00:00.000"]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"order": "newest"}, "order"),
        ({"order": "desc", "from": "oldest"}, "order"),
        ({"order": "desc", "cursor": "f0"}, "order"),
        ({"from": "middle"}, "from"),
        ({"cursor": "x12"}, "cursor"),
        ({"cursor": "b" + "f" * 17}, "cursor"),
        ({"page": "yes"}, "page"),
        ({"i": "2"}, "i"),
        ({"since": "yesterday"}, "since"),
        ({"since": "5x"}, "since"),
        ({"since": "9" * 400 + "d"}, "since"),
        ({"until": "2026-13-01T00:00:00Z"}, "until"),
        ({"service": "no name"}, "service"),
        ({"service": ",".join(f"s{number}" for number in range(33))}, "service"),
        ({"q": "q" * 1001}, "q"),
        ({"re": "q" * 1001}, "re"),
        ({"with": "others"}, "with"),
        ({"svc": "A"}, "svc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_parameter_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_question(parameters, NOW_S)
    assert refusal.value.field == field


def test_tail_has_no_end_and_no_pages() -> None:
    asked = parse_tail({"service": "A", "last": "0", "since": "5m"}, NOW_S)
    assert (asked.filter.services, asked.last, asked.filter.since) == (("A",), 0, "2026-01-31T11:55:00.000")
    assert asked.filter.ever().since == ""
    for name in ("until", "limit", "cursor", "order"):
        with pytest.raises(InvalidInput, match=f"there is no parameter '{name}'"):
            parse_tail({name: "1"}, NOW_S)


def test_events_of_the_registry_stand_between_the_lines_of_the_service_they_are_about() -> None:
    def event(message: str, subject: str, service: str = "registry") -> bytes:
        body = f'{{"Message":"{message}","Service":"{service}","Subject":{subject}}}'
        return from_line(body.encode(), "2026-01-31T12:00:00.000Z").lines[:-1]

    forged = event("e", '"A"').replace(b"}", b',"Unverified":true}')
    others = (event("b", '"B"'), event("odd", "[5]"), event("c", '"A"', "Other"), entry("b1", service="B"), forged)
    lines = (entry("a1"), event("e1", '"A"'), *others, entry("a2"))
    for block in (CountedBlock(*lines), CountedBlock(*lines, summary=True)):
        assert ask([block], service="A", **{"with": "events"}) == ["a1", "e1", "a2"]
        assert ask([block], service="A,B", **{"with": "events"}) == ["a1", "e1", "b", "b1", "a2"]
        assert ask([block], service="A") == ["a1", "a2"]
        assert ask([block], service="registry") == ["e1", "b", "odd", "e"]
    only_events = CountedBlock(event("e1", '"A"'), summary=True)
    assert ask([only_events], service="A", **{"with": "events"}) == ["e1"]
