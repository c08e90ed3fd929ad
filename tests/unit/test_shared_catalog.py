"""The catalogue of one of several registries: it proposes, and changes by the news alone."""

from __future__ import annotations

from typing import NamedTuple

from pillion_common.models import Registration, State
from pillion_registry.catalog import Instance, Record
from pillion_registry.shared_catalog import SharedCatalog
from pillion_registry.store.mirror import Mirrored, News
from pillion_registry.store.nats_wire import Gone, Kept, record_of

A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"


class Proposal(NamedTuple):
    instance_id: str
    state: State
    reason: str | None
    since_s: float
    hidden_until_s: float | None


class Lab:
    def __init__(self) -> None:
        self.mine = {"a", "b", "c"}
        self.proposed: list[Proposal] = []
        self.catalog = SharedCatalog(100, lambda instance_id: instance_id in self.mine, self._propose)
        self.revision = 0

    def _propose(self, instance: Instance, state: State, reason: str | None, since_s: float, hidden_until_s: float | None) -> None:
        self.proposed.append(Proposal(instance.record.instance_id, state, reason, since_s, hidden_until_s))

    def kept(
        self,
        instance_id: str,
        state: State,
        generation: int = 1,
        since: float = 1.0,
        hidden: float | None = None,
        replaced: tuple[str, ...] = (),
        name: str = "Log",
    ) -> list[tuple[str, State | None, State | None, int]]:
        self.revision += 10
        kept = Kept(generation, "10.0.0.9", 1.0, Registration(name, A, ("Db",)), state, since, "why", hidden_until=hidden)
        known = self.catalog.get(instance_id, generation)
        record = known.record if known is not None else record_of(instance_id, kept)
        return self._carry(News(self.revision, instance_id, Mirrored(self.revision, record, kept), None, replaced))

    def gone(self, instance_id: str, reason: str = "") -> list[tuple[str, State | None, State | None, int]]:
        self.revision += 10
        return self._carry(News(self.revision, instance_id, None, Gone(reason) if reason else None))

    def _carry(self, news: News) -> list[tuple[str, State | None, State | None, int]]:
        changes = self.catalog.carry_out(news, 5.0)
        return [(one.instance.record.instance_id, one.before, one.after, one.revision) for one in changes]

    def get(self, instance_id: str) -> Instance:
        instance = self.catalog.get(instance_id)
        assert instance is not None
        return instance


def test_what_a_check_finds_is_proposed_and_nothing_is_changed() -> None:
    lab = Lab()
    lab.kept("a", State.STARTING)
    revision = lab.catalog.revision
    assert lab.catalog.passed(lab.get("a"), 7.0) is None
    assert lab.proposed == [Proposal("a", State.UP, None, 7.0, None)]
    assert (lab.get("a").state, lab.catalog.revision) == (State.STARTING, revision)


def test_it_is_carried_out_when_it_comes_back_with_the_buckets_revision() -> None:
    lab = Lab()
    assert lab.kept("a", State.STARTING) == [("a", None, State.STARTING, 10)]
    assert lab.kept("a", State.UP, since=7.0) == [("a", State.STARTING, State.UP, 20)]
    assert (lab.get("a").state, lab.get("a").since_s, lab.get("a").reason, lab.catalog.revision) == (State.UP, 7.0, "why", 20)
    assert set(lab.catalog.providers("Log").entries) == {A}
    assert lab.kept("a", State.UP, since=7.0) == []  # nothing new
    assert lab.proposed == []


def test_each_way_to_change_an_instance_proposes() -> None:
    lab = Lab()
    lab.kept("a", State.UP)
    one = lab.get("a")
    assert lab.catalog.failed(one, "refused", 2.0) is None
    assert lab.catalog.silent(one, "silent", 3.0) is None
    assert lab.catalog.drain(one, "drained", 4.0) is None
    assert lab.catalog.hide(one, 99.0, "hidden", 5.0) is None
    assert lab.catalog.undrain(one, 6.0) is None  # it is not drained
    assert [(p.state, p.reason, p.hidden_until_s) for p in lab.proposed] == [
        (State.DOWN, "refused", None),
        (State.DOWN, "silent", None),
        (State.DRAINING, "drained", None),
        (State.DRAINING, "hidden", 99.0),
    ]
    assert one.state is State.UP


def test_a_hiding_is_known_until_when_and_goes_with_the_next_state() -> None:
    lab = Lab()
    lab.kept("a", State.UP)
    lab.kept("a", State.DRAINING, since=2.0, hidden=50.0)
    assert lab.get("a").hidden_until_s == 50.0
    assert lab.kept("a", State.DRAINING, since=2.0, hidden=70.0) != []  # hidden again, for longer
    assert lab.get("a").hidden_until_s == 70.0
    lab.catalog.drain(lab.get("a"), "for good", 4.0)
    assert lab.proposed[-1] == Proposal("a", State.DRAINING, "for good", 4.0, None)
    lab.kept("a", State.STARTING, since=5.0)
    assert lab.get("a").hidden_until_s is None


def test_one_that_registers_again_is_another_record_in_the_same_place() -> None:
    lab = Lab()
    lab.kept("a", State.UP)
    before = lab.get("a").record
    assert lab.kept("a", State.UP, generation=2) == [("a", State.UP, State.UP, 20)]
    assert lab.get("a").record is not before
    assert lab.catalog.get("a", 1) is None
    lab.kept("a", State.DRAINING, generation=3, hidden=50.0)
    assert lab.get("a").hidden_until_s == 50.0


def test_what_is_replaced_or_gone_is_not_there_any_more() -> None:
    lab = Lab()
    lab.kept("a", State.UP)
    assert lab.kept("b", State.STARTING, generation=2, replaced=("a",)) == [
        ("a", State.UP, None, 20),
        ("b", None, State.STARTING, 20),
    ]
    assert lab.gone("b", "deregistered") == [("b", State.STARTING, None, 30)]
    assert lab.gone("b") == []
    assert len(lab.catalog) == 0


def test_offers_count_ours_alone_and_are_counted_anew_when_others_are_ours() -> None:
    lab = Lab()
    lab.mine = {"a"}
    lab.kept("a", State.UP)
    lab.kept("b", State.UP, name="Db")
    assert (lab.catalog.offers.of("Log"), lab.catalog.offers.of("Db")) == (1, 0)
    lab.mine = {"b"}
    lab.catalog.recount()
    assert (lab.catalog.offers.of("Log"), lab.catalog.offers.of("Db")) == (0, 1)
    lab.kept("b", State.DOWN, name="Db", since=3.0)
    assert lab.catalog.offers.of("Db") == 0


def test_generations_rise_over_all_that_are_known_and_are_about_the_time() -> None:
    lab = Lab()
    assert lab.catalog.decide_generation(1000.5) == 1_000_500_000
    lab.kept("a", State.UP, generation=5_000_000_000)
    assert lab.catalog.decide_generation(1000.5) == 5_000_000_001
    decision = lab.catalog.decide(Registration("Log", B, heartbeat_url=B, instance_id="b"), "10.0.0.9", 1000.5)
    assert decision.record.generation == 5_000_000_001


def test_what_the_bucket_had_at_the_start_is_taken_as_it_is() -> None:
    lab = Lab()
    given = Registration("Log", A, ("Db",))
    lab.catalog.restore([(Record("a", 7, "10.0.0.9", 1.0, given), State.UP, 3.0, None)], 99)
    assert (lab.get("a").state, lab.get("a").retained, lab.catalog.revision) == (State.UP, False, 99)
    assert set(lab.catalog.providers("Log").entries) == {A}
    assert lab.catalog.dependents_of("Db") == ["a"] or list(lab.catalog.dependents_of("Db")) == ["a"]
