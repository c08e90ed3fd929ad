"""Follows the engine: keeps a picture of all its running containers that is right in the end, whatever events were lost.

Events are hints. They say whom to look at, and two of them, that a container dies or is told to stop, are acted on at once. What is true is
asked for: of those of whom something was heard, and of all at the start, after each gap in the stream, and every `resync_s`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.keys import PREFIX
from pillion_common.logs import EventLog
from pillion_sidecar.agent.containers import Container, Listed, read_container, read_list, read_listed
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.labels import REGISTRATOR

_log = EventLog("watch")

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 5.0
BLIND_RESYNC_S = 5.0  # between looks at everything while no events come
SPACING_S = 0.02  # between two looks, so that a storm of events is looked at together
SPACING_FACTOR = 3  # a look that took long is followed by a pause three times as long: a quarter of a core at most
MAX_HINTS = 10_000  # of whom something was heard; beyond, all are looked at
INSPECTIONS = 8  # at once

OnPicture = Callable[[Mapping[str, Container], Mapping[str, Listed]], None]


class Watch:
    """The picture, and what keeps it right.

    Args:
        resync_s: time between two looks at everything.
        only: labels to remember besides Pillion's and Registrator's.
        on_picture: told all containers of interest and all that run, after each look.
        on_dead: told the id of a container that has ended just now.
        on_signal: told the id of a container that was sent a signal just now, and which.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        resync_s: float,
        only: Iterable[str],
        on_picture: OnPicture,
        on_dead: Callable[[str], None],
        on_signal: Callable[[str, int], None],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._resync_s = resync_s
        self._only = tuple(only)
        self._on_picture = on_picture
        self._on_dead = on_dead
        self._on_signal = on_signal
        self._rand = rand
        self._pictures: dict[str, Container] = {}
        self._listed: dict[str, Listed] = {}  # all that run
        self._plain: set[str] = set()  # ids of those that say nothing of themselves, which cannot change
        self._hints: set[str] = set()
        self._all = True
        self._hint = asyncio.Event()
        self._events_fault = ""
        self._look_fault = "it was not asked yet"
        self._lost = False
        self._looked_at: float | None = None
        self.events_seen = 0
        self.streams_opened = 0

    @property
    def fault(self) -> str:
        """Return why the picture may be old; empty when it is not."""
        return self._look_fault or self._events_fault

    @property
    def looked_at(self) -> float | None:
        """Return when everything was seen last (monotonic seconds); None if never."""
        return self._looked_at

    async def follow(self) -> None:
        """Take the events in, for ever."""
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, self._rand)
        while True:
            try:
                await self._engine.follow(self._opened, self._take)
                backoff.reset()
            except PeerError as exc:
                self._note_events(exc.message)
            await asyncio.sleep(backoff.next_delay())

    async def look(self) -> None:
        """Keep the picture right, for ever."""
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, self._rand)
        while True:
            began = time.monotonic()
            try:
                await self.look_once()
                backoff.reset()
            except PeerError as exc:
                self._note_look(exc.message)
                self._all = True  # who was heard of is forgotten
                await asyncio.sleep(backoff.next_delay())
                continue
            await asyncio.sleep(max(SPACING_S, SPACING_FACTOR * (time.monotonic() - began)))
            await self._until_due()

    async def look_once(self) -> None:
        """Look at all of whom something was heard, or at everything if that is due.

        Raises:
            PeerError: the engine cannot be asked; the picture stays, and everything is to be looked at next.
        """
        self._hint.clear()
        hinted, self._hints = self._hints, set()
        everything, self._all = self._all, False
        if everything:
            await self._look_at_all()
            self._looked_at = time.monotonic()
        else:
            self._merge(await self._inspect(list(hinted)))
        self._note_look("")
        self._on_picture(self._pictures, self._listed)

    # Inside.

    async def _until_due(self) -> None:
        resync_s = min(self._resync_s, BLIND_RESYNC_S) if self._events_fault else self._resync_s
        due_s = (self._looked_at or 0.0) + resync_s - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, due_s)):
                await self._hint.wait()
        except TimeoutError:
            self._all = True

    async def _inspect(self, ids: list[str]) -> dict[str, Any]:
        """Return what the engine shows of each; not more than INSPECTIONS are asked for at once.

        Raises:
            PeerError: one could not be asked for.
        """
        left = list(reversed(ids))
        shown: dict[str, Any] = {}

        async def work() -> None:
            while left:
                one = left.pop()
                shown[one] = await self._engine.inspect(one)

        workers = [asyncio.ensure_future(work()) for _ in range(min(INSPECTIONS, len(ids)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return shown

    async def _look_at_all(self) -> None:
        listed = read_list(await self._engine.list())
        shown = await self._inspect([one for one in listed if one not in self._plain])
        # Nothing is taken in of those of whom something was heard meanwhile: it may be older than that. They are next.
        heard = {one: self._listed[one] for one in self._hints if one in self._listed}
        self._listed = {one: found for one, found in listed.items() if one not in self._hints} | heard
        self._plain &= listed.keys()
        for one in self._pictures.keys() - self._listed.keys():
            del self._pictures[one]
        self._merge(shown)

    def _merge(self, shown: Mapping[str, Any]) -> None:
        for one, answer in shown.items():
            if one in self._hints:
                continue  # see above
            found, container = read_listed(answer), read_container(answer, self._only)
            if found is None:
                self._listed.pop(one, None)
            else:
                self._listed[one] = found
            if container is None:
                self._pictures.pop(one, None)
            elif any(word.startswith((PREFIX, REGISTRATOR)) for word in (*container.labels, *container.environ)):
                self._pictures[one] = container
            else:
                self._plain.add(one)

    def _opened(self) -> None:
        self.streams_opened += 1
        self._note_events("")
        self._all = True  # what happened while no events came
        self._hint.set()

    def _take(self, event: dict[str, Any]) -> None:
        self.events_seen += 1
        actor = event.get("Actor")
        attributes = actor.get("Attributes") if isinstance(actor, dict) else None
        action, kind = event.get("Action"), event.get("Type")
        container_id = _container_id(kind, actor, attributes)
        if not container_id or not isinstance(action, str):
            self._all = True  # it cannot be read: something happened
        else:
            self._hear(container_id, action, attributes if isinstance(attributes, dict) else {})
        self._hint.set()

    def _hear(self, container_id: str, action: str, attributes: dict[str, Any]) -> None:
        self._hints.add(container_id)
        if len(self._hints) > MAX_HINTS:
            self._hints.clear()
            self._all = True
        if action in ("die", "destroy"):
            self._pictures.pop(container_id, None)
            self._listed.pop(container_id, None)
            self._on_dead(container_id)
        elif action == "kill" and str(attributes.get("signal")).isdecimal():
            self._on_signal(container_id, int(attributes["signal"]))

    def _note_events(self, fault: str) -> None:
        if fault and fault != self._events_fault:
            _log.warning("events_lost", f"no events from the engine: {fault}; trying again")
            self._all = True  # and from now on more often
            self._hint.set()
        elif self._events_fault and not fault:
            _log.info("events_back", "the engine's events come again")
        self._events_fault = fault

    def _note_look(self, fault: str) -> None:
        if fault and fault != self._look_fault:
            _log.warning("engine_lost", f"{fault}; what is known is kept and checked, and the engine asked again")
            self._lost = True
        elif self._lost and not fault:
            _log.info("engine_back", "the engine answers again")
            self._lost = False
        self._look_fault = fault


def _container_id(kind: Any, actor: Any, attributes: Any) -> str:
    """Return whom an event is about; empty if that cannot be told."""
    if kind == "network" and isinstance(attributes, dict):
        found = attributes.get("container")
    else:
        found = actor.get("ID") if isinstance(actor, dict) else None
    return found if isinstance(found, str) else ""
