"""Tells the log service what happens here: who registered, came up, went down and why, drained, left. One entry each, of service registry:

`{"Time":"2026-01-31T12:00:00.123Z","Service":"registry","Level":"warning","Message":"GradingService at http://10.0.0.7:6000 is down:
connection refused","Instance":"grading-1","Source":"registry/5f1c…","Seq":7,"Subject":"GradingService","Event":"down",
"Reason":"connection refused","URL":"http://10.0.0.7:6000"}`.

A listener of the registry's Events, to which an event costs one append. All else is a task of its own: it sends batches to one provider at
a time until each is acknowledged. What finds no room is dropped, the oldest first, and a gap entry says how many. While no log service is
up nothing is sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from itertools import count, islice
from typing import Any

from pillion_common.backoff import Backoff
from pillion_common.clock import rfc3339
from pillion_common.errors import NotFound, PeerError
from pillion_common.http.client import Channel
from pillion_common.logs import EventLog
from pillion_common.models import State
from pillion_common.names import Url, parse_url
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_registry.catalog import Catalog, Instance, Record
from pillion_registry.events import Event, Events

SERVICE = "registry"
MAX_WAITING = 10_000
BATCH_EVENTS = 500
TIMEOUT_S = 5.0
LINGER_S = 0.1  # lets the events of one moment go together
BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 10.0

_WARNINGS = ("down", "suspect", "lost", "held", "guard on")
_SAID = {"held": "is held down", "guard on": "is guarded", "guard off": "is guarded no more"}
_SAID |= {"left": "has left", "replaced": "was replaced", "shown": "is shown again", "undrained": "is offered again"}

_Numbered = tuple[int, Event]

_log = EventLog("timeline")


class Timeline:
    """Holds events until a log service has them.

    Args:
        open_channel: opens a channel to a provider's URL, of the caller's own.
        service: the log service's name; empty: nobody is told.
        token: sent along to providers that registered with it, and to nobody else.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        catalog: Catalog,
        open_channel: Callable[[Record, Url], Channel],
        service: str,
        token: Token | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._open_channel = open_channel
        self._service = service
        self._token = token
        self._clock = clock
        self._source = f"{SERVICE}/{secrets.token_hex(8)}"  # tells this run from every other one: its events are numbered from 1
        self._token = token
        self._seqs = count(1)
        self._waiting: deque[_Numbered] = deque()
        self._dropped: list[_Numbered] = []  # the first and the last of those that found no room
        self._dropped_count = 0
        self._something = asyncio.Event()
        self._batch: list[bytes] = []  # on its way, the same until it is acknowledged
        self._classic: set[str] = set()  # URLs of providers that know no batches
        self._channel: tuple[Record, Channel] | None = None
        self._turn = 0
        self._failing = False

    # From the registry.

    def begin(self, events: Events, tasks: Supervisor, wants: Callable[[Event], bool]) -> None:
        """Listen from now on for the events that are wanted, and send."""
        events.listen(lambda event: self.note(event) if wants(event) else None)
        tasks.keep("timeline", self.run())

    def note(self, event: Event) -> None:
        """Take an event."""
        if self._service:
            self._waiting.append((next(self._seqs), event))
            if len(self._waiting) > MAX_WAITING:
                self._drop(self._waiting.popleft())
            self._something.set()

    def tell(self, kind: str, instance: Instance, reason: str) -> None:
        """Take what changed nobody's state, and is no event to anybody else."""
        record = instance.record
        revision = self._catalog.revision
        self.note(Event(0, self._clock(), revision, kind, record.name, record.instance_id, record.url, reason=reason))

    def missed(self, instance: Instance, reason: str) -> None:
        """Take it that an instance did not answer a check: the first time it is suspect, and down when it goes on."""
        if instance.misses == 1 and instance.state is State.UP:
            self.tell("suspect", instance, reason)

    async def run(self) -> None:
        """Send what comes, for ever. What is not sent when this ends is in the registry's own log and journal alone."""
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        try:
            while True:
                await self._something.wait()
                await asyncio.sleep(LINGER_S)
                self._something.clear()
                while self._fill() and (record := self._choose()) is not None:  # whoever comes up is an event
                    await self._try(record, backoff)
        finally:
            self._hang_up()

    # Inside.

    def _drop(self, event: _Numbered) -> None:
        if not self._dropped_count:
            _log.warning("events_dropped", f"{MAX_WAITING} events wait for a log service; from now on the oldest are dropped, and counted")
        self._dropped_count += 1
        self._dropped = [self._dropped[0] if self._dropped else event, event]

    def _fill(self) -> bool:
        """Make the next batch, if there is none on its way; return whether there is one."""
        if not self._batch:
            if self._dropped:
                self._batch.append(_encode(self._gap()))
                self._dropped, self._dropped_count = [], 0
            taken = list(islice(self._waiting, BATCH_EVENTS))
            for _ in taken:
                self._waiting.popleft()
            self._batch += [_encode(self._entry(seq, event)) for seq, event in taken]
        return bool(self._batch)

    def _choose(self) -> Record | None:
        """Return the provider to send to: the same one as long as it answers."""
        records = self._records()
        self._classic &= {record.url for record in records}
        able = [record for record in records if record.url not in self._classic]
        return able[self._turn % len(able)] if able else None

    def _records(self) -> list[Record]:
        """Return the log service's providers that are up."""
        try:
            return [instance.record for instance in self._catalog.of_name(self._service) if instance.state is State.UP]
        except NotFound:
            return []

    async def _try(self, record: Record, backoff: Backoff) -> None:
        """Send the batch; after a failure wait a while, and let it be the next one's turn."""
        fault = await self._send(record)
        self._tell_turn(fault)
        if fault:
            self._turn += 1
            await asyncio.sleep(backoff.next_delay())
        else:
            backoff.reset()
            self._batch = []

    async def _send(self, record: Record) -> str:
        """Send the batch; return what went wrong, or nothing."""
        headers = ["Content-Type: application/x-ndjson"]
        if self._token is not None and record.trusted:
            headers.append(self._token.header)
        try:
            url = parse_url(record.url, "ServiceURL")
            channel = self._channel_to(record, url)
            target = url.target.rstrip("/") + "/logs"
            answer = await channel.request("POST", target, body=b"".join(self._batch), headers=tuple(headers), timeout_s=TIMEOUT_S)
        except PeerError as exc:
            return exc.message
        if answer.status in (404, 405):
            self._classic.add(record.url)
            return f"{record.url} takes no batches: a classic log service"
        return "" if answer.status == 200 else f"{record.url} answered {answer.status}: {answer.body.decode('utf-8', 'replace')[:200]}"

    def _channel_to(self, record: Record, url: Url) -> Channel:
        if self._channel is None or self._channel[0] is not record:
            self._hang_up()
            self._channel = record, self._open_channel(record, url)
        return self._channel[1]

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel[1].close()
            self._channel = None

    def _tell_turn(self, fault: str) -> None:
        """Log when sending begins to fail, and when it goes on again."""
        if fault and not self._failing:
            _log.warning("events_wait", f"events wait for the log service: {fault}")
        elif self._failing and not fault:
            _log.info("events_sent", "events go to the log service again")
        self._failing = bool(fault)

    def _entry(self, seq: int, event: Event) -> dict[str, Any]:
        at = f" at {event.url}" if event.url else ""
        about = f"{event.service}{at} {_SAID.get(event.kind, f'is {event.kind}')}: {event.reason or ''}".removesuffix(": ")
        entry = {
            "Time": rfc3339(event.time_s),
            "Service": SERVICE,
            "Level": "warning" if event.kind in _WARNINGS else "info",
            "Message": about if event.service else event.reason or event.kind,
            "Instance": event.instance_id,
            "Source": self._source,
            "Seq": seq,
            "Subject": event.service,
            "Event": event.kind,
            "Reason": event.reason,
            "URL": event.url,
            "By": event.by,
        }
        return {name: value for name, value in entry.items() if value}

    def _gap(self) -> dict[str, Any]:
        (_, first), (last_seq, last) = self._dropped
        return {
            "Time": rfc3339(last.time_s),
            "Service": SERVICE,
            "Level": "warning",
            "Message": f"{self._dropped_count} events of the registry are missing: no log service took them, and it holds {MAX_WAITING}",
            "Source": self._source,
            "Seq": last_seq,
            "Gap": self._dropped_count,
            "From": rfc3339(first.time_s),
            "To": rfc3339(last.time_s),
        }


def _encode(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
