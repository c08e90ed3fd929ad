"""The guard: when many fall silent at once, the way to them is likelier to blame than they. Pure rules; the clock's reading is a parameter.

An instance is *silent* from a time-out until it is heard of again. When GUARD_SHARE or more of a service's 4 or more offered instances are
silent, the guard goes on for that service: its silent instances are kept, for GUARD_TIME at most. It also goes on for all services
together (the group WHOLE), when at least that share of all instances and of all services has a silent one: then it is the registry's own
network. That keeps services of one to three instances too.

So that it is known in time, the first silence in a group begins a *round*: all of the group are asked at once, and nobody of it is
withdrawn until they had the time to answer. Who refuses a connection is never silent: that is evidence of death.

On or off is told as a Turn, for example `Turn("GradingService", True, "120 of 200 instances of GradingService time out")`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pillion_registry.offers import Offers

WHOLE = ""
LEAST = 4  # instances: of fewer a share says nothing
CALM = 0.5  # of GUARD_SHARE: with fewer silent the guard goes off
HINT = 0.125  # of GUARD_SHARE: with fewer silent in all services nobody waits for a round of all
MARGIN_S = 0.1  # in which the last answers of a round are read


class Turn(NamedTuple):
    """The guard of a service (or of WHOLE) has gone on or off."""

    name: str
    on: bool
    reason: str


class Missed(NamedTuple):
    """What a time-out leads to: turns, and the groups whose instances are all to be asked now."""

    turns: tuple[Turn, ...] = ()
    rounds: tuple[str, ...] = ()


class Keeping(NamedTuple):
    """Why a silent instance is kept, and for how many seconds more; the reason is empty while a round is not over."""

    reason: str
    left_s: float


@dataclass(slots=True)
class _Group:
    round_at: float = -math.inf
    round_ends: float = -math.inf
    until: float | None = None  # the guard is on
    reason: str = ""
    spent: bool = False  # the time is over; on again only after it was calm
    calm_at: float | None = None


class Guard:
    """Knows who is silent, and decides who is kept.

    Args:
        offers: how many instances are offered.
        share: of a group's instances that are silent when it goes on; 0: never.
        time_s: for which an instance is kept at most.
        interval_s, timeout_s: of the checks.
    """

    def __init__(self, offers: Offers, share: float, time_s: float, interval_s: float, timeout_s: float) -> None:
        self._offers = offers
        self._share = share
        self._time_s = time_s
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._groups: dict[str, _Group] = {}
        self._silent: dict[str, tuple[str, float]] = {}  # id -> service, since when
        self._by_name: dict[str, set[str]] = {}
        self._kept_at: dict[str, float] = {}
        self.turned_on = 0  # how often

    @property
    def on(self) -> list[str]:
        """Return the groups for which it is on."""
        return [name for name, group in self._groups.items() if group.until is not None]

    def missed(self, name: str, instance_id: str, now: float) -> Missed:
        """Note that an offered instance did not answer in time."""
        if not self._share:
            return Missed()
        first = self._silent.get(instance_id, ("", 0.0))[0] != name
        if first:
            self.heard(instance_id)  # it may have had another name
            self._silent[instance_id] = name, now
            self._by_name.setdefault(name, set()).add(instance_id)
        rounds = tuple(group for group in (name, WHOLE) if self._begin_round(group, now)) if first else ()
        turns = tuple(turn for group in (name, WHOLE) if (turn := self._judge(group, now)))
        return Missed(turns, rounds)

    def heard(self, instance_id: str) -> None:
        """Note that an instance answered, refused, or is not offered any more."""
        self._kept_at.pop(instance_id, None)
        name, _ = self._silent.pop(instance_id, (None, 0.0))
        if name is not None:
            silent = self._by_name[name]
            silent.discard(instance_id)
            if not silent:
                del self._by_name[name]

    def keeps(self, instance_id: str, now: float) -> Keeping | None:
        """Return why a silent instance that would be withdrawn now is kept; None if it is not."""
        if instance_id not in self._silent:
            return None
        name, since = self._silent[instance_id]
        found = None
        for group in (self._groups.get(key) for key in (name, WHOLE)):
            if group is not None and group.until is not None:
                kept_at = self._kept_at.setdefault(instance_id, now)
                left_s = min(group.until, kept_at + self._time_s) - now
                if left_s > 0 and (found is None or left_s > found.left_s):
                    found = Keeping(group.reason, left_s)
        return found or self._waiting(name, since, now)

    def kept_s(self, instance_id: str, now: float) -> float | None:
        """Return for how long an instance was kept since it fell silent; None if it was not."""
        kept_at = self._kept_at.get(instance_id)
        return None if kept_at is None else now - kept_at

    def tick(self, now: float) -> list[Turn]:
        """Look whether a guard's time is over, or its reason; to be called about once a second."""
        turns = []
        for name, group in list(self._groups.items()):
            silent, offered = self._count(name)
            if silent >= self._share * CALM * offered and silent:
                group.calm_at = None
            elif group.calm_at is None:
                group.calm_at = now
            calm = group.calm_at is not None and now - group.calm_at >= self._interval_s
            if group.until is not None and now >= group.until:
                group.until, group.spent = None, True
                turns.append(Turn(name, False, f"its {self._time_s:g} s are over; {silent} of {offered} instances still do not answer"))
            elif group.until is not None and calm:
                group.until = None
                turns.append(Turn(name, False, f"{offered - silent} of {offered} instances answer"))
            elif calm and now - group.round_at >= self._interval_s:
                del self._groups[name]
        return turns

    def _begin_round(self, name: str, now: float) -> bool:
        if self._count(name)[1] < LEAST or (name == WHOLE and len(self._by_name) < 2):
            return False
        group = self._groups.setdefault(name, _Group())
        if now - group.round_at < self._interval_s:
            return False
        group.round_at, group.round_ends = now, now + self._timeout_s + MARGIN_S
        return True

    def _waiting(self, name: str, since: float, now: float) -> Keeping | None:
        """Return how long to wait for a round that may show that more than this one instance are silent."""
        group = self._groups.get(name)
        if group is not None and not group.spent and group.round_at <= since and now < group.round_ends:
            return Keeping("", group.round_ends - now)
        whole = self._groups.get(WHOLE)
        if whole is None or whole.spent or now >= whole.round_ends or since <= whole.round_at - self._timeout_s:
            return None
        return Keeping("", whole.round_ends - now) if len(self._silent) >= self._share * HINT * self._offers.total else None

    def _judge(self, name: str, now: float) -> Turn | None:
        """Turn the guard on if it is time."""
        silent, offered = self._count(name)
        if offered < LEAST or silent < self._share * offered:
            return None
        if name == WHOLE and (self._offers.services < 2 or len(self._by_name) < self._share * self._offers.services):
            return None
        group = self._groups.setdefault(name, _Group())
        if group.until is not None or group.spent:
            return None
        group.until, group.calm_at = now + self._time_s, None
        of = f"{offered} instances of {name}" if name else f"all {offered} instances, of {len(self._by_name)} services,"
        group.reason = f"{silent} of {of} time out within {self._interval_s:g} s"
        self.turned_on += 1
        return Turn(name, True, f"{group.reason}: they are kept for {self._time_s:g} s at most")

    def _count(self, name: str) -> tuple[int, int]:
        """Return how many of a group are silent, and how many it has."""
        silent = len(self._silent) if name == WHOLE else len(self._by_name.get(name, ()))
        return silent, max(silent, self._offers.total if name == WHOLE else self._offers.of(name))

    def silent(self) -> Iterator[str]:
        """Yield the ids of those that are silent."""
        yield from self._silent
