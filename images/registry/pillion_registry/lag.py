"""Measures how late this process's own loop is: a registry that was paused or starved must not take its own absence for others' silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TICK_S = 0.1


class LagMeter:
    """Remembers when the loop was last late.

    Args:
        tolerance_s: lateness that does not count.
        clock: monotonic seconds.
    """

    def __init__(self, tolerance_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tolerance_s = tolerance_s
        self._clock = clock
        self._expected = clock()
        self._late_at: float | None = None
        self.late_s = 0.0  # at the last tick
        self.latest_s = 0.0  # the most there ever was

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            self._expected = self._clock() + TICK_S
            await asyncio.sleep(TICK_S)
            self.observe()

    def observe(self) -> None:
        """Compare the clock with the tick that was due."""
        now = self._clock()
        self.late_s = max(0.0, now - self._expected)
        self.latest_s = max(self.latest_s, self.late_s)
        if now - self._expected > self._tolerance_s:
            self._late_at = now

    def late_within(self, seconds: float) -> bool:
        """Return whether the loop was late in the last seconds, this very moment included."""
        self.observe()
        return self._late_at is not None and self._clock() - self._late_at <= seconds
