"""The catalogue: which instances there are and in which state. Pure rules, no I/O; the clock's reading is a parameter.

Every method that changes what somebody may see returns a Transition and raises the revision. An accepted registration is a Record;
its `generation` tells a check's late result from one about the present registration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from pillion_common.errors import Conflict, NotFound, Unavailable
from pillion_common.models import Registration, State
from pillion_common.names import derive_id
from pillion_registry.offers import Offers
from pillion_registry.provider_set import EMPTY, ProviderSet, entry_of

MAX_SEEN = 100_000  # names remembered for telling "none left" from "never seen"


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted registration.

    `registrant` is the IP address it came from, `registered_s` seconds since 1970; `trusted` says that it carried the token, so that its
    patches may carry it too.
    """

    instance_id: str
    generation: int
    registrant: str
    registered_s: float
    registration: Registration
    trusted: bool = False

    @property
    def name(self) -> str:
        """Return the service's name."""
        return self.registration.service_name

    @property
    def url(self) -> str:
        """Return the URL at which the service is offered."""
        return self.registration.service_url


@dataclass(slots=True)
class Instance:
    """A record and how it is doing."""

    record: Record
    state: State
    since_s: float
    reason: str | None = None
    misses: int = 0
    retained: bool = False  # was up before the registry restarted, not checked since
    hidden_until_s: float | None = None  # drained by an operator until then
    suspect: str | None = None  # silent and kept all the same: why
    suspect_until_s: float | None = None  # at the latest
    outlasted_guard: bool = False  # down, after the guard's time was over
    held_until_s: float | None = None  # answers, and is held down for flapping until then

    @property
    def name(self) -> str:
        """Return the service's name."""
        return self.record.name

    @property
    def offered(self) -> bool:
        """Return whether dependents have it: it is up, or was before the registry restarted."""
        return self.state is State.UP or self.retained

    @property
    def comes_up(self) -> bool:
        """Return whether a check that passes makes it up."""
        return self.state in (State.STARTING, State.DOWN)

    @property
    def gone(self) -> bool:
        """Return whether nothing was heard of it lately but that it cannot serve."""
        if self.retained:
            return False
        return self.state in (State.DOWN, State.STARTING) or (self.state is State.DRAINING and self.misses > 0)


class Decision(NamedTuple):
    """What accepting a registration will do. Nothing has happened yet."""

    record: Record
    replaced: tuple[str, ...]  # ids of other instances at the same name and URL
    state: State
    retained: bool  # see Instance
    new: bool  # one more instance than before
    since_s: float  # it has this state


class Transition(NamedTuple):
    """Something that changed; the service's dependents may have to be told. `revision` is the one it led to."""

    instance: Instance
    before: State | None
    after: State | None
    reason: str | None
    revision: int


class Catalog:
    """All instances, by id, by URL and by service."""

    def __init__(self, max_instances: int) -> None:
        self.revision = 0
        self.touches = 0  # changes of what people are shown that concern no dependent, and so have no revision
        self.names_version = 0  # another one whenever `names` are others
        self.offers = Offers()
        self._max_instances = max_instances
        self._generation = 0
        self._instances: dict[str, Instance] = {}
        self._ids_by_url: defaultdict[str, set[str]] = defaultdict(set)
        self._ids_by_name: defaultdict[str, dict[str, None]] = defaultdict(dict)  # a dict keeps the order of arrival
        self._dependents: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._providers: dict[str, ProviderSet] = {}
        self._seen: set[str] = set()

    # Reads.

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def get(self, instance_id: str, generation: int | None = None) -> Instance | None:
        """Return the instance if it is there, and (if given) still of that generation."""
        instance = self._instances.get(instance_id)
        return instance if instance and generation in (None, instance.record.generation) else None

    def of_name(self, name: str) -> list[Instance]:
        """Return a service's instances, oldest first.

        Raises:
            NotFound: no instance of that name was ever registered here.
        """
        if not self.knows(name):
            raise NotFound(
                f"no service named {name!r} was ever registered here; GET /services lists those that are", code="unknown_service"
            )
        return self.named(name)

    def knows(self, name: str) -> bool:
        """Return whether an instance of that name was ever registered here."""
        return name in self._seen or name in self._ids_by_name

    def has(self, name: str) -> bool:
        """Return whether a service has an instance now, in whatever state."""
        return name in self._ids_by_name

    def names(self) -> list[str]:
        """Return the names that have an instance now."""
        return list(self._ids_by_name)

    def named(self, name: str) -> list[Instance]:
        """Return a service's instances, oldest first; none for a name never seen."""
        return [self._instances[instance_id] for instance_id in self._ids_by_name.get(name, ())]

    def at_url(self, url: str) -> list[Instance]:
        """Return the instances offered at a URL."""
        return [self._instances[instance_id] for instance_id in sorted(self._ids_by_url.get(url, ()))]

    def dependents_of(self, name: str) -> list[str]:
        """Return the ids of the instances that require a service."""
        return list(self._dependents.get(name, ()))

    def providers(self, name: str) -> ProviderSet:
        """Return a service's present providers; the same object until they change."""
        found = self._providers.get(name)
        if found is None:
            found = self._providers[name] = self._collect(name)
        return found

    # Registrations.

    def decide(self, registration: Registration, registrant: str, now_s: float, trusted: bool = False, coming: int = 0) -> Decision:
        """Say what accepting a (checked) registration will do.

        Args:
            registration, registrant, trusted: see Record.
            coming: new instances that are decided and not accepted yet.

        Raises:
            Conflict: its incarnation is lower than the one known.
            Unavailable: the catalogue is full.
        """
        instance_id = registration.instance_id or derive_id(registration.service_name, registration.service_url)
        same_place = [instance for instance in self.at_url(registration.service_url) if instance.name == registration.service_name]
        earlier = [instance for instance in (self._instances.get(instance_id), *same_place) if instance]
        for instance in earlier:
            known = instance.record.registration.incarnation
            if known is not None and registration.incarnation is not None and registration.incarnation < known:
                raise Conflict(
                    f"incarnation {registration.incarnation} of {instance_id} is older than the registered {known}", code="old_incarnation"
                )
        if not earlier and len(self._instances) + coming >= self._max_instances:
            raise Unavailable(
                f"the registry holds its most instances, {self._max_instances}; raise PILLION_MAX_INSTANCES", code="registry_full"
            )
        self._generation = self.decide_generation(now_s)
        record = Record(instance_id, self._generation, registrant, now_s, registration, trusted)
        # A healthy instance that registers again stays offered: it is only checked anew.
        same = [instance for instance in earlier if (instance.name, instance.record.url) == (record.name, record.url)]
        incarnations = {one.record.registration.incarnation for one in same if one.state is State.DRAINING}
        state = kept_state(registration, {one.state for one in same}, incarnations)
        retained = state is State.STARTING and any(instance.retained for instance in same)
        replaced = tuple(instance.record.instance_id for instance in earlier if instance.record.instance_id != instance_id)
        renewed = [one.since_s for one in same if one.state is state and one.record.registration == registration]
        return Decision(record, replaced, state, retained, not earlier, min(renewed, default=now_s))

    def decide_generation(self, now_s: float) -> int:
        """Return the next record's generation."""
        return self._generation + 1

    def accept(self, decision: Decision) -> list[Transition]:
        """Carry a decision out, once it is stored."""
        hidden = [i.hidden_until_s for i in self._same(decision) if i.hidden_until_s] if decision.state is State.DRAINING else []
        changes = [change for instance_id in decision.replaced if (change := self.remove(instance_id, "replaced by a new registration"))]
        before = self._instances.get(decision.record.instance_id)
        if before is not None and before.name != decision.record.name:
            changes += [change for change in [self.remove(decision.record.instance_id, "registered under another name")] if change]
            before = None
        if before is not None:
            self._unlink(before)
        since_s, hidden_until_s = decision.since_s, max(hidden, default=None)
        instance = Instance(decision.record, decision.state, since_s, retained=decision.retained, hidden_until_s=hidden_until_s)
        self._link(instance)
        changes.append(self._changed(instance, before.state if before else None, decision.state, None))
        return changes

    def remove(self, instance_id: str, reason: str, generation: int | None = None) -> Transition | None:
        """Take an instance out; None if it is not there (with that generation)."""
        instance = self.get(instance_id, generation)
        if instance is None:
            return None
        self._unlink(instance)
        return self._changed(instance, instance.state, None, reason)

    def restore(self, records: Iterable[tuple[Record, State, float, str | None]], revision: int) -> None:
        """Take in what a store kept. What was up is retained: checked before it is offered to anyone, kept by those who know it."""
        for record, state, since_s, reason in records:
            retained = state is State.UP
            self._link(Instance(record, State.STARTING if retained else state, since_s, reason, retained=retained))
            self._generation = max(self._generation, record.generation)
        self.revision = revision

    # Health.

    def passed(self, instance: Instance, now_s: float) -> Transition | None:
        """Note a check that passed."""
        instance.misses = 0
        if instance.suspect is not None:
            instance.suspect = instance.suspect_until_s = None
            self.touches += 1
        if instance.state in (State.UP, State.DRAINING):
            return None
        return self._move(instance, State.UP, None, now_s)

    def missed(self, instance: Instance, reason: str, limit: int | None, now_s: float) -> Transition | None:
        """Note a check that says nothing sure (a time-out); `limit` of them in a row make the instance down, None: it is kept."""
        if limit is None or instance.misses + 1 < limit:
            instance.misses += 1
            return None
        times = f" ({instance.misses + 1} times in a row)" if instance.misses else ""
        return self.silent(instance, f"{reason}{times}", now_s)

    def silent(self, instance: Instance, reason: str, now_s: float) -> Transition | None:
        """Note the last time-out: the instance is down."""
        instance.misses += 1
        return self.failed(instance, reason, now_s)

    def suspect(self, instance: Instance, reason: str, until_s: float) -> None:
        """Show why an instance that does not answer is kept, and until when at most."""
        if instance.suspect != reason:
            instance.suspect, instance.suspect_until_s = reason, until_s
            self.touches += 1

    def hold(self, instance: Instance, reason: str, until_s: float) -> None:
        """Show that an instance that answers is held down, and until when."""
        instance.misses = 0
        instance.held_until_s = until_s
        self._touch(instance, reason)

    def failed(self, instance: Instance, reason: str, now_s: float) -> Transition | None:
        """Note evidence that the instance cannot serve: refused, or it says so itself."""
        if instance.state is State.DRAINING:
            instance.misses = max(1, instance.misses)  # nobody is told of it any more
            self._touch(instance, reason)
            return None
        if instance.state is State.DOWN or (instance.state is State.STARTING and not instance.retained):
            self._touch(instance, reason)  # nobody was told of it yet: an app that is still coming up is not down
            return None
        return self._move(instance, State.DOWN, reason, now_s)

    def drain(self, instance: Instance, reason: str, now_s: float) -> Transition | None:
        """Withdraw an instance that goes on working; None if it is drained already. One that was hidden for a while is drained for good."""
        drained = instance.state is State.DRAINING and instance.hidden_until_s is None
        return None if drained else self._move(instance, State.DRAINING, reason, now_s)

    def hide(self, instance: Instance, until_s: float, reason: str, now_s: float) -> Transition | None:
        """Withdraw an instance for a while; None if it is drained, which is for good."""
        if instance.state is State.DRAINING and instance.hidden_until_s is None:
            return None
        transition = self._move(instance, State.DRAINING, reason, now_s)
        if transition is not None:
            instance.hidden_until_s = until_s
        return transition

    def undrain(self, instance: Instance, now_s: float) -> Transition | None:
        """Let an instance come back, by a check; None if it is not drained."""
        return self._move(instance, State.STARTING, None, now_s) if instance.state is State.DRAINING else None

    # Inside.

    def _touch(self, instance: Instance, reason: str) -> None:
        if instance.reason != reason:
            instance.reason = reason
            self.touches += 1

    def _same(self, decision: Decision) -> Iterator[Instance]:
        return (one for i in (decision.record.instance_id, *decision.replaced) if (one := self._instances.get(i)))

    def _move(self, instance: Instance, state: State, reason: str | None, now_s: float) -> Transition | None:
        before, was_offered = instance.state, instance.offered
        instance.state, instance.reason, instance.since_s, instance.retained = state, reason, now_s, False
        instance.hidden_until_s = instance.held_until_s = instance.suspect = instance.suspect_until_s = None
        instance.outlasted_guard = False
        self._offer(instance.record, instance.offered - was_offered)
        return self._changed(instance, before, state, reason)

    def _changed(self, instance: Instance, before: State | None, after: State | None, reason: str | None) -> Transition:
        self.revision = self._next_revision()
        self._providers.pop(instance.name, None)
        return Transition(instance, before, after, reason, self.revision)

    def _next_revision(self) -> int:
        return self.revision + 1

    def _offer(self, record: Record, by: int) -> None:
        self.offers.change(record.name, by)

    def _collect(self, name: str) -> ProviderSet:
        instances = [self._instances[instance_id] for instance_id in self._ids_by_name.get(name, ())]
        entries = {i.record.url: entry_of(i.record.instance_id, i.record.registration) for i in instances if i.state is State.UP}
        kept = frozenset(i.record.url for i in instances if i.retained)
        return ProviderSet(MappingProxyType(entries), kept) if entries or kept else EMPTY

    def _link(self, instance: Instance) -> None:
        record = instance.record
        self._instances[record.instance_id] = instance
        self._offer(record, instance.offered)
        self._ids_by_url[record.url].add(record.instance_id)
        self.names_version += record.name not in self._ids_by_name
        self._ids_by_name[record.name][record.instance_id] = None
        if len(self._seen) < MAX_SEEN:
            self._seen.add(record.name)
        for required in record.registration.requires:
            self._dependents[required][record.instance_id] = None

    def _unlink(self, instance: Instance) -> None:
        record = instance.record
        del self._instances[record.instance_id]
        self._offer(record, -instance.offered)
        _discard(self._ids_by_url, record.url, record.instance_id)
        _discard(self._ids_by_name, record.name, record.instance_id)
        self.names_version += record.name not in self._ids_by_name
        for required in record.registration.requires:
            _discard(self._dependents, required, record.instance_id)


def kept_state(given: Registration, states: Collection[State], incarnations: Collection[int | None]) -> State:
    """Return the state of a registration of what was registered there already, in these states and with these incarnations."""
    if given.incarnation is not None and given.incarnation in incarnations and State.DRAINING in states:
        return State.DRAINING  # the process that was drained, not one that was started since
    return State.UP if State.UP in states else State.STARTING


def _discard(index: defaultdict[str, set[str]] | defaultdict[str, dict[str, None]], key: str, instance_id: str) -> None:
    members = index[key]
    if isinstance(members, set):
        members.discard(instance_id)
    else:
        members.pop(instance_id, None)
    if not members:
        del index[key]
