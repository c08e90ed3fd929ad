"""What an index says of a block, however it came to know it."""

from __future__ import annotations

import pytest

from pillion_log.entries import Run, from_line, from_text
from pillion_log.store.base import OTHERS, ServiceCount, Summary
from pillion_log.store.checks import check_line
from pillion_log.store.summaries import Tally, merge, summarize

T1, T2, T3 = "2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:01.000Z"


def run(service: str, time: str, received: str, more: str = "") -> Run:
    return from_line(f'{{"Message":"m","Service":"{service}","Time":"{time}"{more}}}'.encode(), received)


RUNS = [run("A", T2, T1), run("A", T1, T1), run("B", T3, T2, ',"Gap":17'), run("A", T1, T3)]
SIZES = [len(item.lines) for item in RUNS]
EXPECTED = Summary(
    first_time=T1,
    last_time=T3,
    first_received=T1,
    last_received=T3,
    services={"A": ServiceCount(3, SIZES[0] + SIZES[1] + SIZES[3], 0, T1, T3), "B": ServiceCount(1, SIZES[2], 17, T2, T2)},
)


def bare(item: Run) -> Run:
    return Run(item.lines, item.length)


@pytest.mark.parametrize("known", [0b1111, 0b0000, 0b0101, 0b1010, 0b0011])
def test_what_runs_say_of_themselves_is_what_their_lines_say(known: int) -> None:
    tally = Tally()
    tally.add_runs([item if known >> index & 1 else bare(item) for index, item in enumerate(RUNS)])
    assert tally.summary() == EXPECTED


def test_classic_message_says_of_itself_what_its_line_says() -> None:
    runs = [from_text(b"[A] - one", T1), from_text(b"two", T1), from_text(b"[A] - three", T3)]
    tally = Tally()
    tally.add_runs(runs)
    assert tally.summary() == summarize(b"".join(item.lines for item in runs))
    assert all(item.service for item in runs)


def test_lines_are_counted_without_checksums_and_damage() -> None:
    lines = b"".join(item.lines for item in RUNS)
    assert summarize(lines) == EXPECTED
    assert summarize(lines + check_line(lines) + b"damaged\n\n\xff\n" + check_line(b"") + b"torn") == EXPECTED
    assert summarize(b"") is None
    assert summarize(check_line(b"")) is None


def test_summaries_of_parts_make_the_summary_of_the_whole() -> None:
    assert merge([summarize(RUNS[0].lines), None, *(summarize(item.lines) for item in RUNS[1:])]) == EXPECTED
    assert merge([None]) is None


@pytest.mark.parametrize("gap", ['"a text"', "-5", "0", "1.5", "true", "null", "[1]"])
def test_field_of_an_app_that_is_called_gap_is_no_gap(gap: str) -> None:
    found = summarize(run("A", T1, T1, f',"Gap":{gap}').lines)
    assert found is not None
    assert found.services["A"].gaps == 0


def test_services_that_are_too_many_to_be_named_are_counted_together_and_never_ruled_out() -> None:
    tally = Tally()
    tally.add_runs([run(f"S{number}", T1, T1) for number in range(300)])
    found = tally.summary()
    assert found is not None
    assert (len(found.services), found.services[OTHERS].lines) == (257, 44)
    assert found.may_have("S299")
    assert found.may_have("never seen")
    twice = merge([found, summarize(run("new", T1, T1).lines)])
    assert twice is not None
    assert (len(twice.services), twice.services[OTHERS].lines) == (257, 45)
    assert not EXPECTED.may_have("never seen")
