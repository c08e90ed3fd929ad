"""Registries that are told late what the others have written: what is decided on what is outdated by then is decided anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers
from nats_registry_lab import PLACE, became, put, record, settled, stores, until

from pillion_common.config import load
from pillion_common.models import DrainRequest, Registration, State
from pillion_common.nats_link import NatsPlace
from pillion_common.tasks import Supervisor
from pillion_registry.catalog import Record
from pillion_registry.dependent import Dependent, fresh
from pillion_registry.settings import Settings
from pillion_registry.shared_registry import SharedRegistry
from pillion_registry.store.base import Hand, Outdated, Remove
from pillion_registry.store.nats import NatsStore
from pillion_registry.store.nats_bucket import Entry

pytestmark = DROPS_CONNECTIONS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


def delay(store: NatsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell a store nothing until it asks the bucket what an instance is, and then all, before it has the answer."""
    feed, get = store._feed, store._services.get
    take: Callable[..., None] = feed._take
    held: list[object] = []
    monkeypatch.setattr(feed, "_take", held.append)

    async def asked(key: str) -> Entry | None:
        entry = await get(key)
        monkeypatch.setattr(feed, "_take", take)
        for message in held:
            take(message)
        held.clear()
        return entry

    monkeypatch.setattr(store._services, "get", asked)


async def test_what_was_decided_holds_only_for_the_revision_it_was_decided_on(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record())])
        await settled(one, other)
        seen = one.store.mirror.revision_of("i1")
        assert await one.store.confirm("i1", seen)
        delay(one.store, monkeypatch)
        await other.store.commit([became(State.UP)])
        assert not await one.store.confirm("i1", seen)
        assert await one.store.confirm("i1", one.store.mirror.revision_of("i1"))


async def test_who_has_registered_anew_is_not_taken_for_gone(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record())])
        await one.store.commit([Remove("i1", 1, 0, Hand("left"), "deregistered", firm=True)])
        await settled(one, other)
        delay(one.store, monkeypatch)
        await other.store.commit([put(record(generation=2))])
        with pytest.raises(Outdated):
            await one.store.commit([Remove("i1", 1, 0, Hand("left"), "deregistered", firm=True)])


@asynccontextmanager
async def registry_on(place: NatsPlace) -> AsyncIterator[tuple[SharedRegistry, NatsStore]]:
    """Run a registry in this process."""
    tasks, store = Supervisor(), NatsStore(place)
    registry = SharedRegistry(load(Settings, "registry", ["--store", "nats://nats", "--log-to", ""], {}), store, None, tasks)
    await registry.start()
    try:
        yield registry, store
    finally:
        await registry.stop()
        await tasks.stop()


async def test_a_drain_counts_though_the_instance_drained_when_it_was_asked_for(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had registered anew meanwhile, elsewhere; the drain was acknowledged, and forgotten."""
    async with stores(server, count=1) as [other]:
        await other.store.commit([put(record())])
        await other.store.commit([became(State.DRAINING)])
        async with registry_on(other.store.link.place) as (registry, store):
            delay(store, monkeypatch)
            await other.store.commit([put(record(generation=2, incarnation=2))])
            assert (await registry.drain("i1", DrainRequest(timeout=0))).state == State.DRAINING


async def test_one_that_somebody_had_between_leaves_nothing_under_way(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each drain waits for it, when it goes to another registry before it was taken over anew."""

    async def taken(*_: object) -> None:
        assert registry.notifier.standing("i1") is None

    async def overtaken() -> bool:
        return False

    given = Registration("Shop", PLACE, ("Db",), PLACE, PLACE, instance_id="i1")
    async with stores(server, count=1) as [other], registry_on(other.store.link.place) as (registry, _):
        monkeypatch.setattr(registry, "_take_over", taken)
        one = Record("i1", 1, "10.0.0.9", 1000.5, given)
        await other.store.commit([put(one)])
        await until(lambda: registry.catalog.get("i1") is not None)
        registry.notifier.watch(one)
        assert registry.notifier.standing("i1") is not None
        classic = Dependent("i1", 1, ("Db",), True, fresh(("Db",), True))
        await registry._kept(classic, overtaken(), lambda _: pytest.fail("it is not kept"))
        assert registry.notifier.standing("i1") is None
