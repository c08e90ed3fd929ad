"""The checker of histories finds each broken promise in a made-up history, and nothing in one that is as promised."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from history_check import DEREGISTER, DRAIN, LIST, ONE, REGISTER, Operation, Shown, Verdict, check


def op(kind: str, begin: float, end: float = inf, status: int = 200, replica: int = 0, **more: object) -> Operation:
    given: dict[str, object] = {"client": 0, "life": 0, "instance": -1 if kind == LIST else 0} | more
    return Operation(replica=replica, kind=kind, begin=begin, end=end, status=status, **given)  # type: ignore[arg-type]


def registered(number: int, begin: float, end: float = inf, status: int = 200, **more: object) -> Operation:
    return op(REGISTER, begin, end, status, number=number, **more)  # type: ignore[arg-type]


def read(begin: float, shown: Shown | None, kind: str = ONE, **more: object) -> Operation:
    found = {} if shown is None else {0: shown}
    return op(kind, begin, begin + 0.1, 200 if shown or kind == LIST else 404, shown=found, **more)  # type: ignore[arg-type]


def judge(*operations: Operation, final: Shown | None = None) -> Verdict:
    return check(operations, 1, {} if final is None else {0: final})


ONCE, TWICE, DRAINED = Shown(1, False), Shown(2, False), Shown(1, True)


def test_a_history_as_promised_has_no_fault() -> None:
    verdict = judge(
        registered(1, 0, 1, revision=5),
        read(2, ONCE, LIST, revision=5),
        op(DRAIN, 3, 4),
        read(5, DRAINED),
        registered(2, 6, 7, revision=9),
        read(8, TWICE, LIST, revision=9, replica=1),
        op(DEREGISTER, 9, 10),
        read(11, None),
        final=None,
    )
    assert (verdict.broken, verdict.faults, verdict.reads) == (0, [], 4)


@pytest.mark.parametrize("kind", [ONE, LIST])
@pytest.mark.parametrize(
    ("writes", "shown"),
    [
        ((), ONCE),  # never written
        ((registered(1, 0, 1),), None),
        ((registered(1, 0, 1), registered(2, 2, 3)), ONCE),
        ((registered(1, 0, 1), op(DEREGISTER, 2, 3)), ONCE),
        ((registered(1, 0, 1), op(DRAIN, 2, 3)), ONCE),
        ((registered(1, 0, 1), op(DRAIN, 1.5, 1.8), registered(2, 2, 3)), Shown(2, True)),
        ((registered(1, 0, 1), op(DEREGISTER, 1.5, 1.8), registered(2, 2, 3)), None),
        ((registered(1, 0, 1), registered(2, 6, 7)), TWICE),  # from the future
    ],
)
def test_a_read_that_does_not_show_what_the_replica_has_acknowledged_is_stale(
    writes: tuple[Operation, ...], shown: Shown | None, kind: str
) -> None:
    assert judge(*writes, read(4, shown, kind), final=_after(writes)).stale == 1


def _after(writes: tuple[Operation, ...]) -> Shown | None:
    """Return what is there after writes one after the other."""
    now: Shown | None = None
    for one in writes:
        now = None if one.kind == DEREGISTER else Shown(one.number, False) if one.kind == REGISTER else now and now._replace(drains=True)
    return now


@pytest.mark.parametrize(
    ("writes", "shown"),
    [
        ((registered(1, 0, 1, replica=1),), None),  # another replica's
        ((registered(1, 0, 1), registered(2, 2, 9)), ONCE),  # under way
        ((registered(1, 0, 1), registered(2, 2, 9)), TWICE),
        ((registered(1, 0, 3), registered(2, 2, 3)), ONCE),  # at the same time
        ((registered(1, 0, 1), registered(2, 2, inf, 0)), ONCE),  # of unknown fate
        ((registered(1, 0, 1), registered(2, 2, inf, 0)), TWICE),
        ((registered(1, 0, 1), registered(2, 2, 3, 503)), TWICE),
        ((registered(1, 0, 1), op(DEREGISTER, 2, inf, 0)), None),
        ((registered(1, 0, 1), op(DRAIN, 2, 3, 503)), DRAINED),
    ],
)
def test_a_read_may_show_what_is_newer_or_may_be(writes: tuple[Operation, ...], shown: Shown | None) -> None:
    verdict = judge(*writes, read(4, shown), final=TWICE if writes[-1].number == 2 else ONCE)
    assert verdict.faults == []


def test_a_404_to_a_write_is_a_read_that_shows_nothing() -> None:
    assert judge(registered(1, 0, 1), op(DRAIN, 2, 3, 404), final=ONCE).stale == 1
    assert judge(registered(1, 0, 1), op(DEREGISTER, 2, 3, 404, replica=1), final=ONCE).faults == []


def test_a_revision_that_goes_back_on_one_replica_is_noticed_whoever_reads_it() -> None:
    first = read(0, None, LIST, revision=7, client=1)
    assert judge(first, read(1, None, LIST, revision=6, client=2)).went_back == 1
    assert judge(first, read(0.05, None, LIST, revision=6, client=2)).went_back == 0  # at the same time
    assert judge(first, read(1, None, LIST, revision=6, client=2, replica=1)).went_back == 0
    assert judge(first, read(1, None, LIST, revision=6, client=2, life=1)).went_back == 0


def test_nor_for_one_client_over_a_restart_of_the_replica() -> None:
    assert judge(read(0, None, LIST, revision=7), read(1, None, LIST, revision=6, life=1)).went_back == 1


def test_a_registration_tells_a_revision_too() -> None:
    assert judge(registered(1, 0, 1, revision=7), read(2, ONCE, LIST, revision=6), final=ONCE).went_back == 2  # for both rules


def test_lists_of_one_revision_that_differ_are_noticed() -> None:
    writes = registered(1, 0, 1, replica=2)
    one, other = read(2, Shown(1, False, "up"), LIST, revision=5), read(3, Shown(1, False, "starting"), LIST, revision=5, replica=1)
    assert judge(writes, one, other, final=ONCE).differing == 1
    assert judge(writes, one, replace(other, revision=6), final=ONCE).differing == 0


@pytest.mark.parametrize(
    ("writes", "final"),
    [
        ((registered(1, 0, 1),), None),
        ((registered(1, 0, 1, replica=0), registered(2, 2, 3, replica=1)), ONCE),
        ((registered(1, 0, 1), op(DEREGISTER, 2, 3, replica=2)), ONCE),
        ((registered(1, 0, 1), op(DRAIN, 2, 3)), ONCE),
        ((registered(1, 0, inf, 0), registered(2, 2, 3), registered(3, 4, 5, 409)), Shown(3, False)),
    ],
)
def test_an_acknowledged_write_that_is_not_there_in_the_end_is_lost(writes: tuple[Operation, ...], final: Shown | None) -> None:
    assert judge(*writes, final=final).lost == 1


@pytest.mark.parametrize("final", [ONCE, TWICE, None])
def test_in_the_end_there_may_be_what_has_an_unknown_fate(final: Shown | None) -> None:
    verdict = judge(registered(1, 0, 1), registered(2, 2, inf, 0), op(DEREGISTER, 3, 4, 503), final=final)
    assert verdict.faults == []


def test_a_refusal_needs_a_newer_registration() -> None:
    assert judge(registered(1, 0, 1, 409)).refused == 1
    assert judge(registered(1, 0, 1, 409), registered(2, 0.5, 2), final=TWICE).refused == 0


def test_any_other_answer_is_unexpected() -> None:
    assert judge(registered(1, 0, 1, 500)).unexpected == 1
    assert judge(op(LIST, 0, 1, 404)).unexpected == 1
