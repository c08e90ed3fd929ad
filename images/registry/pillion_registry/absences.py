"""How long each instance has been gone, on a clock that nobody sets: a jump of the time of day makes nobody be forgotten early. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pillion_registry.catalog import Instance


class Absences:
    """Remembers since when each has been gone.

    Args:
        instances: those that a store remembers. About the time before the start the time of day is believed: there is no other.
        now_s, now: as for `over`.
    """

    def __init__(self, instances: Iterable[Instance], now_s: float, now: float) -> None:
        self._since: dict[str, tuple[tuple[int, float], float]] = {}  # id -> (generation, since by the time of day), since
        self._looked_at = -math.inf
        self.over(instances, math.inf, now_s, now)

    def over(self, instances: Iterable[Instance], limit_s: float, now_s: float, now: float) -> list[Instance]:
        """Return those that have been down, never up, or drained and silent for so long that they are to be forgotten.

        Args:
            instances: all there are.
            limit_s: for how long.
            now_s: the time of day in seconds since 1970.
            now: monotonic seconds.
        """
        since: dict[str, tuple[tuple[int, float], float]] = {}
        found = []
        for one in instances:
            if one.gone:
                known = one.record.generation, one.since_s
                before = self._since.get(one.record.instance_id)
                began = before[1] if before is not None and before[0] == known else now - self._age_s(one, now_s, now)
                since[one.record.instance_id] = known, began
                if now - began >= limit_s:
                    found.append(one)
        self._since, self._looked_at = since, now
        return found

    def _age_s(self, instance: Instance, now_s: float, now: float) -> float:
        """Return for how long one has been gone that was not at the last look."""
        return min(max(0.0, now_s - instance.since_s), now - self._looked_at)
