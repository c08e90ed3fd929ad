"""What happens in the registry, one event at a time: the one place where a transition is recorded, and those who want to hear of it.

An Event is what the journal keeps, for example `Event(812, 1753300000.5, 9041, "down", "GradingService", "GradingService-1f3a",
"http://10.0.0.7:6000", "down", "up", "connection refused", None)`. A Change is that and the record, with which a watcher is shown the
instance as it was at that moment. The newest stay in memory, so that a stream that was cut off goes on where it was.

Costs a registration little: an event is one small object, and becomes bytes later, many at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from pillion_registry.catalog import Record, Transition

RECENT = 2048

# The kinds. `registered` comes with the first registration of an instance and with one that says something else than the last.
REGISTERED, UP, DOWN, DRAINING, UNDRAINED = "registered", "up", "down", "draining", "undrained"
HIDDEN, SHOWN = "hidden", "shown"  # withdrawn for some seconds by an operator; let back
LEFT, REPLACED, FORGOTTEN = "left", "replaced", "forgotten"  # the instance is gone
HELD = "held"  # answers, and is held down for flapping
GUARD_ON, GUARD_OFF = "guard on", "guard off"  # of a service, or of all if it names none
STARTED, STOPPED, LOST = "started", "stopped", "lost"  # the registry itself; events that the journal could not keep
PRESENT = "present"  # in a snapshot
RENEWED = "renewed"  # registered again, in the same words: nothing that the journal keeps
STATELESS = (HELD, GUARD_ON, GUARD_OFF)  # what says nothing of how a state became another
KINDS = (REGISTERED, UP, DOWN, DRAINING, UNDRAINED, HIDDEN, SHOWN, LEFT, REPLACED, FORGOTTEN, STARTED, STOPPED, LOST, *STATELESS)


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


Change = tuple[Event, Record]  # a transition as a watcher sees it; one that is no event (RENEWED) has the number 0
Listener = Callable[[Event], None]


class Reader:
    """Somebody who waits, and may leave before it is over."""

    def __init__(self) -> None:
        self.gone = False
        self.waking: asyncio.Future[None] | None = None

    def leave(self) -> None:
        """Wait no more."""
        self.gone = True
        if self.waking is not None and not self.waking.done():
            self.waking.set_result(None)


class Bell:
    """Wakes all who wait for the next thing to happen."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, timeout_s: float, reader: Reader | None = None) -> bool:
        """Wait for the next ring, or until the reader leaves; return False if the time was over before."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        if reader is not None:
            reader.waking = future
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(future, None)
        return True


class Events:
    """Records what happens and passes it on.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._recent: deque[tuple[Event, Record | None]] = deque(maxlen=RECENT)
        self._passed = 0  # the revision of the newest change that is not kept in memory any more
        self._passed_number = 0  # and the number of the newest event that is not
        self.number = 0  # of the newest event
        self.bell = Bell()

    def begin(self, number: int, revision: int) -> None:
        """Go on after the newest event that was kept, and the revision at which the catalogue starts."""
        self.number = self._passed_number = number
        self._passed = revision

    def listen(self, listener: Listener) -> None:
        """Tell a listener of each event, at once and in order. It must be quick, and not raise."""
        self._listeners.append(listener)

    def record(self, transition: Transition, kind: str, by: str | None = None) -> None:
        """Record what became of an instance: a change for watchers, and an event unless it only registered again in the same words."""
        instance, before, after, reason, revision = transition
        record = instance.record
        given = record.registration
        number = 0
        if kind != RENEWED:
            number = self.number = self.number + 1
        event = Event(
            number, self._now(), revision, kind, given.service_name, record.instance_id, given.service_url, after, before, reason, by
        )
        self._keep(event, record)

    def note(self, kind: str, reason: str, revision: int, service: str = "", about: Record | None = None) -> None:
        """Record what is no transition: of the registry itself, of a service, or of an instance."""
        self.number += 1
        instance_id, url = (about.instance_id, about.url) if about else ("", "")
        self._keep(Event(self.number, self._now(), revision, kind, service, instance_id, url, reason=reason), None)

    def changes_since(self, revision: int) -> list[Change] | None:
        """Return the changes of instances after a revision; None if some of them are not in memory any more."""
        if revision < self._passed:
            return None
        recent = self._recent
        count = 0
        for event, _ in reversed(recent):
            if event.revision <= revision:
                break
            count += 1
        return [(event, record) for event, record in islice(recent, len(recent) - count, None) if record is not None]

    def events_since(self, number: int) -> list[Event] | None:
        """Return the events after one; None if some of them are not in memory any more."""
        if number < self._passed_number:
            return None
        found: list[Event] = []
        for event, _ in reversed(self._recent):
            if event.number > number:
                found.append(event)
            elif event.number:
                break
        found.reverse()
        return found

    def _now(self) -> float:
        return int(self._clock() * 1000) / 1000  # as it is shown, so that what is asked for by a shown time is found

    def _keep(self, event: Event, record: Record | None) -> None:
        recent = self._recent
        if len(recent) == RECENT:
            oldest = recent[0][0]
            self._passed = oldest.revision
            self._passed_number = oldest.number or self._passed_number
        recent.append((event, record))
        if event.number:
            for listener in self._listeners:
                listener(event)
        self.bell.ring()
