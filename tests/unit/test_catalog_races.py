"""The registry's use cases while its store is slow: who comes in between must not be mistaken for somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pillion_common.config import load
from pillion_common.errors import NotFound, PillionError, StorageFull
from pillion_common.models import Registration, State, StateReport
from pillion_common.tasks import Supervisor
from pillion_registry.registry import Registry
from pillion_registry.settings import Settings
from pillion_registry.store.base import Change
from pillion_registry.store.memory import MemoryStore

A, B = "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"


class SlowStore(MemoryStore):
    """Takes its time for each commit, and fails when told to."""

    error: PillionError | None = None

    async def commit(self, changes: Sequence[Change]) -> None:
        await super().commit(changes)
        await asyncio.sleep(0.02)
        if self.error is not None:
            raise self.error


class Lab:
    def __init__(self, *words: str) -> None:
        self.store = SlowStore()
        self.tasks = Supervisor()
        settings = load(Settings, "registry", ["--listen", "127.0.0.1:0", "--heartbeat-interval", "60s", "--store", "memory:", *words], {})
        self.registry = Registry(settings, self.store, None, self.tasks)

    async def register(self, url: str = A, name: str = "Log", **more: Any) -> None:
        await self.registry.register(Registration(name, url, heartbeat_url=url, service_update_url=url, **more), "127.0.0.1")

    def there(self) -> list[tuple[str, str]]:
        return sorted((one.record.instance_id, one.record.url) for one in self.registry.catalog)

    async def stored(self) -> list[tuple[str, str]]:
        return sorted((one.record.instance_id, one.record.url) for one in (await self.store.load()).instances)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    await lab.registry.start()
    yield lab
    await lab.tasks.stop()
    await lab.registry.stop()


async def test_of_many_registrations_at_once_of_the_same_instance_one_stays(lab: Lab) -> None:
    await asyncio.gather(*(lab.register(instance_id=f"i{n % 2}") for n in range(20)))
    assert len(lab.there()) == 1
    assert await lab.stored() == lab.there()


async def test_deleting_the_url_an_instance_just_left_does_not_remove_it_at_its_new_one(lab: Lab) -> None:
    """A rescheduled instance registers from its new address while the old one says goodbye."""
    await lab.register(A, instance_id="i1")
    moving = asyncio.create_task(lab.register(B, instance_id="i1"))
    await asyncio.sleep(0)
    try:
        await lab.registry.deregister(A)
    except NotFound:
        pass  # it had moved already
    await moving
    assert lab.there() == [("i1", B)]
    assert await lab.stored() == [("i1", B)]


async def test_an_instance_that_moves_away_while_it_is_replaced_is_not_lost(lab: Lab) -> None:
    await lab.register(A, instance_id="old")
    await asyncio.gather(lab.register(A, instance_id="new"), lab.register(B, instance_id="old"))
    assert lab.there() == [("new", A), ("old", B)]
    assert await lab.stored() == [("new", A), ("old", B)]


async def test_a_replaced_instance_is_neither_checked_nor_told_any_more(lab: Lab) -> None:
    await lab.register(A, instance_id="old", required_services=("Db",))
    await lab.register(A, instance_id="new")
    assert lab.there() == [("new", A)]
    assert "old" not in lab.registry.prober._targets
    assert "old" not in lab.registry.notifier._outboxes


async def test_the_bound_on_instances_holds_for_registrations_at_once() -> None:
    small = Lab("--max-instances", "3")
    await small.registry.start()
    await asyncio.gather(*(small.register(f"{A}{n}") for n in range(10)), return_exceptions=True)
    assert len(small.there()) == 3
    await small.tasks.stop()
    await small.registry.stop()


async def test_what_could_not_be_stored_is_not_registered_and_nobody_is_told(lab: Lab) -> None:
    lab.store.error = StorageFull("no room")
    with pytest.raises(StorageFull):
        await lab.register()
    assert lab.there() == []
    assert lab.registry.store_fault() == "no room"
    lab.store.error = None
    await lab.register()
    assert len(lab.there()) == 1
    assert lab.registry.store_fault() is None


async def test_lanes_leave_nothing_behind(lab: Lab) -> None:
    await asyncio.gather(*(lab.register(f"{A}{n}") for n in range(20)))
    await asyncio.gather(*(lab.registry.deregister(f"{A}{n}") for n in range(20)))
    assert lab.registry._lanes.busy == {}


async def test_a_report_of_down_is_believed_at_once_and_one_of_up_after_a_check(lab: Lab) -> None:
    await lab.register(instance_id="i1")
    instance = lab.registry._catalog.get("i1")
    assert instance is not None
    lab.registry._catalog.passed(instance, 1.0)
    assert (await lab.registry.report("i1", StateReport(State.DOWN, "out of memory"))).reason == "out of memory"
    assert next(iter(lab.registry.catalog)).state is State.DOWN
    assert (await lab.registry.report("i1", StateReport(State.UP))).state is State.DOWN
    with pytest.raises(NotFound):
        await lab.registry.report("none", StateReport(State.DOWN))
