"""How many time-outs in a row make an instance down: HEARTBEAT_MISSES, and more while answers get lost on the way. Pure.

A *slip* is a time-out, or several in a row, of an instance that then answered: it was not dead. How often one time-out is followed by
another among the slips says how likely the next one is with a living instance; as many are asked for as make a wrong withdrawal rarer than
one in 100,000 checks, but no more than one for each slip seen lately, and MOST in all. So one instance that was paused costs others next to
nothing, and a network that loses a third of its packets withdraws nobody. Lately: the last 500 to 1,000 checks, of a minute at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST = 12
RARE = 1e-5
SPAN_CHECKS = 500
SPAN_S = 30.0


@dataclass(slots=True)
class _Span:
    began: float
    checks: int = 0  # that ended, in whatever way
    slips: int = 0
    followed: int = 0  # time-outs within slips that followed another


class Patience:
    """Counts slips.

    Args:
        least: time-outs in a row that make an instance down when nothing is lost.
        adapts: whether it may be more.
    """

    def __init__(self, least: int, adapts: bool = True) -> None:
        self._least = least
        self._adapts = adapts
        self._now = _Span(0.0)
        self._before = _Span(0.0)

    def heard(self, misses: int, now: float) -> None:
        """Note that an instance answered after so many time-outs in a row."""
        self._turn(now)
        self._now.checks += 1
        if misses:
            self._now.slips += 1
            self._now.followed += misses - 1

    def missed(self, now: float) -> None:
        """Note a time-out."""
        self._turn(now)
        self._now.checks += 1

    def limit(self, now: float) -> int:
        """Return how many time-outs in a row make an instance down."""
        self._turn(now)
        slips = self._now.slips + self._before.slips
        if not slips or not self._adapts:
            return self._least
        followed = self._now.followed + self._before.followed
        first = (slips + followed) / max(self._now.checks + self._before.checks, 1)  # of a check: that it is not answered
        next_one = (followed + 1) / (followed + slips + 2)  # that the one after is not either; as Laplace guesses
        needed = 1 + math.ceil(math.log(RARE / max(first, RARE)) / math.log(next_one))
        return max(self._least, min(needed, self._least + slips, MOST))

    def _turn(self, now: float) -> None:
        if self._now.checks >= SPAN_CHECKS or now - self._now.began >= SPAN_S:
            fresh = now - self._now.began < 2 * SPAN_S
            self._before = self._now if fresh else _Span(now)
            self._now = _Span(now)
