"""Heartbeats: asks every instance, each at its own time, whether it is alive. What an answer means is the catalogue's matter.

A check ends as PASSED (200), FAILED (refused, or 503: the instance says so itself), MISSED (anything that says nothing sure) or UNASKED (we
could not even ask). The first check comes at once, all others at the instance's own phase of the interval, so that they spread evenly
however the instances came in.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import msgspec

from pillion_common.errors import OwnLimit, PeerClosed, PeerError, PeerRefused
from pillion_common.http.answers import Answer
from pillion_common.http.client import Channel, encode_request
from pillion_common.logs import EventLog
from pillion_common.models import StateReport
from pillion_common.names import parse_url
from pillion_registry.catalog import Record
from pillion_registry.channels import Channels
from pillion_registry.lag import LagMeter

_log = EventLog("prober")

TICK_S = 0.02
IDLE_TICK_S = 0.1
MAX_A_TICK = 400
RETRY_S = 0.2  # after a check that says nothing sure
RETRIES = 2  # in a row; who is kept in spite of more is asked again before its turn only if it took half an interval not to answer
# A dying process closes its connections before, or after, its listening socket: ask again at once, and a refusal will say so for sure.
CLOSED_RETRIES_S = (0.0, 0.005, 0.02, 0.05, 0.1)
MAX_REASON_CHARS = 200
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, fill the interval evenly at any number of instances (Weyl)


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

_PASSED = Finding(Verdict.PASSED, "")


class _Target:
    """One instance as the prober knows it."""

    __slots__ = ("asked_at", "asking", "channel", "closes", "doubts", "due", "phase", "record", "request")

    def __init__(self, record: Record, phase: float) -> None:
        self.phase = phase
        self.due = 0.0
        self.asked_at = 0.0
        self.asking = False
        self.closes = 0
        self.doubts = 0  # checks in a row that said nothing sure
        self.record = record
        self.channel: Channel | None = None
        self.request = b""


class Prober:
    """Runs the checks. At most one check of an instance is under way.

    Args:
        channels: the connections to use.
        lag: whether we are late ourselves.
        on_finding: told of each check's end; returns whether to ask again soon.
        interval_s, timeout_s: between checks, and for one.
    """

    def __init__(self, channels: Channels, lag: LagMeter, on_finding: OnFinding, *, interval_s: float, timeout_s: float) -> None:
        self._channels = channels
        self._lag = lag
        self._on_finding = on_finding
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._targets: dict[str, _Target] = {}
        self._heap: list[tuple[float, int, _Target]] = []
        self._order = itertools.count()
        self.checks = dict.fromkeys(Verdict, 0)  # how many ended so

    def watch(self, record: Record, delay_s: float = 0.0, healthy: bool = False) -> None:
        """Check an instance from now on.

        Args:
            record: its registration.
            delay_s: time until the first check.
            healthy: it was up when it registered again, so that there is no hurry.
        """
        known = self._targets.get(record.instance_id)
        if known is not None and healthy and _place(known.record) == _place(record):
            known.record = record  # the next turn of the same place will do
            return
        now = time.monotonic()
        target = self._targets[record.instance_id] = _Target(record, known.phase if known else (len(self._targets) * GOLDEN) % 1.0)
        if delay_s:
            self._schedule(target, now + delay_s)
        else:
            self._schedule(target, self._next_turn(target, now))
            self._ask(target, now)

    def forget(self, instance_id: str) -> None:
        """Check an instance no more."""
        self._targets.pop(instance_id, None)

    def check_soon(self, instance_id: str) -> None:
        """Check at once: something hints at a change."""
        target = self._targets.get(instance_id)
        if target is not None and not target.asking:
            self._ask(target, time.monotonic())

    def hasten(self, instance_ids: Iterable[str]) -> None:
        """Check these as soon as there is time for it, those that are being asked excepted."""
        now = time.monotonic()
        for instance_id in instance_ids:
            target = self._targets.get(instance_id)
            if target is not None and not target.asking and target.due > now:
                self._schedule(target, now)

    async def run(self) -> None:
        """Start each check when it is due, for ever."""
        while True:
            now = time.monotonic()
            begun = 0
            while self._heap and self._heap[0][0] <= now and begun < MAX_A_TICK:
                due, _, target = heapq.heappop(self._heap)
                if target.due == due and self._targets.get(target.record.instance_id) is target:
                    self._schedule(target, self._next_turn(target, now))
                    if not target.asking:
                        self._ask(target, now)
                        begun += 1
            pause_s = self._heap[0][0] - now if self._heap else IDLE_TICK_S
            await asyncio.sleep(min(max(pause_s, TICK_S), IDLE_TICK_S))

    def _schedule(self, target: _Target, due: float) -> None:
        target.due = due
        heapq.heappush(self._heap, (due, next(self._order), target))

    def _next_turn(self, target: _Target, now: float) -> float:
        """Return the next time that is of the target's phase, counted from the clock and not from the last check, so that none drifts."""
        turn = now / self._interval_s - target.phase
        return (int(turn) + 1 + target.phase) * self._interval_s

    def _ask(self, target: _Target, now: float) -> None:
        target.asking = True
        target.asked_at = now
        if target.channel is None:
            url = parse_url(target.record.registration.heartbeat_url or "", "HeartbeatURL")
            target.channel = self._channels.get(target.record, url)
            target.request = encode_request(url, "GET", url.target)
        target.channel.send(target.request, partial(self._asked, target), self._timeout_s, retry=True)

    def _asked(self, target: _Target, outcome: Answer | PeerError) -> None:
        target.asking = False
        record = target.record
        if self._targets.get(record.instance_id) is not target:
            return
        finding = _judge(outcome)
        if isinstance(outcome, PeerClosed) and target.closes < len(CLOSED_RETRIES_S):
            target.closes += 1
            self._ask_in(target, CLOSED_RETRIES_S[target.closes - 1])
            return
        target.closes = 0
        self.checks[finding.verdict] += 1
        if finding.verdict is Verdict.UNASKED:
            _log.warn_seldom("check_not_made", finding.reason)
            again = False
        elif finding.verdict is Verdict.MISSED and self._lag.late_within(time.monotonic() - target.asked_at + self._timeout_s):
            again = True  # we were late ourselves: blame nobody
        else:
            again = self._on_finding(record, finding)
        target.doubts = target.doubts + 1 if again else 0
        now = time.monotonic()
        if again and (target.doubts <= RETRIES or now - target.asked_at >= self._interval_s / 2):
            self._schedule(target, min(target.due, now + RETRY_S))

    def _ask_in(self, target: _Target, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._ask_now, target)

    def _ask_now(self, target: _Target) -> None:
        if not target.asking and self._targets.get(target.record.instance_id) is target:
            self._ask(target, time.monotonic())


def _place(record: Record) -> tuple[str | None, str]:
    """Return where, and on whose behalf, an instance is checked."""
    return record.registration.heartbeat_url, record.registrant


def _judge(outcome: Answer | PeerError) -> Finding:
    if isinstance(outcome, PeerError):
        if isinstance(outcome, OwnLimit):
            return Finding(Verdict.UNASKED, outcome.message)
        return Finding(Verdict.FAILED if isinstance(outcome, PeerRefused) else Verdict.MISSED, outcome.message)
    if outcome.status == 200:
        return _PASSED
    reason = _reason(outcome.body) or f"its heartbeat answered {outcome.status}"
    return Finding(Verdict.FAILED if outcome.status == 503 else Verdict.MISSED, reason)


def _reason(body: bytes) -> str:
    """Return the reason a sidecar gives in its heartbeat, or the text any other peer gives."""
    try:
        said = msgspec.json.decode(body, type=StateReport).reason or ""
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = body.decode("utf-8", "replace")
    return tidy(said)


def tidy(said: str) -> str:
    """Return a peer's words as one line of at most 200 printable characters: they go to logs, terminals and pages."""
    return " ".join("".join(char if char.isprintable() else " " for char in said[: 4 * MAX_REASON_CHARS]).split())[:MAX_REASON_CHARS]
