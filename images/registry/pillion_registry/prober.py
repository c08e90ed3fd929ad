"""Heartbeats: asks every instance, each at its own time, whether it is alive. What an answer means is the catalogue's matter.

A check ends as PASSED (200), FAILED (refused, or 503: the instance says so itself), MISSED (anything that says nothing sure) or UNASKED (we
could not even ask).
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pillion_common.errors import OwnLimit, PeerClosed, PeerError, PeerRefused
from pillion_common.logs import EventLog
from pillion_common.models import StateReport
from pillion_common.tasks import Supervisor
from pillion_registry.catalog import Record
from pillion_registry.channels import Channels
from pillion_registry.lag import LagMeter

_log = EventLog("prober")

RETRY_S = 0.2  # after a check that says nothing sure, or a closed connection
MAX_REASON_CHARS = 200


class Verdict(enum.Enum):
    """What a check says of its instance."""

    PASSED = "passed"
    MISSED = "missed"
    FAILED = "failed"
    UNASKED = "unasked"


class Finding(NamedTuple):
    """A check's outcome; `reason` is empty for PASSED."""

    verdict: Verdict
    reason: str


OnFinding = Callable[[Record, Finding], bool]


class Prober:
    """Runs the checks. At most one check of an instance is under way.

    Args:
        channels: the connections to use.
        tasks: owns the checks.
        on_finding: told of each check's end; returns whether to ask again soon.
        interval_s, timeout_s: between checks, and for one.
    """

    def __init__(
        self, channels: Channels, tasks: Supervisor, lag: LagMeter, on_finding: OnFinding, *, interval_s: float, timeout_s: float
    ) -> None:
        self._channels = channels
        self._tasks = tasks
        self._lag = lag
        self._on_finding = on_finding
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._records: dict[str, Record] = {}
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._under_way: set[str] = set()
        self._wake = asyncio.Event()

    def watch(self, record: Record, delay_s: float = 0.0) -> None:
        """Check an instance from now on, the first time after delay_s."""
        self._records[record.instance_id] = record
        self._schedule(record.instance_id, time.monotonic() + delay_s)

    def forget(self, instance_id: str) -> None:
        """Check an instance no more."""
        self._records.pop(instance_id, None)
        self._due.pop(instance_id, None)

    def check_soon(self, instance_id: str, generation: int) -> None:
        """Check again before the next time is due: something hints at a change."""
        record = self._records.get(instance_id)
        if record is not None and record.generation == generation:
            self._schedule(instance_id, min(self._due.get(instance_id, 0.0), time.monotonic() + RETRY_S / 10))

    async def run(self) -> None:
        """Start each check when it is due, for ever."""
        while True:
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                due, _, instance_id = heapq.heappop(self._heap)
                if self._due.get(instance_id) == due:
                    self._begin(instance_id, due)
            self._wake.clear()
            pause = self._heap[0][0] - time.monotonic() if self._heap else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _schedule(self, instance_id: str, due: float) -> None:
        self._due[instance_id] = due
        heapq.heappush(self._heap, (due, next(self._order), instance_id))
        self._wake.set()

    def _begin(self, instance_id: str, due: float) -> None:
        # The next time is counted from the last, not from the answer: checks keep their even spread.
        now = time.monotonic()
        self._schedule(instance_id, max(due + self._interval_s, now + self._interval_s / 2))
        if instance_id not in self._under_way:
            self._under_way.add(instance_id)
            record = self._records[instance_id]
            self._tasks.spawn(f"check {record.instance_id}", self._check(record))

    async def _check(self, record: Record) -> None:
        started = time.monotonic()
        try:
            finding = await self._ask(record)
        finally:
            self._under_way.discard(record.instance_id)
        current = self._records.get(record.instance_id)
        if current is None:
            return
        if current is not record:
            self._schedule(record.instance_id, time.monotonic())  # registered anew meanwhile: that is the one to check
            return
        if finding.verdict is Verdict.UNASKED:
            _log.warn_seldom("check_not_made", finding.reason)
            again = False
        elif finding.verdict is Verdict.MISSED and self._lag.late_within(time.monotonic() - started + self._timeout_s):
            again = True  # we were late ourselves: blame nobody
        else:
            again = self._on_finding(record, finding)
        if again and record.instance_id in self._due:
            self._schedule(record.instance_id, min(self._due[record.instance_id], time.monotonic() + RETRY_S))

    async def _ask(self, record: Record) -> Finding:
        for last in (False, True):
            if self._records.get(record.instance_id) is not record:
                return Finding(Verdict.MISSED, "it is not registered any more")  # and must not get a channel nobody would close
            channel, target = self._channels.get(record, record.registration.heartbeat_url or "")
            try:
                answer = await channel.request("GET", target, timeout_s=self._timeout_s)
            except OwnLimit as exc:
                return Finding(Verdict.UNASKED, exc.message)
            except PeerRefused as exc:
                return Finding(Verdict.FAILED, exc.message)
            except PeerClosed as exc:
                # A dying process closes its connections: ask again at once, and a refusal will say so for sure.
                if last:
                    return Finding(Verdict.MISSED, exc.message)
            except PeerError as exc:
                return Finding(Verdict.MISSED, exc.message)
            else:
                break
        if answer.status == 200:
            return Finding(Verdict.PASSED, "")
        reason = _reason(answer.body) or f"its heartbeat answered {answer.status}"
        return Finding(Verdict.FAILED if answer.status == 503 else Verdict.MISSED, reason)


def _reason(body: bytes) -> str:
    """Return the reason a sidecar gives in its heartbeat, or the text any other peer gives."""
    try:
        said = msgspec.json.decode(body, type=StateReport).reason or ""
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = body.decode("utf-8", "replace")
    return " ".join(said.split())[:MAX_REASON_CHARS]
