"""What the registry's store in NATS promises beside the common contract: several stores on one bucket, and servers that fail."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri
from programs import eventually

from pillion_common.errors import Conflict, StorageFull, Unavailable
from pillion_common.models import Registration, State
from pillion_common.nats_link import parse_place
from pillion_common.nats_stream import EXPECTED_OF_SUBJECT, MESSAGE_ID, Overtaken
from pillion_registry.catalog import Record
from pillion_registry.store import nats as nats_store
from pillion_registry.store.base import Hand, Put, Remove, SetState, Stored
from pillion_registry.store.mirror import News
from pillion_registry.store.nats import NatsStore

pytestmark = DROPS_CONNECTIONS

PLACE = "http://10.0.0.1:80"
GIVE_UP_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_servers(tmp_path) as [server]:
        yield server


class Opened:
    """A store that was loaded, what it was then, and the news since."""

    def __init__(self, store: NatsStore, stored: Stored) -> None:
        self.store = store
        self.stored = stored
        self.news: list[News] = []
        store.listen(self.news.append)

    def states(self) -> dict[str, State]:
        return {key: one.kept.state for key, one in self.store.mirror.instances.items()}


@asynccontextmanager
async def stores(*servers: NatsServer, count: int = 2, give_up_s: float = GIVE_UP_S) -> AsyncIterator[list[Opened]]:
    """Open some stores on one new bucket."""
    uri = store_uri(list(servers), prefix=f"t{secrets.token_hex(6)}", replicas=min(3, len(servers)))
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            store = NatsStore(parse_place(uri), give_up_s=give_up_s)
            stack.push_async_callback(store.close)
            opened.append(Opened(store, await store.load()))
        yield opened


def record(instance_id: str = "i1", generation: int = 1, url: str = "", incarnation: int | None = None, name: str = "Log") -> Record:
    given = Registration(name, url or f"{PLACE}/{instance_id}", heartbeat_url=PLACE, instance_id=instance_id, incarnation=incarnation)
    return Record(instance_id, generation, "10.0.0.9", 1000.5, given)


def put(one: Record, state: State = State.STARTING, replaced: tuple[str, ...] = ()) -> Put:
    return Put(one, state, 1000.5, replaced, 0)


def became(state: State, expected: int | None = None, firm: bool = True, instance_id: str = "i1", hidden: float | None = None) -> SetState:
    return SetState(instance_id, 1, state, "why", 2000.0, 0, hidden_until_s=hidden, expected=expected, firm=firm)


async def until(look: object, within_s: float = 5.0) -> None:
    assert callable(look)
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.01)


async def settled(*some: Opened) -> None:
    """Return when all have seen the same."""
    await until(lambda: len({one.store.mirror.revision for one in some}) == 1)


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


# Keeping it tidy.


async def test_markers_go_after_a_while_and_who_missed_them_compares(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stores(server) as [one, other]:
        await one.store.commit([put(record("a")), put(record("b"))])
        await settled(one, other)
        other.store._follower.stop()  # as if it were away
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


# Servers that fail.


async def test_while_the_server_is_away_writes_fail_in_time_and_leave_nothing(own_server: NatsServer) -> None:
    async with stores(own_server) as [one, other]:
        await one.store.commit([put(record("a")), put(record("b"))])
        own_server.kill()
        began = time.monotonic()
        changes = [put(record("c")), became(State.DOWN, instance_id="a"), became(State.DRAINING, instance_id="a"), Remove("b", 1, 0)]
        ended = await asyncio.gather(*(one.store.commit([change]) for change in changes), return_exceptions=True)
        assert time.monotonic() - began < GIVE_UP_S + 1.6
        assert [(type(exc), exc.code, exc.status) for exc in ended if isinstance(exc, Unavailable)] == [
            (Unavailable, "store_failed", 503)
        ] * 4
        assert all(isinstance(exc, Unavailable) and exc.retry_after_s for exc in ended)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="has not been reached"):
            await one.store.commit([put(record("c"))])
        assert time.monotonic() - began < 0.5  # not again so long
        assert "has not been reached" in (one.store.fault() or "")
        own_server.start()
        await until(lambda: one.store.fault() is None and other.store.fault() is None, 15)
        await asyncio.sleep(0.5)
        assert one.states() == other.states() == {"a": State.STARTING, "b": State.STARTING}
        await other.store.commit([put(record("c"))])
        await settled(one, other)
        assert set(one.states()) == {"a", "b", "c"}


async def test_a_write_waits_for_a_server_that_comes_back_in_time(own_server: NatsServer) -> None:
    async with stores(own_server, give_up_s=8.0) as [one, other]:
        await one.store.commit([put(record("a"))])
        own_server.kill()
        writing = asyncio.create_task(one.store.commit([put(record("b"))]))
        await asyncio.sleep(0.5)
        own_server.start()
        await writing
        await settled(one, other)
        assert set(other.states()) == {"a", "b"}


@pytest.mark.parametrize("pause_s", [1.0, 2.0])
async def test_a_write_to_a_slow_server_succeeds_once(own_server: NatsServer, pause_s: float) -> None:
    async with stores(own_server, give_up_s=6.0) as [one, other]:
        await one.store.commit([put(record("a"))])
        own_server.send(signal.SIGSTOP)
        try:
            writing = [
                asyncio.create_task(one.store.commit([put(record("b"))])),
                asyncio.create_task(one.store.commit([became(State.DOWN, instance_id="a")])),
            ]
            await asyncio.sleep(pause_s)
        finally:
            own_server.send(signal.SIGCONT)
        await asyncio.gather(*writing)
        await asyncio.sleep(0.3)
        await settled(one, other)
        assert sorted(news.instance_id for news in other.news) == ["a", "a", "b"]


async def test_a_full_bucket_is_told_with_what_to_do_and_nothing_is_lost(own_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_store, "CATALOG_BYTES", 4096)
    async with stores(own_server) as [one, other]:
        kept, full = 0, None
        while full is None and kept < 100:
            try:
                await one.store.commit([put(record(f"i{kept}"))])
                kept += 1
            except StorageFull as exc:
                full = exc
        assert full is not None
        assert kept > 3
        assert full.status == 507
        assert full.message == "NATS has no room: maximum bytes exceeded; give its stream or its disk more"
        await settled(one, other)
        assert len(other.states()) == kept
        assert one.store.fault() is None
        await other.store.commit([Remove("i0", 1, 0)])  # which makes room
        await one.store.commit([became(State.UP, instance_id="i1")])


async def test_a_bucket_that_is_deleted_is_a_reason_to_start_anew(own_server: NatsServer) -> None:
    async with stores(own_server) as [one, other]:
        await one.store.commit([put(record())])
        await settled(one, other)
        await one.store.link.jetstream().delete_stream(one.store._services.stream.name)
        async with asyncio.timeout(15):
            why = await other.store.lost()
        assert "the catalogue is lost" in why or why == "the catalogue's bucket is another one"  # made anew by the first that notices
        assert other.states() == {"i1": State.STARTING}  # it is not taken for a catalogue without anybody


async def test_three_servers_outlive_their_leader(tmp_path: Path) -> None:
    with nats_servers(tmp_path, 3) as servers:
        async with stores(*servers, give_up_s=10.0) as [one, other]:
            refused = {MESSAGE_ID: "x", EXPECTED_OF_SUBJECT: "99"}
            for _ in range(2):  # sent again, some servers answer as if it had been kept
                with pytest.raises(Overtaken):
                    await one.store._services.stream.send(one.store._services._subject("x"), b"{}", refused, 2.0)
            await one.store.commit([put(record("a"))])
            info = await one.store.link.jetstream().stream_info(one.store._services.stream.name)
            assert info.cluster is not None
            leader = next(server for server in servers if server.name == info.cluster.leader)
            leader.kill()
            began = time.monotonic()
            await one.store.commit([put(record("b"))])
            assert time.monotonic() - began < 10
            await other.store.commit([became(State.UP, instance_id="a")])
            await until(lambda: one.states() == other.states() == {"a": State.UP, "b": State.STARTING})
            leader.start()
            eventually(leader.is_ready, 20)
            await one.store.commit([Remove("b", 1, 0)])
            await until(lambda: one.states() == other.states() == {"a": State.UP})


async def test_the_bucket_of_what_dependents_know_is_made_anew_when_somebody_deletes_it(own_server: NatsServer) -> None:
    async with stores(own_server, count=1) as [one]:
        await one.store.link.jetstream().delete_stream(one.store.known.stream.name)
        with pytest.raises(Unavailable):
            await one.store.known.put("i1", b"{}", 0, 0.1)
        await one.store._tidy()
        assert await one.store.known.put("i1", b"{}", 0, 1.0) == 1


async def test_a_cluster_of_servers_that_may_not_agree_is_told_of(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    for replicas, version in ((3, (2, 10, 27)), (3, (2, 11, 0)), (1, (2, 9, 10))):
        caplog.clear()
        async with stores(server, count=1) as [one]:
            one.store.link.place = one.store.link.place._replace(replicas=replicas)
            monkeypatch.setattr(one.store.link, "server_version", lambda version=version: version)
            await one.store._open()
        told.append(any("2.11 or newer" in record.getMessage() for record in caplog.records))
    assert told == [True, False, False]
