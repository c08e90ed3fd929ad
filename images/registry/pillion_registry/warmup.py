"""Warm-up after a restart: nobody is withdrawn for silence before each that the store remembers had its chance. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class Warmup:
    """Knows who has not been asked yet since the registry started.

    Args:
        ids: those whom the store remembers.
        ends: when it is over in any case, on the clock that is used with `on`.
    """

    def __init__(self, ids: Iterable[str], ends: float) -> None:
        self._waiting = dict.fromkeys(ids)
        self._ends = ends

    def asked(self, instance_id: str) -> None:
        """Note that a check of an instance has ended, or that it is gone."""
        self._waiting.pop(instance_id, None)

    def left_s(self, now: float) -> float:
        """Return for how many seconds more it lasts, at most; 0 when it is over."""
        if self._waiting and now >= self._ends:
            self._waiting.clear()
        return self._ends - now if self._waiting else 0.0
