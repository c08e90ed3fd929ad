"""Deadlines, with a clock and timers of the test's own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from pillion_common.http.deadlines import Deadlines


class Loop:
    """A clock that only the test moves, and the timers set on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.deadlines = Deadlines(self.call_later, lambda: self.now)

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.timers, (self.now + delay_s, next(self.order), callback, args))

    def pass_time(self, seconds: float) -> None:
        """Run each timer when it is due."""
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now = max(self.now, self.timers[0][0])
            self.run_next()
        self.now = until

    def sleep_through(self, seconds: float) -> None:
        """Let time pass without running anything, as a stopped process does."""
        self.now += seconds

    def run_next(self) -> None:
        _, _, callback, args = heapq.heappop(self.timers)
        callback(*args)


class Call:
    def __init__(self, loop: Loop, then: Callable[[], None] | None = None) -> None:
        self.deadline = 0.0
        self.done = False
        self.expired: list[float] = []
        self._loop = loop
        self._then = then

    def expire(self) -> None:
        self.done = True
        self.expired.append(self._loop.now)
        if self._then:
            self._then()


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_what_is_not_done_expires_once_and_at_most_20_ms_late(loop: Loop) -> None:
    calls = [Call(loop) for _ in range(40)]
    starts = []
    for call in calls:
        starts.append(loop.now)
        loop.deadlines.add(call, 2.0)
        loop.pass_time(0.003)
    loop.pass_time(10.0)
    assert all(len(call.expired) == 1 for call in calls)
    late = [call.expired[0] - start - 2.0 for call, start in zip(calls, starts, strict=True)]
    assert min(late) >= 0.0
    assert max(late) <= 0.0201


def test_what_is_done_never_expires(loop: Loop) -> None:
    done, open_ = Call(loop), Call(loop)
    loop.deadlines.add(done, 1.0)
    loop.deadlines.add(open_, 1.0)
    done.done = True
    loop.pass_time(2.0)
    assert (done.expired, len(open_.expired)) == ([], 1)


def test_a_shorter_time_out_does_not_wait_for_a_longer_one_before_it(loop: Loop) -> None:
    long, short = Call(loop), Call(loop)
    loop.deadlines.add(long, 5.0)
    loop.deadlines.add(short, 0.1)
    loop.pass_time(0.2)
    assert (len(short.expired), len(long.expired)) == (1, 0)
    loop.pass_time(5.0)
    assert len(long.expired) == 1


def test_a_thousand_calls_that_end_in_time_cost_one_timer_and_no_memory(loop: Loop) -> None:
    for _ in range(1000):
        call = Call(loop)
        loop.deadlines.add(call, 2.0)
        call.done = True
        assert len(loop.timers) == 1
    assert len(loop.deadlines._queues[2.0]) == 1
    loop.pass_time(3.0)
    assert (loop.timers, loop.deadlines._queues) == ([], {})


def test_a_call_that_is_answered_in_the_round_before_it_expires_does_not(loop: Loop) -> None:
    call = Call(loop)
    loop.deadlines.add(call, 1.0)
    loop.pass_time(1.005)
    assert call.expired == []
    call.done = True
    loop.pass_time(1.0)
    assert call.expired == []


def test_after_a_pause_the_answers_that_came_in_it_get_100_ms_to_be_read(loop: Loop) -> None:
    answered, silent = Call(loop), Call(loop)
    loop.deadlines.add(answered, 1.0)
    loop.deadlines.add(silent, 1.0)
    loop.sleep_through(20.0)
    loop.run_next()  # the timer of before the pause
    loop.pass_time(0.09)
    assert (answered.expired, silent.expired) == ([], [])
    answered.done = True
    loop.pass_time(0.02)
    assert (answered.expired, len(silent.expired)) == ([], 1)


def test_a_pause_between_coming_due_and_expiring_counts_as_well(loop: Loop) -> None:
    call = Call(loop)
    loop.deadlines.add(call, 1.0)
    loop.pass_time(1.001)
    loop.sleep_through(20.0)
    loop.run_next()
    assert call.expired == []
    loop.pass_time(0.11)
    assert len(call.expired) == 1


def test_a_loop_that_is_always_late_still_expires_what_is_due(loop: Loop) -> None:
    call = Call(loop)
    loop.deadlines.add(call, 1.0)
    for _ in range(3):
        loop.sleep_through(20.0)
        if loop.timers:
            loop.run_next()
    assert len(call.expired) == 1


def test_a_call_made_while_another_expires_gets_its_whole_time(loop: Loop) -> None:
    second = Call(loop)
    first = Call(loop, then=lambda: loop.deadlines.add(second, 1.0))
    loop.deadlines.add(first, 1.0)
    loop.pass_time(1.5)
    assert (len(first.expired), second.expired) == (1, [])
    loop.pass_time(0.6)
    assert len(second.expired) == 1
