"""What happens in the registry, one event at a time: the one place where a transition is recorded, and those who want to hear of it.

An Event is what the journal keeps, for example `Event(812, 1753300000.5, 9041, "down", "GradingService", "GradingService-1f3a",
"http://10.0.0.7:6000", "down", "up", "connection refused", None)`. A Change is a little more: what a watcher needs to show the instance as
it was at that moment. The newest changes are kept in memory, so that a stream that was cut off goes on where it was.

Costs a registration little: an event is one small object, and becomes bytes later, many at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec

from pillion_registry.catalog import Record, Transition

RECENT = 2048

# The kinds. `registered` comes with the first registration of an instance and with one that says something else than the last.
REGISTERED, UP, DOWN, DRAINING, UNDRAINED = "registered", "up", "down", "draining", "undrained"
HIDDEN, SHOWN = "hidden", "shown"  # withdrawn for some seconds by an operator; let back
LEFT, REPLACED, FORGOTTEN = "left", "replaced", "forgotten"  # the instance is gone
STARTED, STOPPED, LOST = "started", "stopped", "lost"  # the registry itself; events that the journal could not keep
PRESENT = "present"  # in a snapshot
RENEWED = "renewed"  # registered again, in the same words: nothing that the journal keeps
KINDS = (REGISTERED, UP, DOWN, DRAINING, UNDRAINED, HIDDEN, SHOWN, LEFT, REPLACED, FORGOTTEN, STARTED, STOPPED, LOST)


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened. `number` rises by one, over restarts as well; `state` is the one after it, None if there is none any more.

    `by` is who asked for it, where somebody did: a peer's address, and the name it gave.
    """

    number: int
    time_s: float
    revision: int
    kind: str
    service: str = ""
    instance_id: str = ""
    url: str = ""
    state: str | None = None
    before: str | None = None
    reason: str | None = None
    by: str | None = None


class Change(NamedTuple):
    """A transition as a watcher sees it: `state` is None when the instance is gone."""

    revision: int
    kind: str
    record: Record
    state: str | None
    before: str | None
    reason: str | None
    since_s: float


Listener = Callable[[Event], None]
T = TypeVar("T")


class Bell:
    """Wakes all who wait for the next thing to happen."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next ring; return whether there was one in time."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            if not future.done() or future.cancelled():
                self._waiting = [one for one in self._waiting if one is not future]
        return True


class Events:
    """Records what happens and passes it on.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._changes: deque[Change] = deque(maxlen=RECENT)
        self._events: deque[Event] = deque(maxlen=RECENT)
        self._passed = 0  # the revision of the newest change that is not kept in memory any more
        self.number = 0  # of the newest event
        self.bell = Bell()

    def begin(self, number: int, revision: int) -> None:
        """Go on after the newest event that was kept, and the revision at which the catalogue starts."""
        self.number, self._passed = number, revision

    def listen(self, listener: Listener) -> None:
        """Tell a listener of each event, at once and in order. It must be quick, and not raise."""
        self._listeners.append(listener)

    def record(self, transition: Transition, kind: str, by: str | None = None) -> None:
        """Record what became of an instance: a change for watchers, and an event unless it only registered again in the same words."""
        instance, before, after, reason, revision = transition
        record = instance.record
        now = round(self._clock(), 3)  # as it is shown, so that what is asked for by a shown time is found
        changes = self._changes
        if len(changes) == RECENT:
            self._passed = changes[0].revision
        changes.append(Change(revision, kind, record, after, before, reason, now))
        if kind != RENEWED:
            self.number += 1
            self._pass_on(Event(self.number, now, revision, kind, record.name, record.instance_id, record.url, after, before, reason, by))
        self.bell.ring()

    def note(self, kind: str, reason: str, revision: int) -> None:
        """Record something about the registry itself."""
        self.number += 1
        self._pass_on(Event(self.number, round(self._clock(), 3), revision, kind, reason=reason))
        self.bell.ring()

    def changes_since(self, revision: int) -> list[Change] | None:
        """Return the changes after a revision; None if some of them are not in memory any more."""
        if revision < self._passed:
            return None
        return list(_newest(self._changes, lambda change: change.revision > revision))

    def events_since(self, number: int) -> list[Event] | None:
        """Return the events after one; None if some of them are not in memory any more."""
        if number < self.number and (not self._events or self._events[0].number > number + 1):
            return None
        return list(_newest(self._events, lambda event: event.number > number))

    def _pass_on(self, event: Event) -> None:
        self._events.append(event)
        for listener in self._listeners:
            listener(event)


def _newest(kept: deque[T], wanted: Callable[[T], bool]) -> Iterator[T]:
    count = 0
    for one in reversed(kept):
        if not wanted(one):
            break
        count += 1
    return islice(kept, len(kept) - count, None)
