"""Carries entries to the store, one group at a time, again and again until they are kept: those who sent them hear no answer.

Bounded by whoever fills it: `full` says when to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.intake import Intake
from pillion_log.store.base import Appended

MAX_GROUP = 1_000
RETRY_S = 0.5

_log = EventLog("syslog")


class Outbox:
    """Holds entries until they are kept.

    Args:
        intake: takes them.
        max_bytes: from which on it is full; it takes what it is given all the same.
        on_kept: called when some have been kept.
    """

    def __init__(self, intake: Intake, max_bytes: int, on_kept: Callable[[], None]) -> None:
        self._intake = intake
        self._max_bytes = max_bytes
        self._on_kept = on_kept
        self._runs: list[Run] = []
        self._going: list[Run] = []
        self._retry: asyncio.TimerHandle | None = None
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Return whether no more should be put in now."""
        return self._bytes >= self._max_bytes

    @property
    def empty(self) -> bool:
        """Return whether all was kept."""
        return not self._bytes

    def put(self, runs: list[Run]) -> None:
        """Take entries, after all earlier ones."""
        self._runs += runs
        self._bytes += sum(len(run.lines) for run in runs)
        self._go_on()

    def close(self) -> None:
        """Try no more."""
        if self._retry is not None:
            self._retry.cancel()

    def _go_on(self) -> None:
        if self._going or not self._runs:
            return
        self._going, self._runs = self._runs[:MAX_GROUP], self._runs[MAX_GROUP:]
        self._send()

    def _send(self) -> None:
        self._retry = None
        self._intake.take_runs(self._going, self._told)

    def _told(self, outcome: Appended | Unavailable) -> None:
        if isinstance(outcome, Unavailable):
            _log.warn_seldom("syslog_waits", f"syslog messages wait: {outcome.message}")
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._send)
            return
        self._bytes -= sum(len(run.lines) for run in self._going)
        self._going = []
        self._on_kept()
        self._go_on()
