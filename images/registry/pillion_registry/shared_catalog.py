"""The catalogue of one of several registries: it changes by the bucket's news alone. Pure.

What the rules of a single registry would do at once, they propose here: the change is written, comes back as news, and is carried out
then, by every registry in the same order. Its revisions are the bucket's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pillion_common.models import State
from pillion_registry.catalog import Catalog, Decision, Instance, Record, Transition
from pillion_registry.store.mirror import News
from pillion_registry.store.nats_wire import Kept

Propose = Callable[[Instance, State, str | None, float, float | None], None]


class SharedCatalog(Catalog):
    """A catalogue that proposes.

    Args:
        owned: whether an instance is this registry's to look after; only such ones are counted in `offers`.
        propose: told of each change that the rules want: instance, state, reason, since when, hidden until when.
    """

    def __init__(self, max_instances: int, owned: Callable[[str], bool], propose: Propose) -> None:
        super().__init__(max_instances)
        self._owned = owned
        self._propose = propose
        self._hides_until_s: float | None = None
        self._proposing = True
        self._arriving = 0  # the revision of the news that is being carried out

    def restore(self, records: Iterable[tuple[Record, State, float, str | None]], revision: int) -> None:
        """Take in what the bucket has: states as they are, for the other registries look after them."""
        for record, state, since_s, reason in records:
            self._link(Instance(record, state, since_s, reason))
            self._generation = max(self._generation, record.generation)
        self.revision = revision

    def decide_generation(self, now_s: float) -> int:
        """Return a generation higher than all that are known here, and about the time, so that no two registries come to the same."""
        return max(self._generation + 1, int(now_s * 1_000_000))

    def hide(self, instance: Instance, until_s: float, reason: str, now_s: float) -> Transition | None:
        """Propose to withdraw an instance for a while."""
        self._hides_until_s = until_s
        try:
            return super().hide(instance, until_s, reason, now_s) if instance.state is not State.DRAINING else None
        finally:
            self._hides_until_s = None

    def carry_out(self, news: News, now_s: float) -> list[Transition]:
        """Do what has become true."""
        self._arriving = news.revision
        self._proposing = False
        try:
            return self._carry_out(news, now_s)
        finally:
            self._proposing = True

    def recount(self) -> None:
        """Count `offers` anew: other instances are ours."""
        self.offers.clear()
        for one in self:
            self._offer(one.record, one.offered)

    def _carry_out(self, news: News, now_s: float) -> list[Transition]:
        one = news.one
        changes = [self.remove(other, "replaced by a new registration") for other in news.replaced]
        if one is None:
            changes.append(self.remove(news.instance_id, news.gone.reason if news.gone else "deleted"))
            return [change for change in changes if change is not None]
        record, kept = one.record, one.kept
        self._generation = max(self._generation, record.generation)
        known = self.get(record.instance_id)
        if known is not None and known.record.generation == record.generation:
            changes.append(self._become(known, kept))
            return [change for change in changes if change is not None]
        changes += self.accept(Decision(record, (), kept.state, False, known is None, kept.since))
        if (instance := self.get(record.instance_id)) is not None:
            instance.hidden_until_s = kept.hidden_until
        return [change for change in changes if change is not None]

    def _become(self, instance: Instance, kept: Kept) -> Transition | None:
        if (instance.state, instance.hidden_until_s, instance.since_s) == (kept.state, kept.hidden_until, kept.since):
            return None
        outlasted = instance.outlasted_guard
        transition = super()._move(instance, kept.state, kept.reason, kept.since)
        instance.hidden_until_s = kept.hidden_until
        instance.outlasted_guard = outlasted and kept.state is State.DOWN
        return transition

    def _move(self, instance: Instance, state: State, reason: str | None, now_s: float) -> Transition | None:
        if not self._proposing:
            return super()._move(instance, state, reason, now_s)
        self._propose(instance, state, reason, now_s, self._hides_until_s)
        return None

    def _next_revision(self) -> int:
        return self._arriving

    def _offer(self, record: Record, by: int) -> None:
        if self._owned(record.instance_id):
            super()._offer(record, by)
