"""What the registry's store in NATS promises when its servers are away, slow, full or at odds."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats_lab import DROPS_CONNECTIONS, NatsServer, head, nats_servers
from nats_registry_lab import GIVE_UP_S, became, put, record, settled, stores, until
from programs import eventually

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.models import State
from pillion_common.nats_stream import EXPECTED_OF_SUBJECT, MESSAGE_ID, Overtaken
from pillion_registry.store import nats as nats_store
from pillion_registry.store.base import Remove

pytestmark = DROPS_CONNECTIONS
ELECTED_S = 15.0  # NATS takes 4 to 9 s to elect, and a busy machine more


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_servers(tmp_path) as [server]:
        yield server


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
        await until(lambda: one.store.link.down_s() > GIVE_UP_S)  # it has noticed a little later
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
        assert "and the catalogue with it" in why or why == "the catalogue's bucket is another one"  # made anew by the first that notices
        assert other.states() == {"i1": State.STARTING}  # it is not taken for a catalogue without anybody


async def test_a_bucket_that_is_put_back_is_a_reason_to_start_anew(own_server: NatsServer, tmp_path: Path) -> None:
    async with stores(own_server, give_up_s=8.0) as [one, other]:
        await one.store.commit([put(record("a"))])
        own_server.kill()
        shutil.copytree(own_server.folder / "data", tmp_path / "copy")
        own_server.start()
        await until(lambda: one.store.link.stands, 15)
        await one.store.commit([put(record("b"))])
        await one.store.commit([put(record("c"))])
        await settled(one, other)
        own_server.forget()
        shutil.copytree(tmp_path / "copy", own_server.folder / "data")
        own_server.start()
        name = one.store._services.stream.name
        async with asyncio.timeout(15):
            assert await other.store.lost() == f"the stream {name} was put back to an earlier state, and the catalogue with it"
        assert set(other.states()) == set("abc")


async def test_three_servers_outlive_their_leader(tmp_path: Path) -> None:
    with nats_servers(tmp_path, 3) as servers:
        async with stores(*servers, give_up_s=ELECTED_S) as [one, other]:
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
            assert time.monotonic() - began < ELECTED_S
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
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    for replicas, version in ((3, (2, 10, 27)), (3, (2, 11, 0)), (1, (2, 9, 10))):
        caplog.clear()
        async with stores(own_server, count=1) as [one]:
            one.store.link.place = one.store.link.place._replace(replicas=replicas)
            monkeypatch.setattr(one.store.link, "server_version", lambda version=version: version)
            await one.store._open()
        told.append(any("2.11 or newer" in record.getMessage() for record in caplog.records))
    assert told == [True, False, False]


async def test_the_bucket_is_heard_while_jetstream_has_no_leader(tmp_path: Path) -> None:
    """Where the server that leads JetStream itself is killed, and another one leads the bucket."""
    with nats_servers(tmp_path, 3) as servers:
        async with stores(*servers, give_up_s=5.0) as [one, other]:
            await one.store.commit([put(record("a"))])
            stream = one.store._services.stream
            while (await stream.lead())[0] == (first := await asyncio.to_thread(head, servers)):
                await stream.ask_api(f"STREAM.LEADER.STEPDOWN.{stream.name}", {})
                await asyncio.sleep(0.5)
            next(server for server in servers if server.name == first).kill()
            await one.store.commit([put(record("b"))])
            await settled(one, other)
            assert set(other.states()) == {"a", "b"}
