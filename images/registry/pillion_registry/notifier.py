"""Tells dependents of changes: one patch at a time to each, retried until acknowledged, newest state only.

A slow or dead dependent has its own connection and its own back-off, so it delays nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_common.http.client import Channel, encode_body
from pillion_common.logs import EventLog
from pillion_common.models import ProviderEntry, State, encode
from pillion_common.trust import Token
from pillion_registry.catalog import Catalog, Record
from pillion_registry.channels import Channels
from pillion_registry.dependent import Delivery, Dependent, Knowledge, Plan, fresh, plan, restore, settle
from pillion_registry.outbox import Outbox
from pillion_registry.provider_set import ProviderSet
from pillion_registry.store.base import Known
from pillion_registry.withdrawals import Withdrawals

_log = EventLog("notifier")

BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 10.0
FINISH_LOOK_S = 0.01
HELD_BACK_S = 0.2  # until it is asked again whether anybody may be told
SLICE = 1024

# Called after a classic dependent acknowledged, so that it can be kept; calls back when that is done.
OnAcknowledged = Callable[[Dependent, Known, Callable[[], None]], None]
# Called before one is sent a patch, where another registry may have to go on from here; calls back with whether it may be sent.
OnTelling = Callable[[Dependent, Delivery, Callable[[bool], None]], None]


class Standing(NamedTuple):
    """How things stand with one dependent, for those who ask why. Times are in seconds since 1970."""

    known: Knowledge
    sending_since_s: float | None  # a patch is on its way
    failing_since_s: float | None  # patches fail: how often, with which status (0: no answer), and why
    tries: int
    status: int
    fault: str
    told_s: float | None  # when it last acknowledged one


class Notifier:
    """Owns the dependents and what is on its way to them.

    Args:
        on_acknowledged, on_telling: see OnAcknowledged, OnTelling.
        may_tell: whether anybody may be told now; asked before each patch.
        token: sent along to those who registered with it and to nobody else: whoever could register without it must not learn it.
    """

    def __init__(
        self,
        catalog: Catalog,
        channels: Channels,
        on_acknowledged: OnAcknowledged,
        *,
        epoch: str,
        timeout_s: float,
        token: Token | None,
        clock: Callable[[], float] = time.time,
        on_telling: OnTelling | None = None,
        may_tell: Callable[[], bool] = lambda: True,
    ) -> None:
        self._on_telling = on_telling
        self._may_tell = may_tell
        self._catalog = catalog
        self._channels = channels
        self._on_acknowledged = on_acknowledged
        self._epoch = epoch
        self._timeout_s = timeout_s
        self._plain = ("Content-Type: application/json",)
        self._trusting = (*self._plain, token.header) if token else self._plain
        self._outboxes: dict[str, Outbox] = {}
        self._queue: deque[Outbox] = deque()
        self._plans: dict[tuple[int, bool], tuple[Knowledge, Plan, bytes]] = {}
        self._results: dict[tuple[object, ...], Knowledge] = {}
        self._planned_at = -1
        self._withdrawals = Withdrawals()
        self._finishing = False
        self._clock = clock
        self.sent = self.acknowledged = self.failed = 0  # patches

    def watch(self, record: Record, known: Known | None = None, doubts: tuple[ProviderEntry, ...] = ()) -> None:
        """Tell an instance of its providers from now on.

        Args:
            record: its registration.
            known: what it knew when the registry stopped; None for an instance that has just registered.
            doubts: entries of which nobody knows whether it, a classic one, has them: they are taken from it first.
        """
        self.forget(record.instance_id)
        given = record.registration
        if not given.requires:
            return
        classic = (given.protocol or 1) < 2
        dependent = Dependent(record.instance_id, record.generation, given.requires, classic, fresh(given.requires, classic))
        if known is not None and classic:
            dependent.known = Knowledge({name: ProviderSet({e.url: e for e in known.get(name, ())}) for name in given.requires}, None)
            dependent.doubts = doubts
        headers = self._trusting if record.trusted else self._plain
        outbox = self._outboxes[record.instance_id] = Outbox(dependent, record, headers)
        self._enqueue(outbox)

    def forget(self, instance_id: str) -> None:
        """Tell an instance no more."""
        outbox = self._outboxes.pop(instance_id, None)
        if outbox is not None:
            outbox.calm()
            self._withdrawals.release(instance_id)

    def retire(self, instance_id: str, then: Callable[[], None]) -> None:
        """Tell an instance no more, for another registry goes on; calls `then` when what is under way to a classic one has ended.

        Until then that registry waits: it would have to take what is under way from the dependent again, for it may have arrived.
        """
        outbox = self._outboxes.get(instance_id)
        if outbox is not None and outbox.sending and outbox.dependent.classic:
            outbox.calm()
            outbox.retired = then
        else:
            self.forget(instance_id)
            then()

    def release(self, instance_id: str) -> None:
        """Wait no longer for a dependent's word: it is down."""
        self._withdrawals.release(instance_id)

    def standing(self, instance_id: str) -> Standing | None:
        """Return how things stand with a dependent; None if it requires nothing."""
        outbox = self._outboxes.get(instance_id)
        if outbox is None:
            return None
        sending = outbox.sent_s if outbox.sending or outbox.queued else None
        return Standing(outbox.dependent.known, sending, outbox.failing_s, outbox.tries, outbox.status, outbox.fault, outbox.told_s)

    def failing(self) -> int:
        """Return how many dependents there are whose patches fail."""
        return sum(outbox.failing_s is not None for outbox in self._outboxes.values())

    async def until_withdrawn(self, name: str, url: str, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        """Wait until no dependent that is up knows a provider any more. It must have been withdrawn already.

        Returns:
            How many dependents acknowledged it, and the ids of those that did not within timeout_s.
        """
        waiting = []
        for instance_id in self._catalog.dependents_of(name):
            outbox, instance = self._outboxes.get(instance_id), self._catalog.get(instance_id)
            alive = instance is not None and instance.state in (State.UP, State.DRAINING)
            # What is on its way to it now may still name the provider.
            if outbox is not None and alive and (outbox.sending or outbox.dependent.may_know(name, url)):
                waiting.append(instance_id)
        return await self._withdrawals.wait(name, url, waiting, timeout_s)

    def changed(self, names: Iterable[str]) -> None:
        """Tell all who require one of these services."""
        for name in names:
            for instance_id in self._catalog.dependents_of(name):
                outbox = self._outboxes.get(instance_id)
                # One that is being told, or whose next try is to come, will hear of it then.
                if outbox is not None and not outbox.queued and not outbox.sending and outbox.retry is None:
                    self._enqueue(outbox)

    def kick(self, instance_id: str) -> None:
        """Try again now: the dependent has just shown that it lives."""
        outbox = self._outboxes.get(instance_id)
        if outbox is not None and outbox.retry is not None:
            outbox.calm()
            self._enqueue(outbox)

    async def finish(self, timeout_s: float) -> None:
        """Begin no patch any more; return when what is under way to classic dependents was answered and kept, or the time is over.

        Whoever goes on from here then need not send what may arrive before it.
        """
        self._finishing = True
        ends = time.monotonic() + timeout_s
        while any(one.sending and one.dependent.classic for one in self._outboxes.values()) and time.monotonic() < ends:
            await asyncio.sleep(FINISH_LOOK_S)

    def _enqueue(self, outbox: Outbox) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._tell_slice)
        outbox.queued = True
        self._queue.append(outbox)

    def _tell_slice(self) -> None:
        some = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
        if self._queue:
            asyncio.get_running_loop().call_soon(self._tell_slice)
        for outbox in some:
            outbox.queued = False
            if self._is_current(outbox):
                try:
                    self._tell(outbox)
                except Exception as exc:  # a fault of ours about one dependent must not keep the news from the others
                    _log.fault("patch_not_made", f"no patch for {outbox.dependent.instance_id}: {exc}", exc)
                    self._try_later(outbox, str(exc))

    def _is_current(self, outbox: Outbox) -> bool:
        return self._outboxes.get(outbox.dependent.instance_id) is outbox

    def _tell(self, outbox: Outbox) -> None:
        """Send the patch that is due to one dependent, if one is."""
        if self._finishing or self._has_retired(outbox):
            return
        dependent = outbox.dependent
        _, planned, body = self._plan(dependent)
        delivery = planned.delivery
        if delivery is None:
            dependent.known = planned.known
            if outbox.unkept:
                self._keep_acknowledged(outbox)
            return
        outbox.sending = True
        outbox.sent_s = self._clock()
        if dependent.classic and self._on_telling is not None:
            self._on_telling(dependent, delivery, partial(self._send_if, outbox, delivery, body))
        else:
            self._send(outbox, delivery, body)

    def _has_retired(self, outbox: Outbox) -> bool:
        """Return whether another registry goes on from here; then nothing is under way any more, and this is the end."""
        if outbox.retired is None:
            return False
        self.forget(outbox.dependent.instance_id)
        outbox.retired()
        return True

    def _send_if(self, outbox: Outbox, delivery: Delivery, body: bytes, may: bool) -> None:
        if not self._is_current(outbox):
            return
        if may:
            outbox.unkept = False
            self._send(outbox, delivery, body)
        else:
            outbox.sending = False
            self._try_later(outbox, "what it knows could not be kept")

    def _send(self, outbox: Outbox, delivery: Delivery, body: bytes) -> None:
        if not self._may_tell():
            outbox.sending = False
            outbox.retry = asyncio.get_running_loop().call_later(HELD_BACK_S, self.kick, outbox.dependent.instance_id)
            return
        dependent = outbox.dependent
        self.sent += 1
        channel = outbox.channel
        if dependent.classic:
            # It cannot tell a repeat from news, and may take its time: a connection for this one patch leaves no doubt whether it was
            # reached, and its heartbeats do not wait behind it.
            channel = self._channels.open(outbox.record, outbox.url)
        elif channel is None:
            channel = outbox.channel = self._channels.get(outbox.record, outbox.url)
        channel.send(outbox.head + body, partial(self._answered, outbox, delivery, channel), self._timeout_s)

    def _plan(self, dependent: Dependent) -> tuple[Knowledge, Plan, bytes]:
        """Return what is due to a dependent, and its bytes; planned and encoded once for all who know the same."""
        if self._planned_at != self._catalog.revision:
            self._plans.clear()
            self._results.clear()
            self._planned_at = self._catalog.revision
        known = dependent.known
        if dependent.doubts:
            planned = settle(known, dependent.doubts, self._catalog.revision, self._epoch)
            return known, planned, encode_body(encode(planned.delivery.patch)) if planned.delivery else b""
        key = (id(known), dependent.classic)
        found = self._plans.get(key)
        if found is None:
            planned = plan(known, dependent.classic, self._catalog.providers, self._catalog.revision, self._epoch)
            body = b""
            if (delivery := planned.delivery) is not None:
                planned = planned._replace(delivery=delivery._replace(result=self._shared(delivery.result)))
                body = encode_body(encode(delivery.patch))
            found = self._plans[key] = known, planned, body  # what is known is kept alive, so that its id is not given again
        return found

    def _shared(self, result: Knowledge) -> Knowledge:
        """Return the one object for this knowledge: ways that began apart meet here."""
        return self._results.setdefault((result.revision, *result.sets, *map(id, result.sets.values())), result)

    def _answered(self, outbox: Outbox, delivery: Delivery, channel: Channel, outcome: Answer | PeerError) -> None:
        dependent = outbox.dependent
        if dependent.classic:
            channel.close()
        outbox.sending = False
        if not self._is_current(outbox):
            return  # registered anew or gone meanwhile: what this patch did is of no more concern
        if isinstance(outcome, PeerError):
            self._try_later(outbox, outcome.message)
        elif outcome.status == 409 and not dependent.classic and not delivery.patch.full:
            _log.debug("patch_gap", f"{dependent.instance_id} saw a gap; it is sent the whole truth", instance=dependent.instance_id)
            dependent.start_afresh()
            self._tell(outbox)
        elif outcome.status != 200:
            self._try_later(outbox, f"it was answered {outcome.status}", outcome.status)
        else:
            outbox.backoff = outbox.failing_s = None
            outbox.told_s = self._clock()
            self.acknowledged += 1
            doubts, dependent.doubts = dependent.doubts, ()
            dependent.known = delivery.result
            self._withdrawals.acknowledged(dependent)
            if not dependent.classic:
                self._tell(outbox)
            elif self._on_telling is None or self._finishing or outbox.retired is not None:
                self._keep_acknowledged(outbox)
            else:
                self._go_on(outbox, doubts)

    def _go_on(self, outbox: Outbox, doubts: tuple[ProviderEntry, ...]) -> None:
        """Tell a classic dependent what has come due by now; what it knows is kept together with that.

        Args:
            doubts: that were just taken from it. Those that are true are given back at once: what was kept before that holds for this too.
        """
        dependent = outbox.dependent
        back = restore(dependent.known, doubts, self._catalog.providers, self._catalog.revision, self._epoch)
        if back is not None:
            dependent.doubts = doubts  # until it is answered
            outbox.sending = True
            self._send(outbox, back, encode_body(encode(back.patch)))
        elif self._plan(dependent)[1].delivery is not None:
            outbox.unkept = True
            self._tell(outbox)
        else:
            self._keep_acknowledged(outbox)

    def _keep_acknowledged(self, outbox: Outbox) -> None:
        dependent = outbox.dependent

        def kept() -> None:
            outbox.sending = False
            if self._is_current(outbox):
                self._tell(outbox)

        outbox.unkept, outbox.sending = False, True  # the next patch must not be acknowledged, and kept, before this one
        known = {name: tuple(told.entries.values()) for name, told in dependent.known.sets.items() if told is not None}
        self._on_acknowledged(dependent, known, kept)

    def _try_later(self, outbox: Outbox, reason: str, status: int = 0) -> None:
        if self._has_retired(outbox):
            return
        if outbox.failing_s is None:
            outbox.failing_s, outbox.tries = outbox.sent_s, 0
        outbox.tries += 1
        outbox.fault, outbox.status = reason, status
        self.failed += 1
        instance_id = outbox.dependent.instance_id
        _log.debug("patch_failed", f"patch to {instance_id} failed: {reason}", instance=instance_id)
        outbox.backoff = outbox.backoff or Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        outbox.retry = asyncio.get_running_loop().call_later(outbox.backoff.next_delay(), self.kick, instance_id)
