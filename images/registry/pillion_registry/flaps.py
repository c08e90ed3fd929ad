"""Damping of instances that come and go: what changed more than so many times (6) within a minute is held down for a while. Pure.

Each change costs every dependent a patch, and whoever calls the instance in the wrong moment a request. The first hold takes 5 s; who falls
again within 20 s of its end is held twice as long, 5 minutes at most; each minute that it stays up takes one doubling back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WITHIN_S = 60.0
FIRST_HOLD_S = 5.0
LONGEST_HOLD_S = 300.0
WELL_S = 60.0
SOON_S = 20.0  # who falls so soon after it came up again after a hold goes on as before
MOST_KNOWN = 100_000


@dataclass(slots=True)
class _Past:
    changes: deque[float]  # the newest, as many as are borne
    level: int = 0  # holds so far, less one for each minute it was well
    up_at: float | None = None
    fell: bool = False  # soon after it was let up again
    until: float = 0.0  # it is held


class Flaps:
    """Remembers the latest changes of those that changed lately.

    Args:
        most: changes within a minute that are borne; 0: any number.
    """

    def __init__(self, most: int = 6) -> None:
        self.most = most
        self._pasts: dict[str, _Past] = {}
        self.holds = 0  # how many there were

    def rose(self, instance_id: str, now: float) -> None:
        """Note that an instance came up. The first time is no change that anybody minds."""
        past = self._pasts.get(instance_id)
        if past is not None:
            past.changes.append(now)
            past.up_at, past.fell = now, False

    def fell(self, instance_id: str, now: float) -> None:
        """Note that an instance went down."""
        if not self.most:
            return
        past = self._pasts.get(instance_id)
        if past is None:
            if len(self._pasts) >= MOST_KNOWN:
                del self._pasts[next(iter(self._pasts))]
            past = self._pasts[instance_id] = _Past(deque(maxlen=self.most))
        past.changes.append(now)
        past.fell = past.up_at is None or now - past.up_at < SOON_S
        self._recover(past, now)
        past.up_at = None

    def hold(self, instance_id: str, now: float) -> tuple[float, bool]:
        """Decide about an instance that would come up now.

        Returns:
            For how many seconds more it is held down (0: it may come up), and whether that begins now.
        """
        past = self._pasts.get(instance_id)
        if past is None:
            return 0.0, False
        if now < past.until:
            return past.until - now, False
        often = len(past.changes) == self.most and now - past.changes[0] <= WITHIN_S  # this change would be one too many
        if not often and not (past.level and past.fell):
            return 0.0, False
        delay_s = min(FIRST_HOLD_S * 2.0**past.level, LONGEST_HOLD_S)
        past.level = min(past.level + 1, 10)
        past.until, past.fell = now + delay_s, False
        past.changes.clear()
        self.holds += 1
        return delay_s, True

    def held(self, now: float) -> int:
        """Return how many are held down."""
        return sum(now < past.until for past in self._pasts.values())

    def tidy(self, now: float) -> None:
        """Forget those that have been well, or away, for long; to be called now and then."""
        for instance_id, past in list(self._pasts.items()):
            self._recover(past, now)
            latest = max(past.changes[-1] if past.changes else past.until, past.until)
            if now - latest > LONGEST_HOLD_S or (not past.level and now - latest > WITHIN_S):
                del self._pasts[instance_id]

    def _recover(self, past: _Past, now: float) -> None:
        """Take back a doubling for each whole minute that it has been up."""
        if past.up_at is not None and past.level:
            minutes = int((now - past.up_at) / WELL_S)
            past.level = max(0, past.level - minutes)
            past.up_at += minutes * WELL_S
