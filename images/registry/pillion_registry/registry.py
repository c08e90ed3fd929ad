"""The registry's use cases: register, deregister, report, look. Ties catalogue, store, prober and notifier together.

Order of every registration: check -> decide -> store -> accept in memory -> answer; so an answer of 200 means stored, and nobody is ever
told of something that is not. Requests about the same instance or URL wait for each other; all others go side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from msgspec import UNSET

from pillion_common.clock import rfc3339
from pillion_common.errors import Conflict, InvalidInput, NotFound
from pillion_common.logs import EventLog
from pillion_common.models import (
    Drained,
    DrainRequest,
    InstanceView,
    Registered,
    Registration,
    State,
    StateReport,
    check_registration,
)
from pillion_common.names import derive_id, parse_url
from pillion_common.networks import TargetRule
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_registry import events
from pillion_registry.announcing import announce
from pillion_registry.catalog import Catalog, Decision, Instance, Record, Transition
from pillion_registry.channels import Channels
from pillion_registry.doubts import Doubts
from pillion_registry.events import Event, Events
from pillion_registry.forgetting import forget_old
from pillion_registry.health import Health
from pillion_registry.history import History
from pillion_registry.keeping import Keeping
from pillion_registry.lag import LagMeter
from pillion_registry.lanes import Lanes
from pillion_registry.notifier import Notifier, Standing
from pillion_registry.prober import Finding, Prober, Verdict, tidy
from pillion_registry.reach import Reach
from pillion_registry.reads import Reads
from pillion_registry.refusals import Refusals
from pillion_registry.settings import Settings
from pillion_registry.sharing import Sharing
from pillion_registry.store.base import Hand, Put, Remove, SetState, Store, Stored
from pillion_registry.targets import check_targets
from pillion_registry.timeline import Timeline
from pillion_registry.views import present, view

_log = EventLog("registry")

RESTART_SPREAD_S = 1.0
MAX_DRAIN_S = 300.0
MAX_HIDE_S = 3600.0
MAX_TOLERANCE_S = 0.5  # of our own lateness; no more than a quarter of the time an instance has to answer


class Registry:
    """All that the handlers may ask for."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        token: Token | None,
        tasks: Supervisor,
        clock: Callable[[], float] = time.time,
        catalog: Catalog | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._tasks, self._clock, self._token = tasks, clock, token
        self.sharing: Sharing | None = None  # among registries that share a catalogue
        self._catalog = Catalog(settings.max_instances) if catalog is None else catalog
        self.events = Events(clock)
        self.history = History(settings.journal_path(), settings.journal_size, settings.journal_age, self._snapshot, clock)
        self.reads = Reads(self._catalog, self.events)
        self.refusals = Refusals()
        self._doubts = Doubts(self._catalog)
        self.keeping = Keeping(store)
        self.streams: set[object] = set()  # that are open
        self._hidden: dict[str, asyncio.TimerHandle] = {}
        self._rule = TargetRule(settings.allowed_targets())
        self._channels = Channels(self._rule, lambda instance_id: self.prober.check_soon(instance_id))
        self.reach = Reach(self._catalog, self._channels, self._rule, token)
        self.lag = LagMeter(min(MAX_TOLERANCE_S, settings.heartbeat_timeout / 4))
        interval_s, timeout_s = settings.heartbeat_interval, settings.heartbeat_timeout
        self.prober = Prober(self._channels, self.lag, self._checked, interval_s=interval_s, timeout_s=timeout_s)
        self.health = Health(self._catalog, settings, self.events, self.prober.hasten, clock)
        self._timeline = Timeline(self._catalog, self._channels.open, settings.log_to, token, clock)
        self._lanes = Lanes()
        self._coming = 0  # new instances that are being stored
        self.epoch = ""

    # Life.

    async def start(self) -> None:
        """Load the store and begin to check and to tell.

        Raises:
            PillionError: the store cannot be opened.
        """
        stored = await self._store.load()
        self.epoch = stored.epoch
        self.notifier = self._make_notifier()
        self._restore(stored)
        self.reads.begin(self.epoch)
        self.events.begin(await self.history.load(), stored.revision)
        self.events.listen(self.history.keep)
        self._timeline.begin(self.events, self._tasks, self._tells_of)
        self.history.begin()
        self.events.note(events.STARTED, f"the registry started with {len(stored.instances)} instances", stored.revision)
        if stored.instances:
            _log.info("restored", f"{len(stored.instances)} instances come back from the store", instances=len(stored.instances))
        self._tasks.keep("lag meter", self.lag.run())
        self._tasks.keep("prober", self.prober.run())
        self._tasks.keep("guard", self.health.run())
        forgetting = forget_old(self._catalog, self._settings.forget_after, self._clock, self._forget_absent)
        self._tasks.keep("forgetting", forgetting)

    async def stop(self) -> None:
        """Close the connections and the store. The tasks are their supervisor's to stop, before."""
        self._channels.close()
        for timer in self._hidden.values():
            timer.cancel()
        self.events.note(events.STOPPED, "the registry stopped", self._catalog.revision)
        await self.history.close()
        await self._store.close()

    @property
    def catalog(self) -> Catalog:
        """Return the catalogue, to look at."""
        return self._catalog

    def store_fault(self) -> str | None:
        """Return why the last write failed, for /readyz; None when it did not."""
        return self.keeping.fault

    async def standings(self, consumer: str) -> Callable[[str], Standing | None]:
        """Return how things stand with a consumer's instances, for those who ask why."""
        return self.notifier.standing

    def check_current(self) -> None:
        """Refuse a write while what is known here may be old; never, where the catalogue is our own."""

    # Use cases.

    async def register(self, registration: Registration, registrant: str, trusted: bool = False) -> Registered:
        """Take a registration in; returns once it is stored.

        Args:
            registration: as decoded; it is checked here.
            registrant: the IP address it came from.
            trusted: whether it carried the token.

        Raises:
            InvalidInput, Conflict, Unavailable, StorageFull.
        """
        check_registration(registration)
        check_targets(registration, registrant, self._rule)
        instance_id = registration.instance_id or derive_id(registration.service_name, registration.service_url)
        async with self._lanes.hold(instance_id, registration.service_url):
            now = self._clock()
            decision = self._catalog.decide(registration, registrant, now, trusted, self._coming)
            earlier = self._catalog.get(instance_id)
            hidden_until_s = earlier.hidden_until_s if earlier and decision.state is State.DRAINING else None
            # So that another restart retains it as well; and ends what an operator meant for some seconds.
            kept_state = State.UP if decision.retained or hidden_until_s else decision.state
            renewed = earlier is not None and earlier.record.registration == registration
            kind = events.RENEWED if renewed else events.REGISTERED
            put = Put(decision.record, kept_state, decision.since_s, decision.replaced, self._catalog.revision + 1, Hand(kind))
            self._coming += decision.new
            try:
                await self.keeping.commit(put)
            finally:
                self._coming -= decision.new
            self._accept(decision, kind)
        revision, now_there = self._catalog.revision, self._catalog.get(instance_id)
        warnings = self._doubts.about(registration) or UNSET
        state = now_there.state if now_there else decision.state
        return Registered(instance_id, revision, self.epoch, state, self._settings.heartbeat_interval, warnings)

    async def deregister(self, url: str, by: str | None = None) -> int:
        """Remove every registration at a URL.

        Args:
            by: who asked for it, for the journal.

        Returns:
            How many there were.

        Raises:
            InvalidInput: no URL. NotFound: none is registered there. Unavailable, StorageFull.
        """
        parse_url(url, "body")
        async with self._lanes.hold(url):
            found = self._catalog.at_url(url)
            if not found:
                raise NotFound(f"nothing is registered at {url}; GET /services lists what is", code="unknown_url")
            await self._drop(found, "deregistered", events.LEFT, by)
        return len(found)

    async def forget(self, instance_id: str, reason: str, by: str) -> InstanceView:
        """Remove one instance. One that lives registers again as soon as it notices.

        Raises:
            NotFound: no such instance. Unavailable, StorageFull.
        """
        instance = self._find(instance_id)
        async with self._lanes.hold(instance_id, instance.record.url):
            instance = self._find(instance_id)
            await self._drop([instance], tidy(reason) or "forgotten on request", events.FORGOTTEN, by)
        return view(instance)

    async def report(self, instance_id: str, report: StateReport) -> InstanceView:
        """Take an instance's word about itself: down is believed at once, up after a check of our own.

        Raises:
            NotFound: no such instance. InvalidInput: a state one cannot report. Unavailable, StorageFull: from replicas.
        """
        instance = self._find(instance_id)
        if report.state is State.DOWN:
            reason = tidy(report.reason or "") or "it reports itself down"
            await self._by_hand(instance_id, Hand(), lambda instance: self.health.failed(instance, reason))
        elif report.state is State.UP:
            self._check_soon(instance_id)
        else:
            raise InvalidInput("an instance reports itself up or down", code="invalid_state", field="State")
        return view(self._catalog.get(instance_id) or instance)

    async def drain(self, instance_id: str, request: DrainRequest, by: str | None = None) -> Drained:
        """Withdraw an instance that goes on working; returns once every dependent that is up has acknowledged it, or the time is over.

        Raises:
            NotFound: no such instance. InvalidInput: a time-out out of bounds.
        """
        timeout_s = self._settings.drain_timeout if request.timeout is None else request.timeout
        if not 0 <= timeout_s <= MAX_DRAIN_S:
            raise InvalidInput(f"Timeout {timeout_s:g} is not between 0 and {MAX_DRAIN_S:g} seconds", code="out_of_range", field="Timeout")
        instance = self._find(instance_id)
        reason = tidy(request.reason or "") or "drained on request"
        await self._by_hand(instance_id, Hand(by=by), lambda instance: self._catalog.drain(instance, reason, self._clock()))
        acknowledged, waiting = await self._until_withdrawn(instance.name, instance.record.url, timeout_s)
        if waiting:
            what = f"{len(waiting)} dependents have not acknowledged within {timeout_s:g} s that {instance_id} drains"
            _log.warning("drain_unacknowledged", f"{what}, among them {waiting[0]}", instance=instance_id)
        self._timeline.tell("drained", instance, what if waiting else "no dependent knows it any more")
        return Drained(instance_id, (self._catalog.get(instance_id) or instance).state, acknowledged, waiting)

    async def undrain(self, instance_id: str, by: str | None = None) -> InstanceView:
        """Let a drained instance come back: offered again once a check has passed.

        Raises:
            NotFound: no such instance.
        """
        instance = self._find(instance_id)
        await self._by_hand(instance_id, Hand(events.UNDRAINED, by), lambda instance: self._catalog.undrain(instance, self._clock()))
        self.prober.check_soon(instance_id)
        return view(self._catalog.get(instance_id) or instance)

    async def hide(self, instance_id: str, seconds: float, reason: str, by: str) -> InstanceView:
        """Withdraw an instance for some seconds, or until it is undrained or the registry restarts: to see how its dependents bear it.

        Raises:
            NotFound: no such instance. InvalidInput: the time is out of bounds. Conflict: it is drained.
        """
        if not 0 < seconds <= MAX_HIDE_S:
            raise InvalidInput(f"Seconds {seconds:g} is not more than 0 and at most {MAX_HIDE_S:g}", code="out_of_range", field="Seconds")
        instance = self._find(instance_id)
        until_s = self._clock() + seconds
        reason = f"hidden until {rfc3339(until_s)}" + (f": {tidy(reason)}" if reason else "")
        if instance.state is State.DRAINING and instance.hidden_until_s is None:
            raise Conflict(f"{instance_id} is drained: nobody is offered it; undrain it first", code="draining")
        await self._by_hand(
            instance_id, Hand(events.HIDDEN, by), lambda instance: self._catalog.hide(instance, until_s, reason, self._clock())
        )
        self._show_at(instance_id, until_s)
        return view(self._catalog.get(instance_id) or instance)

    # What is otherwise where several registries share one catalogue.

    def _make_notifier(self) -> Notifier:
        timeout_s, keep = self._settings.heartbeat_timeout, self.keeping.acknowledged
        return Notifier(self._catalog, self._channels, keep, epoch=self.epoch, timeout_s=timeout_s, token=self._token)

    def _restore(self, stored: Stored) -> None:
        self._catalog.restore(((one.record, one.state, one.since_s, one.reason) for one in stored.instances), stored.revision)
        self.health.begin(RESTART_SPREAD_S)
        for index, one in enumerate(stored.instances):
            self.prober.watch(one.record, RESTART_SPREAD_S * index / len(stored.instances))
            self.notifier.watch(one.record, known=one.known or {})

    def _accept(self, decision: Decision, kind: str) -> None:
        """Carry out what was decided and is kept."""
        transitions = self._catalog.accept(decision)
        self._let_go(*decision.replaced)
        self._channels.renew(decision.record)
        self.prober.watch(decision.record, healthy=decision.state is State.UP)
        self.notifier.watch(decision.record)
        self._publish(transitions, kind)

    async def _by_hand(self, instance_id: str, hand: Hand, change: Callable[[Instance], Transition | None]) -> None:
        """Do to an instance what somebody asks for."""
        self._move(change(self._find(instance_id)), hand.kind or None, hand.by)

    async def _until_withdrawn(self, name: str, url: str, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        return await self.notifier.until_withdrawn(name, url, timeout_s)

    def _check_soon(self, instance_id: str) -> None:
        self.prober.check_soon(instance_id)

    def _tells_of(self, event: Event) -> bool:
        return True

    # Inside.

    def _snapshot(self) -> list[Event]:
        return [present(instance, self._catalog.revision) for instance in self._catalog]

    def _show_at(self, instance_id: str, until_s: float) -> None:
        """Let a hidden instance come back at a moment."""
        if (earlier := self._hidden.pop(instance_id, None)) is not None:
            earlier.cancel()
        self._hidden[instance_id] = asyncio.get_running_loop().call_later(until_s - self._clock(), self._show, instance_id)

    def _show(self, instance_id: str) -> None:
        del self._hidden[instance_id]
        instance = self._catalog.get(instance_id)
        if instance is not None and instance.hidden_until_s is not None:
            self._move(self._catalog.undrain(instance, self._clock()), kind=events.SHOWN)
            self.prober.check_soon(instance_id)

    def _find(self, instance_id: str) -> Instance:
        instance = self._catalog.get(instance_id)
        if instance is None:
            raise NotFound(f"no instance {instance_id!r} is registered; register first", code="unknown_instance")
        return instance

    async def _drop(self, instances: Iterable[Instance], reason: str, kind: str, by: str | None = None) -> None:
        records = [instance.record for instance in instances]
        revision, hand = self._catalog.revision + 1, Hand(kind, by)
        await self.keeping.commit(*(Remove(one.instance_id, one.generation, revision, hand, reason, True) for one in records))
        changes = []
        for record in records:
            # Meanwhile it may have registered from another address: then it stays.
            if change := self._catalog.remove(record.instance_id, reason, record.generation):
                changes.append(change)
                self._let_go(record.instance_id)
        self._publish(changes, kind, by)

    def _let_go(self, *instance_ids: str) -> None:
        for instance_id in instance_ids:
            self._channels.drop(instance_id)
            self.prober.forget(instance_id)
            self.health.forget(instance_id)
            self.notifier.forget(instance_id)

    def _checked(self, record: Record, finding: Finding) -> bool:
        """Take a check's outcome in; return whether a doubt is left that a check before its time would settle."""
        instance = self._catalog.get(record.instance_id, record.generation)
        if instance is None:
            return False
        if finding.verdict is Verdict.PASSED:
            if instance.misses or instance.state is not State.UP:
                self.notifier.kick(record.instance_id)
            self._move(self.health.passed(instance))
        elif finding.verdict is Verdict.FAILED:
            self._move(self.health.failed(instance, finding.reason))
        else:
            self._move(self.health.missed(instance, finding.reason))
            self._timeline.missed(instance, finding.reason)
            return instance.offered
        return False

    def _move(self, transition: Transition | None, kind: str | None = None, by: str | None = None) -> None:
        if transition is not None:
            instance = transition.instance
            record = instance.record
            self._publish([transition], kind, by)
            if instance.hidden_until_s is None:  # a restart ends a hiding
                revision = self._catalog.revision
                change = SetState(record.instance_id, record.generation, instance.state, instance.reason, instance.since_s, revision)
                self.keeping.submit(change)

    def _publish(self, transitions: Iterable[Transition], kind: str | None = None, by: str | None = None) -> None:
        announce(transitions, self.events, self.notifier, kind, by)

    async def _forget_absent(self, instance: Instance) -> None:
        """Forget one that has been gone for long, if it still is."""
        async with self._lanes.hold(instance.record.instance_id, instance.record.url):
            same = self._catalog.get(instance.record.instance_id, instance.record.generation)
            if same is not None and same.gone:
                reason = f"forgotten after {self._settings.forget_after:g} s without being up"
                await self._drop([same], reason, events.FORGOTTEN)
