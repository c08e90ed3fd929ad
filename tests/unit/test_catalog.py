"""The catalogue's rules: registering, states, checks, forgetting."""

from __future__ import annotations

from typing import Any

import pytest

from pillion_common.errors import Conflict, NotFound, Unavailable
from pillion_common.models import Registration, State
from pillion_registry.catalog import Catalog, Instance, Transition, derive_id

A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"


def registration(name: str = "Log", url: str = A, **more: Any) -> Registration:
    return Registration(service_name=name, service_url=url, heartbeat_url=url, service_update_url=url, **more)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(max_instances=100)


def register(catalog: Catalog, name: str = "Log", url: str = A, now_s: float = 0.0, **more: Any) -> list[Transition]:
    return catalog.accept(catalog.decide(registration(name, url, **more), "10.0.0.1", now_s))


def up(catalog: Catalog, name: str = "Log", url: str = A, **more: Any) -> Instance:
    instance = register(catalog, name, url, **more)[-1].instance
    catalog.passed(instance, 1.0)
    return instance


def offered(catalog: Catalog, name: str = "Log") -> list[str]:
    return list(catalog.providers(name).entries)


def test_a_new_instance_starts_and_is_not_offered(catalog: Catalog) -> None:
    (change,) = register(catalog)
    assert (change.before, change.after, change.reason) == (None, State.STARTING, None)
    assert offered(catalog) == []


def test_a_check_that_passes_makes_it_up_and_offered(catalog: Catalog) -> None:
    instance = register(catalog)[0].instance
    change = catalog.passed(instance, 5.0)
    assert change is not None
    assert (change.before, change.after) == (State.STARTING, State.UP)
    assert instance.since_s == 5.0
    assert offered(catalog) == [A]
    assert catalog.passed(instance, 6.0) is None


def test_registering_again_in_the_same_words_changes_neither_state_nor_since_when(catalog: Catalog) -> None:
    up(catalog, incarnation=3)  # at 1.0
    assert register(catalog, now_s=7.0, incarnation=3)[0].instance.since_s == 1.0
    assert register(catalog, now_s=8.0, incarnation=4)[0].instance.since_s == 8.0  # another process
    down = register(catalog, now_s=9.0, incarnation=4)[0].instance
    catalog.failed(down, "refused", 10.0)
    assert register(catalog, now_s=11.0, incarnation=4)[0].instance.since_s == 11.0  # it starts


def test_evidence_of_death_withdraws_at_once_with_the_reason(catalog: Catalog) -> None:
    instance = up(catalog)
    change = catalog.failed(instance, "refused", 9.0)
    assert change is not None
    assert (change.before, change.after, change.reason) == (State.UP, State.DOWN, "refused")
    assert offered(catalog) == []
    assert catalog.failed(instance, "503", 10.0) is None
    assert (instance.reason, instance.since_s) == ("503", 9.0)


def test_an_app_that_is_still_coming_up_is_not_down(catalog: Catalog) -> None:
    instance = register(catalog)[0].instance
    assert catalog.failed(instance, "refused", 9.0) is None
    assert (instance.state, instance.reason) == (State.STARTING, "refused")
    assert instance.gone


def test_silence_needs_as_many_misses_in_a_row_as_the_limit(catalog: Catalog) -> None:
    instance = up(catalog)
    assert catalog.missed(instance, "timed out", 2, 1.0) is None
    assert catalog.passed(instance, 2.0) is None
    assert catalog.missed(instance, "timed out", 2, 3.0) is None
    assert offered(catalog) == [A]
    change = catalog.missed(instance, "timed out", 2, 4.0)
    assert change is not None
    assert change.reason == "timed out (2 times in a row)"
    assert offered(catalog) == []


def test_what_is_down_comes_back_with_its_next_check(catalog: Catalog) -> None:
    instance = up(catalog)
    catalog.failed(instance, "refused", 2.0)
    change = catalog.passed(instance, 3.0)
    assert change is not None
    assert (change.before, change.after, instance.reason) == (State.DOWN, State.UP, None)
    assert offered(catalog) == [A]


def test_a_draining_instance_is_neither_offered_nor_moved_by_checks(catalog: Catalog) -> None:
    instance = up(catalog)
    catalog._move(instance, State.DRAINING, "asked to", 2.0)
    assert offered(catalog) == []
    assert catalog.passed(instance, 3.0) is None
    assert catalog.failed(instance, "refused", 3.0) is None
    assert catalog.missed(instance, "timed out", 1, 3.0) is None
    assert instance.state is State.DRAINING


def test_registering_twice_is_one(catalog: Catalog) -> None:
    register(catalog)
    register(catalog)
    assert len(catalog) == 1
    assert len(catalog.at_url(A)) == 1


def test_a_healthy_instance_that_registers_again_stays_offered(catalog: Catalog) -> None:
    old = up(catalog)
    (change,) = register(catalog)
    assert (change.before, change.after) == (State.UP, State.UP)
    assert offered(catalog) == [A]
    assert change.instance.record.generation > old.record.generation


@pytest.mark.parametrize("state", [State.STARTING, State.DOWN])
def test_an_instance_that_is_not_healthy_starts_again_when_it_registers_again(catalog: Catalog, state: State) -> None:
    instance = register(catalog)[0].instance
    if state is State.DOWN:
        catalog.passed(instance, 1.0)
        catalog.failed(instance, "refused", 1.0)
    assert register(catalog)[-1].after is State.STARTING
    assert offered(catalog) == []


def test_an_instance_that_moved_to_another_url_is_not_offered_before_its_check(catalog: Catalog) -> None:
    up(catalog, instance_id="i1")
    register(catalog, url=B, instance_id="i1")
    assert len(catalog) == 1
    assert offered(catalog) == []
    assert catalog.at_url(A) == []
    assert [i.record.instance_id for i in catalog.at_url(B)] == ["i1"]


def test_an_instance_that_changes_its_name_is_no_longer_offered_under_the_old_one(catalog: Catalog) -> None:
    up(catalog, name="Log", instance_id="i1")
    assert offered(catalog, "Log") == [A]
    register(catalog, name="Db", url=B, instance_id="i1")
    assert offered(catalog, "Log") == []


def test_the_dependents_of_the_old_name_are_told_when_an_instance_changes_its_name(catalog: Catalog) -> None:
    up(catalog, name="Log", instance_id="i1")
    changes = register(catalog, name="Db", url=B, instance_id="i1")
    assert {change.instance.name for change in changes} == {"Log", "Db"}


def test_another_id_at_the_same_name_and_url_replaces_the_earlier(catalog: Catalog) -> None:
    up(catalog, instance_id="i1")
    changes = register(catalog, instance_id="i2")
    assert [(c.instance.record.instance_id, c.after) for c in changes] == [("i1", None), ("i2", State.UP)]
    assert len(catalog) == 1
    assert offered(catalog) == [A]


def test_two_services_may_share_a_url(catalog: Catalog) -> None:
    up(catalog, name="Log")
    up(catalog, name="Db")
    assert len(catalog.at_url(A)) == 2
    assert offered(catalog, "Log") == offered(catalog, "Db") == [A]


def test_a_higher_incarnation_replaces_and_a_lower_one_is_refused(catalog: Catalog) -> None:
    register(catalog, instance_id="i1", incarnation=5)
    register(catalog, instance_id="i1", incarnation=5)
    register(catalog, instance_id="i1", incarnation=6)
    with pytest.raises(Conflict) as caught:
        register(catalog, instance_id="i1", incarnation=5)
    assert (caught.value.status, caught.value.code) == (409, "old_incarnation")


def test_a_registration_without_an_incarnation_is_taken(catalog: Catalog) -> None:
    register(catalog, instance_id="i1", incarnation=5)
    assert len(register(catalog, instance_id="i1")) == 1


def test_a_late_result_about_an_earlier_registration_finds_nobody(catalog: Catalog) -> None:
    old = register(catalog)[0].instance.record
    register(catalog)
    assert catalog.get(old.instance_id, old.generation) is None
    assert catalog.get(old.instance_id) is not None


def test_a_decision_alone_changes_nothing(catalog: Catalog) -> None:
    catalog.decide(registration(), "10.0.0.1", 0.0)
    assert (len(catalog), catalog.revision) == (0, 0)


def test_the_catalogue_has_a_bound_that_known_instances_pass(catalog: Catalog) -> None:
    small = Catalog(max_instances=1)
    register(small)
    register(small)
    with pytest.raises(Unavailable) as caught:
        register(small, url=B)
    assert caught.value.code == "registry_full"
    assert "PILLION_MAX_INSTANCES" in caught.value.message


def test_removing_takes_it_out_everywhere(catalog: Catalog) -> None:
    instance = up(catalog, required_services=("Db",))
    change = catalog.remove(instance.record.instance_id, "deregistered")
    assert change is not None
    assert (change.before, change.after, change.reason) == (State.UP, None, "deregistered")
    assert (len(catalog), catalog.at_url(A), offered(catalog), catalog.dependents_of("Db")) == (0, [], [], [])
    assert catalog.remove(instance.record.instance_id, "again") is None


def test_a_name_that_was_there_once_is_empty_and_a_strange_one_is_not_found(catalog: Catalog) -> None:
    instance = register(catalog)[0].instance
    catalog.remove(instance.record.instance_id, "deregistered")
    assert catalog.of_name("Log") == []
    with pytest.raises(NotFound) as caught:
        catalog.of_name("Lgo")
    assert caught.value.code == "unknown_service"


def test_asking_for_strange_names_leaves_no_trace(catalog: Catalog) -> None:
    for n in range(100):
        catalog.at_url(f"http://{n}")
        catalog.dependents_of(f"n{n}")
    assert (len(catalog._ids_by_url), len(catalog._dependents)) == (0, 0)


def test_dependents_are_those_who_require_it(catalog: Catalog) -> None:
    register(catalog, name="Portal", url=B, required_services=("Log", "Db", "Log"))
    (portal,) = catalog.dependents_of("Log")
    assert portal == derive_id("Portal", B)
    register(catalog, name="Portal", url=B, required_services=("Db",))
    assert catalog.dependents_of("Log") == []


def test_the_revision_rises_with_every_change_and_only_then(catalog: Catalog) -> None:
    seen = [catalog.revision]

    def risen() -> bool:
        seen.append(catalog.revision)
        return seen[-1] > seen[-2]

    instance = register(catalog)[0].instance
    assert risen()
    catalog.passed(instance, 1.0)
    assert risen()
    catalog.passed(instance, 1.0)
    assert not risen()
    catalog.missed(instance, "r", 2, 1.0)
    assert not risen()
    catalog.failed(instance, "r", 1.0)
    assert risen()
    catalog.remove(instance.record.instance_id, "r")
    assert risen()


def test_providers_are_one_shared_object_until_they_change(catalog: Catalog) -> None:
    instance = up(catalog)
    first = catalog.providers("Log")
    up(catalog, name="Db", url=B)
    assert catalog.providers("Log") is first
    catalog.failed(instance, "r", 2.0)
    assert catalog.providers("Log") is not first


def test_a_derived_id_is_a_name_and_stable() -> None:
    assert derive_id("Log", A) == derive_id("Log", A) == "Log-" + derive_id("Log", A)[-16:]
    assert derive_id("Log", A) != derive_id("Log", B)
    assert len(derive_id("x" * 63, A)) <= 63
