"""The journal's answers: `GET /events`, as a list or as a stream, and `GET /services/{name}?at=TIME`."""

from __future__ import annotations

import time

from pillion_common.clock import parse_rfc3339, rfc3339
from pillion_common.errors import InvalidInput, NotFound, PillionError
from pillion_common.models import encode
from pillion_registry.events import Event
from pillion_registry.handlers.lists import ListHandler
from pillion_registry.handlers.streams import KEEP_ALIVE_S, StreamHandler, event, wants_stream
from pillion_registry.history_file import Wanted
from pillion_registry.reads import Filters
from pillion_registry.views import view_of_event
from pillion_registry.wire import EventList, PastInstance, PastList

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_NUMBER = 2**63 - 1
LATEST_S = 4e9  # the year 2096: what is beyond is no time but a slip


class Gone(PillionError):
    """What was asked for is not known any more."""

    status = 410
    code = "gone"


class EventsHandler(StreamHandler):
    """`GET /events`."""

    async def get(self) -> None:
        """List events, oldest first; or stream them, those after `since` or Last-Event-ID first."""
        limit = self.number("limit", 1, MAX_LIMIT)
        wanted = self._since(self.text("since"))._replace(name=self.text("name") or None, limit=int(limit or DEFAULT_LIMIT))
        if wants_stream(self.request.headers):
            await self._stream(wanted)
            return
        history = self.registry.history
        found = await history.select(wanted)
        known_from = await history.known_from()
        after = found[-1].number if found else wanted.since_number or self.registry.events.number
        self.set_header("Cache-Control", "no-store")
        self.write_json(encode(EventList(rfc3339(known_from), after, tuple(map(view_of_event, found)))))

    async def _stream(self, wanted: Wanted) -> None:
        seen = self.last_seen()
        if seen is not None and seen <= self.registry.events.number:
            wanted = wanted._replace(since_number=seen, since_s=None)
        after = self.registry.events.number
        found = await self.registry.history.select(wanted)
        await self.begin()
        if self.request.method == "HEAD":
            return
        while self.open:
            if found and not await self.send(self._told(found)):
                return
            after = found[-1].number if found else after
            newest = self.registry.events.number
            found = await self._after(after, wanted)
            if not found:
                after = newest  # none of what happened meanwhile is wanted
                quiet = newest == self.registry.events.number and not await self.registry.events.bell.wait(KEEP_ALIVE_S, self.reader)
                if quiet and not await self.send(b": still here\n\n"):
                    return

    async def _after(self, number: int, wanted: Wanted) -> list[Event]:
        """Return the next events after one; most are in memory still."""
        recent = self.registry.events.events_since(number)
        if recent is None:
            return await self.registry.history.select(Wanted(since_number=number, name=wanted.name, limit=DEFAULT_LIMIT))
        return [one for one in recent if wanted.name in (None, one.service)][:MAX_LIMIT]

    def _told(self, events: list[Event]) -> bytes:
        return b"".join([event("event", one.number, encode(view_of_event(one))) for one in events])

    def _since(self, text: str | None) -> Wanted:
        if not text:
            return Wanted()
        if text.isascii() and text.isdigit() and len(text) < 20:
            return Wanted(since_number=min(int(text), MAX_NUMBER))
        return Wanted(since_s=moment(text, "since"))


class ServiceHandler(ListHandler):
    """`GET /services/{name}`."""

    async def get(self, name: str) -> None:
        """List the instances of one service, as they are or as they were."""
        at = self.text("at")
        if at is None:
            await self.answer_list(Filters(None, self.text("state"), self.text("tag"), self.text("zone")), name)
        else:
            await self._answer_past(name, moment(at, "at"))

    def compute_etag(self) -> str | None:
        """Return nothing for the past: it is another answer."""
        return None if self.text("at") is not None else super().compute_etag()

    async def _answer_past(self, name: str, at_s: float) -> None:
        """Tell who offered a service at a moment.

        Raises:
            Gone: before the journal begins. NotFound: nobody of that name was there, then or now. InvalidInput: in the future.
        """
        if at_s > time.time() + 1:
            raise InvalidInput(f"at {rfc3339(at_s)} is in the future", code="invalid_query", field="at")
        history = self.registry.history
        known_from = rfc3339(await history.known_from())
        there = await history.at(name, at_s)
        if there is None:
            raise Gone(f"the journal begins at {known_from}: who offered {name} at {rfc3339(at_s)} is not known", field="at")
        if not there and not self.registry.catalog.knows(name) and not await history.select(Wanted(name=name, limit=1)):
            raise NotFound(f"the journal, which begins at {known_from}, has nothing of a service named {name!r}", code="unknown_service")
        instances = tuple(
            PastInstance(one.instance_id, one.url, one.state or "", rfc3339(one.time_s), one.reason)
            for one in sorted(there, key=lambda one: one.url)
        )
        providers = tuple(one.service_url for one in instances if one.state == "up")
        self.write_json(encode(PastList(name, rfc3339(at_s), known_from, providers, instances)))


def moment(text: str, field: str) -> float:
    """Return a time as seconds since 1970; it is given as such, or as RFC 3339.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        number = float(text) if text.replace(".", "", 1).isdigit() else parse_rfc3339(text.replace(" ", "+"))
        if not 0 <= number <= LATEST_S:
            raise ValueError("out of range")
        return number
    except (ValueError, OverflowError) as exc:
        message = f"{field} {text[:40]!r} is not a time; write 2026-01-31T14:03:00Z, or seconds since 1970"
        raise InvalidInput(message, code="invalid_query", field=field) from exc
