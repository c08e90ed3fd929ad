"""One of several registries that share a catalogue in NATS: a registry whose every change goes through the bucket.

A write is proposed, kept by NATS, comes back as news to all, and is carried out then. Each instance is checked, and each dependent told, by
the one live registry whose it is; when others are live than before, what has become ours is taken over and what is not is let go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from pillion_common.errors import InvalidInput, PillionError, Unavailable
from pillion_common.logs import EventLog
from pillion_common.models import State, decode, encode
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_registry import events
from pillion_registry.catalog import Decision, Instance, Transition
from pillion_registry.dependent import Delivery, Dependent
from pillion_registry.events import Event
from pillion_registry.handover import Handover
from pillion_registry.members import Members
from pillion_registry.notifier import Notifier, Standing
from pillion_registry.proposals import Proposals
from pillion_registry.questions import (
    CHECK,
    STANDINGS,
    WITHDRAWN,
    Question,
    Withdrawn,
    read_question,
    read_standings,
    tell_standings,
)
from pillion_registry.registry import RESTART_SPREAD_S, Registry
from pillion_registry.settings import Settings
from pillion_registry.shared_catalog import SharedCatalog
from pillion_registry.sharing import FENCE_S
from pillion_registry.store.base import NOBODY, Hand, Known, Outdated, SetState, Stored
from pillion_registry.store.mirror import News
from pillion_registry.store.nats import TRIES, NatsStore
from pillion_registry.why import MAX_CONSUMERS

BACK_SOON = "this registry was away and learns what has changed; ask another one, or again in a second"
JOIN_S = 3.0
ASK_S = 1.0  # for an answer of another registry, beside what it waits for itself
ASK_AGAIN_S = 0.3
TAKE_AGAIN_S = 0.3

_log = EventLog("replicas")


class SharedRegistry(Registry):
    """A registry beside others.

    Args:
        store: the bucket that all of them share.
    """

    def __init__(
        self, settings: Settings, store: NatsStore, token: Token | None, tasks: Supervisor, clock: Callable[[], float] = time.time
    ) -> None:
        self._bucket = store
        self.members = Members(
            store.link,
            settings.member_name(),
            changed=self._share_anew,
            lapsed=self._retake_all,
            answer=self._answer,
            current=lambda: store.silent_s() < FENCE_S,
            catch_up=store.catch_up,
        )
        self._mine = self.members.sharing.mine
        self._own = self.members.sharing.owned
        self._proposals = Proposals(lambda ids: self.prober.hasten(ids), lambda: self.store_fault() is None)
        self._hand: Hand | None = None  # somebody's, for whom a change is being proposed
        self._asked: SetState | None = None
        self._shared = SharedCatalog(settings.max_instances, self._mine, self._propose)
        super().__init__(settings, store, token, tasks, clock, self._shared)
        self.sharing = self.members.sharing
        self.handover = Handover(store.known, self.members.me, self._lives, settings.heartbeat_timeout)

    # Life.

    async def start(self) -> None:
        """Read the catalogue and join the others."""
        await super().start()
        self._bucket.listen(self._news)
        self._tasks.keep("store-lost", self._end_when_lost())
        await self.members.begin(self._bucket.lose)
        await self.members.joined(JOIN_S)

    async def stop(self) -> None:
        """Take our leave, so that the others go on at once."""
        await self.members.leave()
        await super().stop()
        self._proposals.close()

    def store_fault(self) -> str | None:
        """Return why nothing can be kept or told from here now."""
        if (fault := self._bucket.fault()) is not None:
            return fault
        return "this registry hears nothing of its own lease in NATS: the others do its work" if self.members.fenced() else None

    def check_current(self) -> None:
        """Refuse a write while we are away: the others go on, and whoever asked may have asked them meanwhile and be gone.

        Raises:
            Unavailable: we are.
        """
        if self.members.fenced():
            raise Unavailable(self.store_fault() or BACK_SOON, code="not_current", retry_after_s=1)

    async def _end_when_lost(self) -> None:
        _log.error("store_lost", f"{await self._bucket.lost()}; ending, for nothing but a new start helps")

    # What a single registry does at once.

    def _make_notifier(self) -> Notifier:
        return Notifier(
            self._catalog,
            self._channels,
            self._keep_told,
            epoch=self.epoch,
            timeout_s=self._settings.heartbeat_timeout,
            token=self._token,
            on_telling=self._keep_telling,
            may_tell=lambda: not self.members.fenced(),
        )

    def _restore(self, stored: Stored) -> None:
        self._catalog.restore(((one.record, one.state, one.since_s, one.reason) for one in stored.instances), stored.revision)

    def _accept(self, decision: Decision, kind: str) -> None:
        """Do nothing: the news have come before the answer."""

    def _propose(self, instance: Instance, state: State, reason: str | None, since_s: float, hidden_until_s: float | None) -> None:
        """Ask the bucket for what the rules want."""
        record = instance.record
        seen = self._bucket.mirror.revision_of(record.instance_id)
        change = SetState(record.instance_id, record.generation, state, reason, since_s, 0, self._hand or NOBODY, hidden_until_s, seen)
        if self._hand is not None:
            self._asked = change
        elif self._proposals.begin(record.instance_id, state):
            self._store.submit((change._replace(firm=False),), partial(self._settled, record.instance_id, state))

    def _settled(self, instance_id: str, state: State, fault: PillionError | None) -> None:
        self.keeping.note(fault)
        self._proposals.end(instance_id, state, fault)
        instance = self._catalog.get(instance_id)
        if fault is None and instance is not None and instance.state is not state and instance_id in self._own:
            self.prober.check_soon(instance_id)  # something else came first

    async def _by_hand(self, instance_id: str, hand: Hand, change: Callable[[Instance], Transition | None]) -> None:
        for left in reversed(range(TRIES)):
            self._asked, self._hand = None, hand
            seen = self._bucket.mirror.revision_of(instance_id)
            try:
                change(self._find(instance_id))
            finally:
                asked, self._hand = self._asked, None
            try:
                if asked is not None:
                    await self.keeping.commit(asked)
                    break
                if await self._bucket.confirm(instance_id, seen):  # else nothing to do only as it was: decide anew
                    break
            except Outdated:
                if not left:
                    raise

    async def _drop(self, instances: Iterable[Instance], reason: str, kind: str, by: str | None = None) -> None:
        found = list(instances)
        ids = [instance.record.instance_id for instance in found]
        for left in reversed(range(TRIES)):
            try:
                await super()._drop(found, reason, kind, by)
                break
            except Outdated:
                if not left or by is None:  # nobody asks for it: who has registered anew stays
                    raise
            found = [instance for instance_id in ids if (instance := self._catalog.get(instance_id)) is not None]

    def _check_soon(self, instance_id: str) -> None:
        if instance_id in self._own:
            self.prober.check_soon(instance_id)
        elif (owner := self.members.sharing.owner(instance_id)) not in ("", self.members.me):
            self._tasks.spawn("ask", self._have_checked(owner, instance_id))

    async def _have_checked(self, member: str, instance_id: str) -> None:
        await self._ask_in_vain(member, encode(Question(CHECK, instances=(instance_id,))))

    async def _ask_in_vain(self, member: str, question: bytes) -> bytes:
        try:
            return await self.members.ask(member, question, ASK_S)
        except Unavailable as exc:
            _log.debug("not_answered", f"{member} does not answer: {exc.message}")
            return b""

    def _show_at(self, instance_id: str, until_s: float) -> None:
        if instance_id in self._own:
            super()._show_at(instance_id, until_s)

    def _show(self, instance_id: str) -> None:
        del self._hidden[instance_id]
        instance = self._catalog.get(instance_id)
        if instance is not None and instance.hidden_until_s is not None:
            self._tasks.spawn("show", self._let_back(instance_id))

    async def _let_back(self, instance_id: str) -> None:
        try:
            await self._by_hand(instance_id, Hand(events.SHOWN), lambda one: self._catalog.undrain(one, self._clock()))
        except Unavailable:
            self._show_at(instance_id, self._clock() + 1.0)

    def _tells_of(self, event: Event) -> bool:
        return not event.instance_id or self._mine(event.instance_id)

    async def _forget_absent(self, instance: Instance) -> None:
        if instance.record.instance_id in self._own:
            await super()._forget_absent(instance)

    # News.

    def _news(self, news: News) -> None:
        """Carry out what the bucket tells."""
        before = self._catalog.get(news.instance_id)
        transitions = self._shared.carry_out(news, self._clock())
        for instance_id in news.replaced if news.one else (*news.replaced, news.instance_id):
            self._lose(instance_id)
        kind = news.one.kept.kind if news.one else news.gone.kind if news.gone else ""
        by = news.one.kept.by if news.one else news.gone.by if news.gone else None
        instance = self._catalog.get(news.instance_id)
        if instance is not None and self._mine(news.instance_id):
            self._look_after(instance, transitions, anew=before is None or before.record is not instance.record)
        replaced = news.one is None and not kind
        self._publish(transitions, events.REGISTERED if replaced else kind or None, by)

    def _look_after(self, instance: Instance, transitions: Iterable[Transition], anew: bool) -> None:
        """Do what a change of one of ours asks for."""
        instance_id, now = instance.record.instance_id, time.monotonic()
        if anew:
            self._own.add(instance_id)
            self._channels.renew(instance.record)
            self.prober.watch(instance.record, healthy=instance.state is State.UP)
            self._tell(instance)
        for transition in transitions:
            if transition.after is State.DOWN:
                self.health.flaps.fell(instance_id, now)
            elif transition.after is State.UP and transition.before in (State.DOWN, State.STARTING):
                self.health.flaps.rose(instance_id, now)
            elif transition.after is State.STARTING and not anew:
                self.prober.check_soon(instance_id)
        if instance.hidden_until_s is not None:
            super()._show_at(instance_id, instance.hidden_until_s)

    # Sharing.

    def _lives(self, member: str) -> bool:
        return member in self.members.sharing.live

    def _share_anew(self) -> None:
        """Take over what has become ours, and let go what is not ours any more."""
        self._shared.recount()
        gained = []
        for instance in self._catalog:
            instance_id = instance.record.instance_id
            if not self._mine(instance_id):
                self._lose(instance_id, to_another=True)
            elif instance_id not in self._own:
                gained.append(instance)
        for index, instance in enumerate(gained):
            self._own.add(instance.record.instance_id)
            self.prober.watch(instance.record, RESTART_SPREAD_S * (index + 1) / len(gained))
            self._tell(instance)
            if instance.hidden_until_s is not None:
                super()._show_at(instance.record.instance_id, instance.hidden_until_s)

    def _retake_all(self) -> None:
        """Tell ours anew, for others may have told them meanwhile; ask those that are not up, for what was found while away is void."""
        for instance_id in self._own:
            if (instance := self._catalog.get(instance_id)) is not None:
                self._tell(instance)
                if instance.comes_up:
                    self.prober.check_soon(instance_id)

    def _lose(self, instance_id: str, to_another: bool = False) -> None:
        if instance_id in self._own:
            self._own.discard(instance_id)
            self._proposals.forget(instance_id)
            if to_another:
                self.notifier.retire(instance_id, partial(self.handover.drop, instance_id))
            else:
                self.notifier.forget(instance_id)
                self.handover.drop(instance_id)
            self._channels.drop(instance_id)
            self.prober.forget(instance_id)
            self.health.forget(instance_id)
            if (timer := self._hidden.pop(instance_id, None)) is not None:
                timer.cancel()

    def _tell(self, instance: Instance) -> None:
        """Tell one of ours its providers from now on; of a classic one it is asked first what it knows."""
        record = instance.record
        self.notifier.forget(record.instance_id)
        if not record.registration.requires:
            return
        if (record.registration.protocol or 1) >= 2:
            self.notifier.watch(record)
        else:
            self._tasks.spawn("handover", self._take_over(record.instance_id, record.generation))

    async def _take_over(self, instance_id: str, generation: int) -> None:
        while True:
            try:
                known, doubts = await self.handover.take(instance_id, generation)
                break
            except Unavailable as exc:
                _log.warn_seldom("handover_failed", f"what {instance_id} knows cannot be read: {exc.message}; trying again")
            await asyncio.sleep(TAKE_AGAIN_S)
            if not self._still_ours(instance_id, generation):
                return
        instance = self._catalog.get(instance_id, generation)
        if instance is not None and self._still_ours(instance_id, generation):
            self.notifier.watch(instance.record, known, doubts)

    def _still_ours(self, instance_id: str, generation: int) -> bool:
        return instance_id in self._own and self._catalog.get(instance_id, generation) is not None

    def _keep_telling(self, dependent: Dependent, delivery: Delivery, then: Callable[[bool], None]) -> None:
        self._tasks.spawn("telling", self._kept(dependent, self.handover.telling(dependent, delivery), then))

    def _keep_told(self, dependent: Dependent, known: Known, then: Callable[[], None]) -> None:
        self._tasks.spawn("told", self._kept(dependent, self.handover.told(dependent, known), lambda _: then()))

    async def _kept(self, dependent: Dependent, keeping: Awaitable[bool], then: Callable[[bool], None]) -> None:
        kept = await keeping
        if not kept and not self.handover.holds(dependent) and self._still_ours(dependent.instance_id, dependent.generation):
            self.notifier.forget(dependent.instance_id)  # somebody had it between; and it may go to another while it is taken over
            await self._take_over(dependent.instance_id, dependent.generation)
            return
        then(kept)

    # Questions.

    async def _answer(self, data: bytes) -> bytes:
        question = read_question(data)
        if question is None:
            return b""
        if question.kind == WITHDRAWN:
            await self._bucket.reached(question.revision, ASK_S)
            told = await super()._until_withdrawn(question.service, question.url, question.timeout)
            return encode(Withdrawn(*told))
        if question.kind == CHECK:
            for instance_id in question.instances:
                self.prober.check_soon(instance_id)
        found = [(one, standing) for one in question.instances if (standing := self.notifier.standing(one)) is not None]
        return tell_standings(found if question.kind == STANDINGS else ())

    async def _until_withdrawn(self, name: str, url: str, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        """Ask all who share the catalogue."""
        ends = time.monotonic() + timeout_s
        asked = [self._withdrawn_at(member, name, url, ends) for member in self.members.sharing.live if member != self.members.me]
        told = await asyncio.gather(super()._until_withdrawn(name, url, timeout_s), *asked)
        return sum(one[0] for one in told), tuple(instance_id for one in told for instance_id in one[1])

    async def _withdrawn_at(self, member: str, name: str, url: str, ends: float) -> tuple[int, tuple[str, ...]]:
        while True:
            left_s = max(0.0, ends - time.monotonic())
            question = encode(Question(WITHDRAWN, name, url, self._bucket.mirror.revision, left_s))
            try:
                told = decode(await self.members.ask(member, question, left_s + ASK_S), Withdrawn)
                return told.acknowledged, told.waiting
            except (Unavailable, InvalidInput):
                if left_s <= 0.0 or not self._lives(member):
                    break
            await asyncio.sleep(ASK_AGAIN_S)
        return 0, tuple(one for one in self._catalog.dependents_of(name) if self.members.sharing.owner(one) == member)

    async def standings(self, consumer: str) -> Callable[[str], Standing | None]:
        """Return how things stand with a consumer's instances, whoever tells them."""
        one = self._catalog.get(consumer)
        ids = [consumer] if one else [instance.record.instance_id for instance in self._catalog.named(consumer)[:MAX_CONSUMERS]]
        by_owner: dict[str, list[str]] = {}
        for instance_id in ids:
            by_owner.setdefault(self.members.sharing.owner(instance_id), []).append(instance_id)
        asked = [
            self._ask_in_vain(owner, encode(Question(STANDINGS, instances=tuple(some))))
            for owner, some in by_owner.items()
            if owner not in ("", self.members.me)
        ]
        found: dict[str, Standing] = {}
        for data in await asyncio.gather(*asked):
            found |= read_standings(data)
        return lambda instance_id: self.notifier.standing(instance_id) or found.get(instance_id)
