"""Tells dependents of changes: one patch at a time to each, retried until acknowledged, newest state only.

A slow or dead dependent has its own task and its own back-off, so it delays nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.logs import EventLog
from pillion_common.models import Patch, encode
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_registry.catalog import Catalog, Record
from pillion_registry.channels import Channels
from pillion_registry.dependent import Delivery, Dependent
from pillion_registry.provider_set import ProviderSet
from pillion_registry.store.base import Known

_log = EventLog("notifier")

BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 10.0

OnAcknowledged = Callable[[Dependent, Known], Awaitable[None]]


class Notifier:
    """Owns the dependents and their deliveries.

    Args:
        on_acknowledged: awaited after a classic dependent acknowledged, so that it can be kept.
        token: sent along to those who registered with it and to nobody else: whoever could register without it must not learn it.
    """

    def __init__(
        self,
        catalog: Catalog,
        channels: Channels,
        tasks: Supervisor,
        on_acknowledged: OnAcknowledged,
        *,
        epoch: str,
        timeout_s: float,
        token: Token | None,
    ) -> None:
        self._catalog = catalog
        self._channels = channels
        self._tasks = tasks
        self._on_acknowledged = on_acknowledged
        self._epoch = epoch
        self._timeout_s = timeout_s
        self._plain = ("Content-Type: application/json",)
        self._trusting = (*self._plain, token.header) if token else self._plain
        self._dependents: dict[str, Dependent] = {}
        self._records: dict[str, Record] = {}
        self._kicks: dict[str, asyncio.Event] = {}
        self._encoded: dict[tuple[object, ...], tuple[Patch, bytes]] = {}
        self._encoded_at = -1

    def watch(self, record: Record, known: Known | None = None) -> None:
        """Tell an instance of its providers from now on.

        Args:
            record: its registration.
            known: what it knew when the registry stopped; None for an instance that has just registered.
        """
        given = record.registration
        if not given.requires:
            self.forget(record.instance_id)
            return
        dependent = Dependent(record.instance_id, record.generation, given.requires, classic=(given.protocol or 1) < 2)
        dependent.start_afresh()
        if known is not None and dependent.classic:
            dependent.acknowledged.update({name: ProviderSet({e.url: e for e in known.get(name, ())}) for name in given.requires})
        self._dependents[record.instance_id] = dependent
        self._records[record.instance_id] = record
        self._wake(record.instance_id)

    def forget(self, instance_id: str) -> None:
        """Tell an instance nothing more."""
        self._dependents.pop(instance_id, None)
        self._records.pop(instance_id, None)
        if kick := self._kicks.get(instance_id):
            kick.set()

    def changed(self, names: Iterable[str]) -> None:
        """Tell all who require one of these services."""
        for instance_id in dict.fromkeys(instance_id for name in names for instance_id in self._catalog.dependents_of(name)):
            self._wake(instance_id, only_idle=True)

    def kick(self, instance_id: str) -> None:
        """Try again now: the dependent has just shown that it lives."""
        self._wake(instance_id)

    def _wake(self, instance_id: str, only_idle: bool = False) -> None:
        if instance_id not in self._dependents:
            return
        kick = self._kicks.get(instance_id)
        if kick is None:
            self._kicks[instance_id] = asyncio.Event()
            self._tasks.spawn(f"patches {instance_id}", self._deliver(instance_id))
        elif not only_idle:
            kick.set()

    async def _deliver(self, instance_id: str) -> None:
        """Bring one dependent to the truth, then end."""
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        kick = self._kicks[instance_id]
        try:
            while (dependent := self._dependents.get(instance_id)) and (delivery := self._plan(dependent)):
                kick.clear()
                if await self._send(dependent, self._records[instance_id], delivery):
                    backoff.reset()
                    continue
                try:
                    async with asyncio.timeout(backoff.next_delay()):
                        await kick.wait()
                except TimeoutError:
                    pass
        finally:
            del self._kicks[instance_id]

    def _plan(self, dependent: Dependent) -> Delivery | None:
        return dependent.plan(self._catalog.providers, self._catalog.revision, self._epoch)

    async def _send(self, dependent: Dependent, record: Record, delivery: Delivery) -> bool:
        url = record.registration.service_update_url or ""
        # A classic dependent cannot tell a repeat from news, and may take its time: a connection for this one patch leaves no doubt whether
        # it was reached, and its heartbeats do not wait behind it.
        channel, target = self._channels.open(record, url) if dependent.classic else self._channels.get(record, url)
        headers = self._trusting if record.trusted else self._plain
        try:
            answer = await channel.request(
                "POST", target, body=self._encode(dependent, delivery), headers=headers, timeout_s=self._timeout_s
            )
        except PeerError as exc:
            _log.debug("patch_failed", f"patch to {dependent.instance_id} failed: {exc.message}", instance=dependent.instance_id)
            return False
        finally:
            if dependent.classic:
                channel.close()
        if self._dependents.get(dependent.instance_id) is not dependent:
            return True  # registered anew or gone meanwhile: what this patch did is of no more concern
        if answer.status == 409 and not dependent.classic and not delivery.patch.full:
            _log.debug("patch_gap", f"{dependent.instance_id} saw a gap; it is sent the whole truth", instance=dependent.instance_id)
            dependent.start_afresh()
            return True
        if answer.status != 200:
            _log.debug("patch_refused", f"patch to {dependent.instance_id} was answered {answer.status}", instance=dependent.instance_id)
            return False
        dependent.acknowledge(delivery)
        if dependent.classic:
            known = {name: tuple(told.entries.values()) for name, told in dependent.acknowledged.items() if told is not None}
            await self._on_acknowledged(dependent, known)
        return True

    def _encode(self, dependent: Dependent, delivery: Delivery) -> bytes:
        """Encode a patch once for all who need the same."""
        if self._encoded_at != self._catalog.revision:
            self._encoded.clear()
            self._encoded_at = self._catalog.revision
        patch = delivery.patch
        key = (patch.full, patch.previous, patch.services, tuple(map(id, patch.added or ())), tuple(map(id, patch.removed or ())))
        if key not in self._encoded:
            self._encoded[key] = patch, encode(patch)  # the patch keeps its entries alive, so that none of these ids is given again
        return self._encoded[key][1]
