"""What the log's NATS store promises besides what every store does: several log services on one stream, and servers that fail."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import DiscardPolicy
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri

from pillion_common import nats_follower
from pillion_common.errors import StorageFull, Unavailable
from pillion_common.nats_link import parse_place
from pillion_log.entries import Run, from_line
from pillion_log.store import nats_store, nats_writer
from pillion_log.store.base import CHECK, Appended, Block
from pillion_log.store.files import FileOptions
from pillion_log.store.nats_store import NatsStore

pytestmark = DROPS_CONNECTIONS

NOW = "2026-01-31T12:00:00.123Z"
OPTIONS = FileOptions(max_bytes=64 << 20, max_age_s=100 * 365 * 86400.0)
LONG_S = 40.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


@pytest.fixture
def uri(server: NatsServer) -> str:
    return store_uri([server], prefix=f"p{secrets.token_hex(4)}")


@asynccontextmanager
async def opened(uri: str, options: FileOptions = OPTIONS, give_up_s: float = 8.0) -> AsyncIterator[NatsStore]:
    store = NatsStore(parse_place(uri), options, give_up_s=give_up_s)
    await store.load()
    await until(lambda: store.fault() is None)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def stream(uri: str) -> AsyncIterator[tuple[nats.NATS, str]]:
    """Yield a client and the name of the store's stream: an operator's view."""
    place = parse_place(uri)
    client = await nats.connect(list(place.servers))
    try:
        yield client, f"{place.prefix}_logs"
    finally:
        await client.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not true():
            await asyncio.sleep(0.01)


def entry(message: str, source: str = "", seq: int | None = None, service: str = "unknown") -> Run:
    more = f',"Source":"{source}","Seq":{seq}' if seq is not None else ""
    return from_line(f'{{"Message":"{message}","Service":"{service}"{more}}}'.encode(), NOW)


def append(store: NatsStore, *runs: Run) -> asyncio.Future[Appended]:
    told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    store.append(runs, lambda outcome: told.set_result(outcome) if isinstance(outcome, Appended) else told.set_exception(outcome))
    return told


async def numbered(store: NatsStore, *seqs: int, source: str = "s") -> Appended:
    return await append(store, *[entry(f"m{seq}", source, seq) for seq in seqs])


async def read(store: NatsStore) -> list[dict[str, Any]]:
    """Return all entries, oldest first."""
    return [json.loads(line) for _, data in await blocks(store) for line in data.splitlines() if not line.startswith(CHECK)]


async def blocks(store: NatsStore) -> list[tuple[int, bytes]]:
    def look() -> list[tuple[int, bytes]]:
        with store.blocks(newest_first=False) as found:
            return [(block.start, block.read()) for block in found]

    return await asyncio.to_thread(look)


async def seqs(store: NatsStore) -> list[int]:
    return [line["Seq"] for line in await read(store) if "Seq" in line]


async def placed(store: NatsStore) -> list[tuple[int, bytes]]:
    """Return each entry with its position."""
    found = []
    for start, data in await blocks(store):
        for line in data.splitlines(keepends=True):
            found.append((start, line))
            start += len(line)
    return found


async def test_what_one_log_service_takes_in_the_others_have_at_the_same_position(uri: str) -> None:
    async with opened(uri) as one, opened(uri) as other:
        told: list[Block] = []
        other.follow(told.append)
        await append(one, entry("first"))
        await until(lambda: len(told) == 1)
        await append(other, entry("second"))
        await until(lambda: one.stats().end == other.stats().end)
        assert [line["Message"] for line in await read(one)] == ["first", "second"]
        assert await placed(one) == await placed(other)
        assert b"".join(block.read() for block in told) == entry("first").lines + entry("second").lines
        assert one.stats().services == other.stats().services
        async with opened(uri) as late:
            assert await placed(late) == await placed(one)


async def test_what_two_log_services_are_sent_at_the_same_time_is_kept_once(uri: str) -> None:
    async with opened(uri) as one, opened(uri) as other:
        answers = await asyncio.gather(
            *[numbered(store, *range(first, first + 10), source=f"s{source}") for first in range(0, 200, 10) for source in range(5)
              for store in (one, other)]
        )  # fmt: skip
        assert sum(answer.accepted for answer in answers) == 1000
        assert sum(answer.duplicates for answer in answers) == 1000
        await until(lambda: one.stats().end == other.stats().end)
        lines = await read(one)
        assert sorted((line["Source"], line["Seq"]) for line in lines) == [(f"s{source}", seq) for source in range(5) for seq in range(200)]
        assert await placed(one) == await placed(other)


async def test_one_who_writes_much_does_not_keep_the_other_waiting(uri: str) -> None:
    async with opened(uri) as busy, opened(uri) as other:
        going = True

        async def write() -> None:
            while going:
                await asyncio.gather(*[append(busy, *[entry("x" * 500)] * 100) for _ in range(10)])

        writers = [asyncio.create_task(write()) for _ in range(4)]
        answers = [await append(other, entry("y")) for _ in range(20)]
        going = False
        await asyncio.gather(*writers)
        assert answers == [Appended(1, 0)] * 20


async def test_a_restart_begins_with_a_checkpoint_and_knows_all(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_writer, "CHECKPOINT_MESSAGES", 10)
    async with opened(uri) as store:
        for seq in range(45):
            await append(store, entry(f"m{seq}", "s", seq, f"S{seq % 3}"))
        before, stats = await placed(store), store.stats()
    read_again: list[int] = []
    learn = nats_store.Sources.learn
    monkeypatch.setattr(nats_store.Sources, "learn", lambda self, data: (read_again.append(1), learn(self, data)))
    async with opened(uri) as store:
        assert len(read_again) < 11
        assert store.stats().services == stats.services
        assert (store.stats().oldest, store.stats().end) == (stats.oldest, stats.end)
        assert await placed(store) == before
        assert await numbered(store, 43, 44, 45) == Appended(1, 2)


async def test_sources_are_known_when_their_entries_are_gone(uri: str) -> None:
    async with opened(uri, FileOptions(max_bytes=512 << 10, max_age_s=1e9, packs=False)) as store:
        await numbered(store, 1, 2, 3, source="quiet")
        while store.stats().oldest == 0:
            await append(store, *[entry(secrets.token_hex(400)) for _ in range(20)])
        positions = [start for start, _ in await blocks(store)]
        assert store.stats().removed_segments > 0
        assert positions[0] == store.stats().oldest > 0
        assert 200 << 10 < sum(len(data) for _, data in await blocks(store)) < 600 << 10
        assert await numbered(store, 3, 4, source="quiet") == Appended(1, 1)


async def test_positions_go_on_where_all_entries_are_gone(uri: str) -> None:
    async with opened(uri) as store:
        await append(store, entry("one"))
        end = store.stats().end
    async with stream(uri) as (client, name):
        await client.jetstream().purge_stream(name)
    async with opened(uri) as one, opened(uri) as other:
        assert (one.stats().services, one.stats().oldest == one.stats().end > end) == ({}, True)
        await append(one, entry("two"))
        await until(lambda: one.stats().end == other.stats().end)
        [(position, line)] = await placed(other)
        assert (position >= end, line) == (True, entry("two").lines)
        assert await placed(one) == [(position, line)]


async def test_messages_of_others_are_passed_over_and_counted(uri: str) -> None:
    async with opened(uri) as store:
        await append(store, entry("one"))
        async with stream(uri) as (client, name):
            subject = f"{name.removesuffix('_logs')}.logs.Stranger"
            await client.jetstream().publish(subject, b"hello")
            await client.jetstream().publish(subject, b"hello", headers={"Pillion-Start": "77", "Pillion-Bytes": "12"})
        await append(store, entry("two"))
        assert [line["Message"] for line in await read(store)] == ["one", "two"]
        assert store.stats().damaged == 2
    async with opened(uri) as store:
        assert [line["Message"] for line in await read(store)] == ["one", "two"]


async def test_an_append_that_is_too_large_for_a_message_is_kept_in_several(uri: str) -> None:
    async with opened(uri) as store:
        many = [entry(secrets.token_hex(500)) for _ in range(2500)]
        run = Run(b"".join(one.lines for one in many), len(many), "", (), "unknown", NOW)
        assert await append(store, run, entry("last")) == Appended(2501, 0)
        assert len(await read(store)) == 2501
        async with stream(uri) as (client, name):
            assert (await client.jetstream().stream_info(name)).state.messages >= 3


async def test_large_messages_are_followed_a_few_at_a_time(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_follower, "BATCH_BYTES", 2 << 20)
    async with opened(uri) as store:
        for number in range(9):
            await append(store, *[entry(secrets.token_hex(1000), "s", 300 * number + line) for line in range(300)])
        began = asyncio.get_running_loop().time()
        async with opened(uri) as late:
            assert asyncio.get_running_loop().time() - began < LONG_S / 4
            assert await seqs(late) == list(range(2700))


async def test_the_subject_names_the_service_if_all_entries_are_of_one(uri: str) -> None:
    async with opened(uri) as store:
        await append(store, entry("m", service="Grading.Service"))
        await append(store, entry("m", service="A"), entry("m", service="B"))
        async with stream(uri) as (client, name):
            prefix = name.removesuffix("_logs")
            found = [await client.jetstream().get_msg(name, seq) for seq in (1, 2)]
            assert [message.subject for message in found] == [f"{prefix}.logs.Grading=2EService", f"{prefix}.logs.=mixed"]


async def test_a_stream_that_takes_no_more_is_told_as_full_and_written_to_again_when_it_does(uri: str) -> None:
    async with opened(uri) as store, stream(uri) as (client, name):
        await numbered(store, 1)
        config = (await client.jetstream().stream_info(name)).config
        await client.jetstream().update_stream(config.evolve(discard=DiscardPolicy.NEW, max_bytes=1))
        with pytest.raises(StorageFull) as refusal:
            await numbered(store, 2)
        assert (refusal.value.status, refusal.value.retry_after_s) == (507, 2)
        assert "no room" in (store.fault() or "")
        assert await seqs(store) == [1]
        with pytest.raises(StorageFull):
            await numbered(store, 2)
        await client.jetstream().update_stream(config)
        await until(lambda: store.fault() is None)
        assert await numbered(store, 1, 2) == Appended(1, 1)
        assert await seqs(store) == [1, 2]


async def test_too_much_waiting_is_refused_at_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_store, "MAX_WAITING_BYTES", 500)
    async with opened(uri) as store:
        answers = await asyncio.gather(*[append(store, entry("x" * 200)) for _ in range(5)], return_exceptions=True)
        assert [type(answer) for answer in answers] == [Appended, Unavailable, Unavailable, Unavailable, Unavailable]
        assert await append(store, entry("again")) == Appended(1, 0)


async def test_what_was_appended_before_close_is_answered_and_nothing_afterwards(uri: str) -> None:
    async with opened(uri) as store:
        waiting = [append(store, entry(f"m{number}")) for number in range(100)]
        await store.close()
        assert await asyncio.gather(*waiting) == [Appended(1, 0)] * 100
        with pytest.raises(Unavailable):
            await append(store, entry("late"))


async def test_a_stream_that_was_removed_ends_the_store_for_good(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_store, "LOOK_EVERY_S", 0.1)
    async with opened(uri) as store, stream(uri) as (client, name):
        await append(store, entry("one"))
        lost = asyncio.create_task(store.lost())
        await asyncio.sleep(0.3)
        assert not lost.done()
        await client.jetstream().delete_stream(name)
        assert "is not there any more" in await asyncio.wait_for(lost, LONG_S)
        assert store.fault() == lost.result()


# Servers that fail: each test has its own.


async def test_a_store_whose_servers_start_later_says_so_and_becomes_ready_by_itself(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as [server]:
        server.kill()
        store = NatsStore(parse_place(store_uri([server])), OPTIONS)
        await store.load()
        assert "has not been reached" in (store.fault() or "")
        with pytest.raises(Unavailable, match="has not been reached"):
            await append(store, entry("one"))
        with pytest.raises(OSError, match="has not been reached"), store.blocks():
            pass
        server.start()
        await until(lambda: store.fault() is None)
        assert await append(store, entry("one")) == Appended(1, 0)
        await store.close()


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_nothing_is_acknowledged_while_the_server_is_away_and_all_goes_on_when_it_is_back(tmp_path: Path, how: str) -> None:
    with nats_servers(tmp_path) as [server]:
        async with opened(store_uri([server]), give_up_s=2.0) as store:
            told: list[Block] = []
            store.follow(told.append)
            await numbered(store, 1)
            if how == "killed":
                server.kill()
            else:
                server.send(signal.SIGSTOP)
            with pytest.raises(Unavailable) as refusal:
                await numbered(store, 2)
            assert (refusal.value.status, refusal.value.retry_after_s) == (503, 2)
            await until(lambda: "has not been reached" in (store.fault() or ""))
            with pytest.raises(Unavailable):
                await numbered(store, 2)
            with pytest.raises(OSError, match="has not been reached"):
                await read(store)
            assert store.stats().services["unknown"].lines == 1
            if how == "killed":
                server.start()
            else:
                server.send(signal.SIGCONT)
            await until(lambda: store.fault() is None)
            answer = await numbered(store, 1, 2)
            assert answer.accepted + answer.duplicates == 2
            assert await seqs(store) == [1, 2]
            assert b"".join(block.read() for block in told).count(b'"Seq"') == 2


async def test_each_of_three_servers_may_be_killed_in_turn(tmp_path: Path) -> None:
    with nats_servers(tmp_path, 3) as servers:
        uri = store_uri(servers)
        async with opened(uri) as one, opened(uri) as other:
            acknowledged: list[int] = []
            await keep_on(one, other, servers, acknowledged)
            await until(lambda: one.fault() is None and other.fault() is None)
            await numbered(one, len(acknowledged) + 1)
            await until(lambda: one.stats().end == other.stats().end)
            assert await seqs(one) == list(range(1, len(acknowledged) + 2))
            assert await placed(one) == await placed(other)


async def keep_on(one: NatsStore, other: NatsStore, servers: Sequence[NatsServer], acknowledged: list[int]) -> None:
    """Send numbered entries, now to the one and then to the other, until each server was away once."""
    going = True

    async def write() -> None:
        seq = 1
        while going:
            try:
                await numbered(one if seq % 2 else other, seq)
            except Unavailable:
                await asyncio.sleep(0.1)
                continue
            acknowledged.append(seq)
            seq += 1
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    for server in servers:
        before = len(acknowledged)
        server.kill()
        await until(lambda: len(acknowledged) > before + 20)  # noqa: B023
        server.start()
        await until(server.is_ready)
    going = False
    await writing
