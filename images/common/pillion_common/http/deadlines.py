"""Time-outs of many calls on one loop, at almost no cost for those that end in time.

A queue per length of time-out, first in first out, and one timer for each queue: its front is always the next to come due. A call that
ended is skipped when it gets to the front. Knows nothing of calls but `deadline`, `done` and `expire()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

ROUND_S = 0.01  # from coming due to expiring: in it the loop reads what is in its sockets already
LATE_S = 0.25  # a timer this late says that the loop itself was away
LATE_ROUND_S = 0.1  # then what came meanwhile gets more time


class Timed(Protocol):
    """What can time out."""

    deadline: float
    done: bool

    def expire(self) -> None:
        """Take the end of the time; only called while not done."""


class Deadlines:
    """Expires what is not done in time, at most 2 * ROUND_S late, unless the loop is late itself.

    Args:
        call_later: as the event loop's: (delay in seconds, callback, arguments).
        clock: monotonic seconds.
    """

    __slots__ = ("_call_later", "_clock", "_queues")

    def __init__(self, call_later: Callable[..., Any], clock: Callable[[], float]) -> None:
        self._call_later = call_later
        self._clock = clock
        self._queues: dict[float, deque[Timed]] = {}

    def add(self, timed: Timed, timeout_s: float) -> None:
        """Set its deadline, timeout_s from now, and expire it then."""
        timed.deadline = self._clock() + timeout_s
        queue = self._queues.get(timeout_s)
        if queue is None:
            queue = self._queues[timeout_s] = deque()
            self._call_later(timeout_s, self._check, timeout_s, timed.deadline)
        else:
            _skip_done(queue)
        queue.append(timed)

    def _check(self, timeout_s: float, planned: float) -> None:
        """Look whether the front has come due; `planned` is when this was meant to run."""
        queue = self._queues[timeout_s]
        _skip_done(queue)
        if not queue:
            del self._queues[timeout_s]
            return
        now = self._clock()
        remaining = queue[0].deadline - now
        if remaining > 0:
            self._call_later(max(remaining, ROUND_S), self._check, timeout_s, now + max(remaining, ROUND_S))
        else:
            self._expire_after(LATE_ROUND_S if now - planned > LATE_S else ROUND_S, timeout_s, now)

    def _expire_after(self, round_s: float, timeout_s: float, until: float) -> None:
        # An event loop may run its timers before it reads its sockets: without a round in between, an answer that is there would not count.
        self._call_later(round_s, self._expire, round_s, timeout_s, until, self._clock() + round_s)

    def _expire(self, round_s: float, timeout_s: float, until: float, planned: float) -> None:
        if self._clock() - planned > LATE_S and round_s < LATE_ROUND_S:
            self._expire_after(LATE_ROUND_S, timeout_s, until)
            return
        queue = self._queues[timeout_s]
        while queue and (queue[0].done or queue[0].deadline <= until):
            timed = queue.popleft()
            if not timed.done:
                timed.expire()
        self._check(timeout_s, self._clock())


def _skip_done(queue: deque[Timed]) -> None:
    while queue and queue[0].done:
        queue.popleft()
