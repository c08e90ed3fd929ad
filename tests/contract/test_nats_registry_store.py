"""What the registry's store in NATS promises beside the common contract: several stores on one bucket, and servers that fail."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri
from nats_registry_lab import PLACE, became, put, record, settled, stores, until

from pillion_common.errors import Conflict
from pillion_common.models import State
from pillion_common.nats_link import parse_place
from pillion_registry.store import nats as nats_store
from pillion_registry.store.base import Hand, Put, Remove
from pillion_registry.store.feed import Feed
from pillion_registry.store.nats import NatsStore
from pillion_registry.store.nats_bucket import Entry

pytestmark = DROPS_CONNECTIONS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


# Several stores on one bucket.


async def test_what_one_keeps_the_others_are_told_with_the_same_revision_and_who_did_it(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        assert one.stored.epoch == other.stored.epoch
        await one.store.commit([Put(record(), State.UP, 7.0, (), 0, Hand("registered", "me"))])
        assert [news.instance_id for news in one.news] == ["i1"]  # before it was answered
        await one.store.commit([Remove("i1", 1, 0, Hand("left", "you"), "deregistered")])
        await until(lambda: len(other.news) == 2)
        assert one.news == other.news
        came, went = other.news
        assert came.one is not None
        assert went.gone is not None
        assert (came.one.kept.kind, came.one.kept.by) == ("registered", "me")
        assert (went.one, went.gone.reason, went.gone.kind, went.gone.by) == (None, "deregistered", "left", "you")


async def test_writers_of_the_same_instance_come_one_after_another(server: NatsServer) -> None:
    async with stores(server, count=3) as some:
        await some[0].store.commit([put(record())])
        await settled(*some)
        turns = [State.UP, State.DRAINING, State.STARTING] * 3
        await asyncio.gather(*(one.store.commit([became(state)]) for one, state in zip(some * 3, turns, strict=True)))
        await settled(*some)
        assert [one.news for one in some] == [some[0].news] * 3
        assert len(some[0].news) == 10  # each was kept, once


async def test_of_two_that_register_at_once_the_older_incarnation_is_refused(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        ended = await asyncio.gather(
            *(store.store.commit([put(record(generation=n, incarnation=n))]) for store, n in ((one, 8), (other, 7))),
            return_exceptions=True,
        )
        await settled(one, other)
        assert one.store.mirror.instances["i1"].kept.registration.incarnation == 8
        assert ended[0] is None
        if ended[1] is not None:  # it came second
            assert isinstance(ended[1], Conflict)
            assert ended[1].code == "old_incarnation"


async def test_the_later_of_two_at_one_place_has_it_and_the_other_is_deleted(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await asyncio.gather(
            one.store.commit([put(record("a", 5, PLACE))]),
            other.store.commit([put(record("b", 6, PLACE))]),
        )
        await settled(one, other)
        assert set(one.states()) == set(other.states()) == {"b"}
        await one.store._tidy()
        await settled(one, other)
        assert (one.store.mirror.losers, other.store.mirror.losers) == ({}, {})
        assert set(other.store.mirror.marks) == {"a"}


async def test_what_a_registration_replaces_is_gone_for_all(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record("a", 5, PLACE))])
        await settled(one, other)
        await other.store.commit([put(record("b", 6, PLACE), replaced=("a",))])
        await settled(one, other)
        assert set(one.states()) == {"b"}
        assert one.store.mirror.losers == {}
        assert [(news.instance_id, news.replaced) for news in one.news] == [("a", ()), ("b", ("a",))]


async def test_a_state_that_a_check_found_does_not_take_a_drains_place(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record())])
        await settled(one, other)
        found = became(State.UP, one.store.mirror.revision_of("i1"), firm=False)
        await asyncio.gather(one.store.commit([became(State.DRAINING)]), one.store.commit([found]))  # behind it, here
        await settled(one, other)
        assert one.states() == {"i1": State.DRAINING}
        await one.store.commit([became(State.STARTING)])
        await settled(one, other)
        found = became(State.UP, one.store.mirror.revision_of("i1"), firm=False)
        await other.store.commit([became(State.DRAINING)])  # beside it, there
        await one.store.commit([found])
        await settled(one, other)
        assert one.states() == other.states() == {"i1": State.DRAINING}


async def test_a_report_of_down_does_not_take_a_drains_place(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record(), State.UP)])
        await settled(one, other)
        await asyncio.gather(one.store.commit([became(State.DRAINING)]), other.store.commit([became(State.DOWN)]))
        await settled(one, other)
        assert one.states() == {"i1": State.DRAINING}


async def test_registering_again_ends_neither_a_drain_nor_a_hiding_of_the_same_process(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record(incarnation=3))])
        await one.store.commit([became(State.DRAINING, hidden=9000.0)])
        await settled(one, other)
        await other.store.commit([put(record(generation=2, incarnation=3), State.UP)])
        kept = other.store.mirror.instances["i1"].kept
        assert (kept.generation, kept.state, kept.hidden_until) == (2, State.DRAINING, 9000.0)
        await other.store.commit([put(record(generation=3, incarnation=4), State.STARTING)])
        kept = other.store.mirror.instances["i1"].kept
        assert (kept.state, kept.hidden_until) == (State.STARTING, None)


async def test_a_late_word_about_an_earlier_registration_changes_nothing(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record(generation=1))])
        await settled(one, other)
        await asyncio.gather(one.store.commit([put(record(generation=2))]), other.store.commit([Remove("i1", 1, 0)]))
        await settled(one, other)
        assert one.store.mirror.has("i1", 2) == other.store.mirror.has("i1", 2)
        await other.store.commit([became(State.DOWN), Remove("i1", 1, 0)])
        await settled(one, other)
        assert one.states() in ({"i1": State.STARTING}, {})


# Hearing of it.


async def test_nobody_needs_a_consumer(server: NatsServer) -> None:
    """Which cannot be made while JetStream elects its own leader."""
    async with stores(server) as [one, other]:
        await one.store.commit([put(record())])
        await settled(one, other)
        info = await one.store.link.jetstream().stream_info(one.store._services.stream.name)
        assert info.state.consumer_count == 0


@pytest.mark.parametrize("share", [0.0, 0.5])
async def test_what_is_not_told_is_read(server: NatsServer, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    hear, chance = Feed._hear, random.Random(7)

    def lossy(feed: Feed, entry: Entry) -> None:
        if chance.random() < share:
            hear(feed, entry)

    monkeypatch.setattr(Feed, "_hear", lossy)
    async with stores(server) as [one, other]:
        for generation in range(1, 6):
            await asyncio.gather(*(one.store.commit([put(record(key, generation))]) for key in "abcdef"))
        await one.store.commit([Remove("a", 5, 0)])
        await settled(one, other)
        assert set(one.states()) == set(other.states()) == set("bcdef")
        assert all(other.store.mirror.has(key, 5) for key in "bcdef")


async def test_a_bucket_of_an_earlier_build_is_brought_up_to_date(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record())])
        stream = one.store._services.stream
        config = dataclasses.replace(stream._config, republish=None)
        await one.store.link.jetstream().update_stream(config)
        assert (await one.store.link.jetstream().stream_info(stream.name)).config.republish is None
        third = NatsStore(one.store.link.place)
        await third.load()
        try:
            assert (await one.store.link.jetstream().stream_info(stream.name)).config.republish is not None
        finally:
            await third.close()
        await settled(one, other)


# Keeping it tidy.


async def test_markers_go_after_a_while_and_who_missed_them_compares(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record("a")), put(record("b"))])
        await settled(one, other)
        other.store._feed.stop()  # as if it were away
        await until(lambda: other.store._following is not None and other.store._following.done())
        await one.store.commit([Remove("a", 1, 0)])
        monkeypatch.setattr(nats_store, "MARK_S", 0.0)
        await one.store._tidy()
        assert await one.store._services.keys() == ["b"]
        assert one.store.mirror.marks == {}
        assert set(other.states()) == {"a", "b"}
        await other.store._compare()
        assert set(other.states()) == {"b"}
        assert (other.news[-1].instance_id, other.news[-1].one) == ("a", None)


async def test_a_deleted_instance_comes_again_with_or_without_its_marker(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stores(server) as [one, other]:
        for generation in (1, 2, 3):
            await one.store.commit([put(record(generation=generation))])
            await one.store.commit([Remove("i1", generation, 0)])
            if generation == 2:
                monkeypatch.setattr(nats_store, "MARK_S", 0.0)
                await one.store._tidy()
        await settled(one, other)
        await other.store.commit([put(record(generation=4))])  # which still believes in the marker
        await settled(one, other)
        assert one.store.mirror.has("i1", 4)


async def test_a_value_that_is_none_of_ours_is_passed_over(server: NatsServer) -> None:
    async with stores(server) as [one, other]:
        await one.store._services.set("strange", b"hello")
        await one.store.commit([put(record())])
        await settled(one, other)
        assert set(other.states()) == {"i1"}
        assert other.store.fault() is None
        await other.store.commit([put(record("strange"))])  # it registers again
        await one.store._services.set("i1", b"{}")
        await other.store.reached(one.store.mirror.revision)
        await other.store.commit([became(State.DOWN)])
        await settled(one, other)
        assert one.states() == other.states() == {"i1": State.DOWN, "strange": State.STARTING}


async def test_who_comes_later_has_the_same(server: NatsServer) -> None:
    uri = store_uri([server], prefix=f"t{secrets.token_hex(6)}")
    async with AsyncExitStack() as stack:
        first = NatsStore(parse_place(uri))
        stack.push_async_callback(first.close)
        await first.load()
        await first.commit([put(record(f"i{number}", number)) for number in range(1, 41)])
        await first.commit([Remove(f"i{number}", number, 0) for number in range(1, 11)])
        second = NatsStore(parse_place(uri))
        stack.push_async_callback(second.close)
        stored = await second.load()
        assert [one.record.instance_id for one in stored.instances] == [f"i{number}" for number in range(11, 41)]
        assert stored.revision == first.mirror.revision
