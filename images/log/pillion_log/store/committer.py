"""The thread that decides what is new, writes it, and hands the answers back: adaptive group commit.

As soon as a group is on the disk the thread takes all that has come in meanwhile as the next one, without asking the loop: so the disk and
the loop work at the same time, an append waits for the disk at most twice, and a thousand at once cost hardly more than one. It does few
and large things, since it takes the interpreter from the loop's thread for each. What is a duplicate is decided here, group by group, when
all earlier ones are durable or have failed. The loop is told once per group.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.appender import Appender
from pillion_log.store.base import Appended, Done
from pillion_log.store.sources import Mark, Sources

MAX_GROUP_BYTES = 8 * 1024 * 1024
PROBE_EVERY_S = 1.0
RETRY_AFTER_S = 5
IDLE_S = 60.0

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = EventLog("store")

_ONE = Appended(1, 0)

Item = tuple[Sequence[Run], int, Done]


class Group(msgspec.Struct, gc=False):
    """What was written at once, and what to tell those who wait for it."""

    answers: list[tuple[Done, Appended]] = []
    size: int = 0  # of all that was given, duplicates too
    failure: Unavailable | None = None
    start: int = 0
    lines: bytes = b""


class Committer:
    """The thread. All is called in the loop's thread.

    Args:
        appender: writes; used by the thread alone from `start` on.
        sources: likewise.
        settle: called in the loop's thread with each group.
        sync_every_s: what is written is made durable that often, if the appender does not do it at once.
        probe_every_s: while nothing can be written, how often that is tried.
        echo: called in the thread with the lines of each group, after all else.
    """

    def __init__(
        self,
        appender: Appender,
        sources: Sources,
        settle: Callable[[Group], None],
        sync_every_s: float | None = None,
        probe_every_s: float = PROBE_EVERY_S,
        echo: Callable[[bytes], None] | None = None,
    ) -> None:
        self.fault: str | None = None
        self.waiting: deque[Item] = deque()  # append to it, and ring if it is idle: spelt out where each call is counted
        self.idle = False  # the thread waits for the bell, or is about to
        self._appender = appender
        self._sources = sources
        self._settle = settle
        self._echo = echo
        self._probe_every_s = probe_every_s
        self._sync_every_s = sync_every_s
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self._due = 0.0  # when there is something to do besides writing
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def ring(self) -> None:
        """Wake the thread: something waits, and it is idle."""
        self.idle = False
        self._loop.call_soon(self._bell.put, None)  # then all requests that came in at this moment are there

    async def stop(self) -> None:
        """End once all that was given is done. Safe to call twice, and before it began."""
        if self._thread.is_alive():
            self._stopping = True
            self._bell.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            if self.waiting:
                self._tell(self._commit())
            elif self._stopping:
                return
            else:
                self._rest()
            if time.monotonic() >= self._due:
                self._keep_house()

    def _rest(self) -> None:
        self.idle = True
        if not self.waiting and not self._stopping:  # else it came in just now
            with suppress(queue.Empty):
                self._bell.get(timeout=max(0.0, self._due - time.monotonic()))
        self.idle = False

    def _commit(self) -> Group:
        answers: list[tuple[Done, Appended]] = []
        group = Group(answers)
        size_in_all = 0
        staged: dict[str, Mark] = {}
        runs: list[Run] = []
        try:
            waiting = self.waiting
            while waiting and size_in_all < MAX_GROUP_BYTES:
                given, size, done = waiting.popleft()
                size_in_all += size
                if len(given) == 1 and not given[0].seqs:  # most of what comes in one by one; it cannot be a repeat
                    runs.append(given[0])
                    answers.append((done, _ONE if given[0].length == 1 else Appended(given[0].length, 0)))
                    continue
                fresh, answer = self._sources.fresh(given, staged)
                answers.append((done, answer))
                runs += fresh
            if runs:
                if self.fault is not None and self._sync_every_s is not None:
                    self._appender.probe()  # after a failed sync an append that syncs later proves nothing
                group.start, group.lines = self._appender.append(runs)
                self._sources.keep(staged)
                self._works()
        except OSError as exc:
            group.failure = self._failed(exc)
        except Exception as exc:  # a fault of ours with one group must not end the thread that all others need
            _log.fault("group_failed", f"a group of entries was not kept: {type(exc).__name__}: {exc}", exc)
            group.failure = Unavailable("the log's store failed; its log says how", code="store_failed", retry_after_s=RETRY_AFTER_S)
        group.size = size_in_all
        return group

    def _keep_house(self) -> None:
        """Do what is due: a sync, a new segment for one that is old, a probe while there is a fault."""
        try:
            self._appender.sync()
            if self._appender.is_old():
                self._appender.rotate()
            if self.fault is not None:
                self._appender.probe()
                self._works()
        except OSError as exc:
            self._failed(exc)
        self._plan()

    def _plan(self) -> None:
        waits = [IDLE_S, self._appender.rotate_s, self._sync_every_s or IDLE_S, self._probe_every_s if self.fault else IDLE_S]
        self._due = time.monotonic() + min(waits)

    def _tell(self, group: Group) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, group)
        if self._echo is not None and group.lines:
            self._echo(group.lines)

    def _failed(self, exc: OSError) -> Unavailable:
        what = f"the log's store {self._appender.place} cannot write: {exc.strerror or exc}"
        if self.fault is None:
            _log.error("store_failed", f"{what}; nothing is acknowledged until it can")
        self.fault = what
        self._plan()
        if exc.errno in _FULL:
            return StorageFull(f"{what}; make room", retry_after_s=RETRY_AFTER_S)
        return Unavailable(what, code="store_failed", retry_after_s=RETRY_AFTER_S)

    def _works(self) -> None:
        if self.fault is not None:
            _log.info("store_works", f"the log's store {self._appender.place} can write again")
            self.fault = None
