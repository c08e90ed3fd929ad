"""Checks a history of concurrent operations on several replicas. Pure.

An operation is what one client asked of one replica, with when it began and ended, and what was answered. What has no answer, or 503,
may have been carried out at any time after it began, or never. A write W comes before another only if W had ended when the other began; of
writes at the same time either may be the last.

Promised is:
- *read your writes*: what a replica shows is not older than a write that it had answered 200 before the read began;
- *revisions never go back*: not for one client at one replica, and not on one replica within its life;
- *one history*: two lists of the same revision show the same, whichever replicas they are of;
- *nothing lost*: in the end each instance is as the last acknowledged write left it, or a write of unknown fate, or one at the same time;
- a registration is refused as outdated only if there is a newer one.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

REGISTER, DEREGISTER, DRAIN, LIST, ONE = "register", "deregister", "drain", "list", "read one"
WRITES = (REGISTER, DEREGISTER, DRAIN)
OK, MISSING, OUTDATED = 200, 404, 409


class Shown(NamedTuple):
    """What a replica shows of an instance: the number of its registration, whether it drains, and its whole state for comparing lists."""

    number: int
    drains: bool
    state: str = ""


@dataclass(slots=True)
class Operation:
    """One operation.

    Attributes:
        client, replica: who asked whom; life: how often that replica had been started.
        instance: which it is about; -1 for a list. number: of a registration, rising with each of an instance.
        begin, end: seconds; the end is infinite where there was no answer.
        status: of the answer; 0: none.
        revision: that was answered, if one was.
        shown: of a read: what is there; whatever is not named is not there.
    """

    client: int
    replica: int
    life: int
    kind: str
    instance: int
    begin: float
    end: float = inf
    status: int = 0
    number: int = 0
    revision: int | None = None
    shown: Mapping[int, Shown] | None = None

    def __str__(self) -> str:
        what = f"{self.kind} of {self.instance}" if self.instance >= 0 else self.kind
        numbered = f" number {self.number}" if self.kind == REGISTER else ""
        told = f"answered {self.status} at {self.end:.4f}" if self.status else "not answered"
        return f"{what}{numbered} by client {self.client} at r{self.replica + 1}, begun at {self.begin:.4f}, {told}"


@dataclass
class Verdict:
    """How often each promise was broken, and in words."""

    stale: int = 0
    went_back: int = 0
    differing: int = 0
    lost: int = 0
    refused: int = 0
    unexpected: int = 0
    reads: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return self.stale + self.went_back + self.differing + self.lost + self.refused + self.unexpected


def check(operations: Sequence[Operation], instances: int, final: Mapping[int, Shown]) -> Verdict:
    """Check a history.

    Args:
        operations: in any order.
        instances: how many there may be: 0, 1 and so on. None is there at the beginning.
        final: what is there in the end, when all was quiet.
    """
    verdict = Verdict()
    _check_statuses(operations, verdict)
    _check_revisions(operations, verdict)
    _check_lists(operations, verdict)
    by_instance: defaultdict[int, list[Operation]] = defaultdict(list)
    for one in operations:
        if one.kind in WRITES:
            by_instance[one.instance].append(one)
    pasts = {instance: _Past(by_instance[instance]) for instance in range(instances)}
    _check_reads(operations, pasts, verdict)
    for instance, past in pasts.items():
        if why := past.objection(final.get(instance), None, inf, inf):
            verdict.lost += 1
            verdict.faults.append(f"in the end instance {instance} {why}")
    return verdict


class _Acknowledged:
    """Of some writes, those that were acknowledged: which of them began last among those that had ended at a moment."""

    def __init__(self, writes: Iterable[Operation]) -> None:
        ended = sorted((one.end, one.begin) for one in writes if one.status == OK)
        self._ends = [end for end, _ in ended]
        self._latest: list[float] = []
        latest = -inf
        for _, begin in ended:
            latest = max(latest, begin)
            self._latest.append(latest)

    def floor(self, moment: float) -> float:
        """Return when the last of those began that had ended before a moment: what ended before that is outdated then."""
        place = bisect_left(self._ends, moment)
        return self._latest[place - 1] if place else -inf


class _Past:
    """The writes to one instance."""

    def __init__(self, writes: Sequence[Operation]) -> None:
        effective = [one for one in writes if one.status in (OK, 0, 503)]
        self._ends = {id(one): one.end if one.status == OK else inf for one in effective}
        self._registered = {one.number: one for one in effective if one.kind == REGISTER}
        self._left = [one for one in effective if one.kind == DEREGISTER]
        self._drained = [one for one in effective if one.kind == DRAIN]
        placing = [one for one in effective if one.kind != DRAIN]
        replicas: set[int | None] = {one.replica for one in effective} | {None}
        # Who is there is decided by registrations and leaves; whether it drains by drains too.
        self._places = {r: _Acknowledged(one for one in placing if r in (None, one.replica)) for r in replicas}
        self._all = {r: _Acknowledged(one for one in effective if r in (None, one.replica)) for r in replicas}
        self._none = _Acknowledged(())

    def objection(self, shown: Shown | None, replica: int | None, begin: float, end: float) -> str:
        """Return why this cannot be shown in a read, or nothing.

        Args:
            replica: that shows it; None: all that was acknowledged by anybody must be seen.
        """
        place = self._places.get(replica, self._none).floor(begin)
        if shown is None:
            if place == -inf or any(self._may(one, place, end) for one in self._left):
                return ""
            return f"is not there, though a registration that began at {place:.4f} was acknowledged, and no later leave asked for"
        registered = self._registered.get(shown.number)
        if registered is None or not self._may(registered, place, end):
            return f"has registration {shown.number}, though a write that began at {place:.4f} was acknowledged after it ({registered})"
        state = self._all.get(replica, self._none).floor(begin)
        if shown.drains and not any(self._may(one, state, end) for one in self._drained):
            return f"drains, though a write that began at {state:.4f} was acknowledged after all drains"
        if not shown.drains and not self._may(registered, state, end):
            return f"does not drain, though a drain that began at {state:.4f} was acknowledged after its registration {shown.number}"
        return ""

    def _may(self, write: Operation, floor: float, end: float) -> bool:
        """Return whether a write can be the last that is seen."""
        return write.begin < end and self._ends[id(write)] >= floor


def _check_statuses(operations: Iterable[Operation], verdict: Verdict) -> None:
    begun: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for one in operations:
        if one.kind == REGISTER:
            begun[one.instance].append((one.begin, one.number))
    for one in operations:
        allowed = {REGISTER: (OK, OUTDATED), LIST: (OK,)}.get(one.kind, (OK, MISSING))
        if one.status not in (0, 503, *allowed):
            verdict.unexpected += 1
            verdict.faults.append(f"unexpected: {one}")
        elif one.status == OUTDATED and not any(b < one.end and number > one.number for b, number in begun[one.instance]):
            verdict.refused += 1
            verdict.faults.append(f"refused as outdated, and none is newer: {one}")


def _check_revisions(operations: Iterable[Operation], verdict: Verdict) -> None:
    told = [one for one in operations if one.status == OK and one.revision is not None]
    groups: defaultdict[tuple[str, int, int], list[Operation]] = defaultdict(list)
    for one in told:
        groups["on", one.replica, one.life].append(one)
        groups[f"for client {one.client} at", one.replica, -1].append(one)
    for (what, replica, _), some in groups.items():
        ended: list[tuple[float, int]] = []
        highest = -1
        for one in sorted(some, key=lambda one: one.begin):
            while ended and ended[0][0] < one.begin:
                highest = max(highest, heapq.heappop(ended)[1])
            assert one.revision is not None
            if one.revision < highest:
                verdict.went_back += 1
                verdict.faults.append(f"{what} r{replica + 1} the revision went back from {highest} to {one.revision}: {one}")
            heapq.heappush(ended, (one.end, one.revision))


def _check_lists(operations: Iterable[Operation], verdict: Verdict) -> None:
    first: dict[int, Operation] = {}
    for one in operations:
        if one.kind == LIST and one.status == OK and one.revision is not None:
            other = first.setdefault(one.revision, one)
            if other.shown != one.shown:
                verdict.differing += 1
                mine, its = one.shown or {}, other.shown or {}
                odd = sorted(key for key in mine.keys() | its.keys() if mine.get(key) != its.get(key))
                which = f"instance {odd[0]} is {mine.get(odd[0])} at r{one.replica + 1} and {its.get(odd[0])} at r{other.replica + 1}"
                verdict.faults.append(f"two lists of revision {one.revision} differ in {len(odd)} instances: {which}")


def _check_reads(operations: Iterable[Operation], pasts: Mapping[int, _Past], verdict: Verdict) -> None:
    for one in operations:
        if one.kind == LIST and one.status == OK:
            looked: Iterable[int] = pasts
        elif one.kind == ONE and one.status in (OK, MISSING):
            looked = (one.instance,)
        elif one.kind in (DEREGISTER, DRAIN) and one.status == MISSING:
            looked = (one.instance,)  # it says that nothing is there
        else:
            continue
        verdict.reads += 1
        for instance in looked:
            if why := pasts[instance].objection((one.shown or {}).get(instance), one.replica, one.begin, one.end):
                verdict.stale += 1
                verdict.faults.append(f"at r{one.replica + 1} instance {instance} {why}: {one}")
