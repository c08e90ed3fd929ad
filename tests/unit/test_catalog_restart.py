"""The catalogue after a restart: what was up is checked before it is offered, and withdrawn from nobody meanwhile."""

from __future__ import annotations

import pytest

from pillion_common.models import Registration, State
from pillion_registry.catalog import Catalog, Instance, Record

A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"


def record(url: str = A, generation: int = 7, name: str = "Log") -> Record:
    return Record(f"{name}-{url[-4]}", generation, "10.0.0.1", 1.0, Registration(name, url, heartbeat_url=url))


def restored(state: State = State.UP) -> tuple[Catalog, Instance]:
    catalog = Catalog(100)
    catalog.restore([(record(), state, 50.0, None)], 10_005)
    (instance,) = catalog
    return catalog, instance


def test_what_was_up_is_kept_and_not_offered() -> None:
    catalog, instance = restored()
    providers = catalog.providers("Log")
    assert (instance.state, instance.retained) == (State.STARTING, True)
    assert dict(providers.entries) == {}
    assert providers.kept == {A}
    assert catalog.revision == 10_005


@pytest.mark.parametrize("state", [State.STARTING, State.DOWN, State.DRAINING])
def test_what_was_not_up_is_not_kept(state: State) -> None:
    catalog, instance = restored(state)
    assert catalog.providers("Log").kept == frozenset()
    assert instance.state is state
    assert instance.since_s == 50.0


def test_its_first_check_decides() -> None:
    catalog, instance = restored()
    catalog.passed(instance, 60.0)
    assert (list(catalog.providers("Log").entries), catalog.providers("Log").kept) == ([A], frozenset())
    catalog, instance = restored()
    catalog.failed(instance, "refused", 60.0)
    assert (list(catalog.providers("Log").entries), catalog.providers("Log").kept) == ([], frozenset())


def test_one_miss_does_not_withdraw_it() -> None:
    catalog, instance = restored()
    catalog.missed(instance, "timed out", 2, 60.0)
    assert catalog.providers("Log").kept == {A}
    catalog.missed(instance, "timed out", 2, 61.0)
    assert catalog.providers("Log").kept == frozenset()


def test_an_instance_that_registers_again_before_its_check_is_withdrawn_from_nobody() -> None:
    catalog, instance = restored()
    again = Registration("Log", A, heartbeat_url=A, instance_id=instance.record.instance_id)
    catalog.accept(catalog.decide(again, "10.0.0.1", 60.0))
    providers = catalog.providers("Log")
    assert A in providers.kept or A in providers.entries


def test_new_generations_come_after_those_that_were_kept() -> None:
    catalog, _ = restored()
    assert catalog.decide(Registration("Db", B, heartbeat_url=B), "10.0.0.2", 60.0).record.generation > 7


def test_names_that_come_back_are_known() -> None:
    catalog, _ = restored()
    assert len(catalog.of_name("Log")) == 1
