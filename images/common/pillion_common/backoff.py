"""Delays between tries: exponential with full jitter, state local to the caller (style rule 8)."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Gives the next delay: a random time up to base * 2^n, never over the cap. Full jitter keeps a crowd from coming back as one."""

    def __init__(self, base_s: float, cap_s: float, rand: Callable[[], float] = random.random) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._rand = rand
        self._tries = 0

    def next_delay(self) -> float:
        """Return seconds to wait before the next try."""
        ceiling = min(self._cap_s, self._base_s * float(1 << self._tries))
        self._tries = min(self._tries + 1, 32)
        return ceiling * (0.1 + 0.9 * self._rand())

    def reset(self) -> None:
        """Start anew after a success."""
        self._tries = 0
