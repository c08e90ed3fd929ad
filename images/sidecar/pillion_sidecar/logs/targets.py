"""To which log service: stays with one as long as it takes lines, leaves one that fails for another, and comes back later. Pure.

Each failure of a provider keeps it out for a while, longer from one to the next (back-off with full jitter); when all are kept out, the one
whose time ends first is waited for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pillion_common.backoff import Backoff

BASE_S = 0.1
CAP_S = 5.0
MAX_WISH_S = 60.0  # most that a provider's own Retry-After is heeded


class _Bench:
    """How long one provider is kept out."""

    def __init__(self, rand: Callable[[], float]) -> None:
        self.backoff = Backoff(BASE_S, CAP_S, rand)
        self.until = 0.0


class Targets:
    """Chooses among the URLs of one service.

    Args:
        now: monotonic seconds.
        rand: a number from 0 to below 1.
    """

    def __init__(self, now: Callable[[], float], rand: Callable[[], float] = random.random) -> None:
        self._now = now
        self._rand = rand
        self._current = ""
        self._benches: dict[str, _Bench] = {}

    def choose(self, urls: Sequence[str]) -> str:
        """Return the one to send to now; empty if there is none, or all are kept out."""
        now = self._now()
        for gone in self._benches.keys() - set(urls):
            del self._benches[gone]
        free = [url for url in urls if url not in self._benches or self._benches[url].until <= now]
        if self._current not in free:
            self._current = free[int(self._rand() * len(free))] if free else ""
        return self._current

    def took(self, url: str) -> None:
        """Note that it took lines."""
        self._benches.pop(url, None)

    def failed(self, url: str, wish_s: float = 0.0) -> None:
        """Keep it out for a while.

        Args:
            wish_s: how long it asked for itself, by Retry-After.
        """
        bench = self._benches.setdefault(url, _Bench(self._rand))
        bench.until = self._now() + max(bench.backoff.next_delay(), min(wish_s, MAX_WISH_S))

    def pause_s(self) -> float:
        """Return the time until one of those that are kept out may be tried again; none is CAP_S."""
        now = self._now()
        return max(0.0, min((bench.until - now for bench in self._benches.values()), default=CAP_S))

    def forgive(self) -> None:
        """Forget all failures: others may be there under the same URLs."""
        self._benches.clear()
