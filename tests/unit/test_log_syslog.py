"""Which entries syslog messages become, and that none is lost on the way: the store may be slow, full, or away for a while."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pillion_common.config import Address
from pillion_common.errors import StorageFull
from pillion_common.networks import LOOPBACK, PRIVATE
from pillion_log.entries import Run
from pillion_log.intake import Intake
from pillion_log.store.base import Appended, Done, ServiceCount
from pillion_log.store.memory import MemoryStore
from pillion_log.syslog import outbox, service, tcp, udp
from pillion_log.syslog.reading import Reading
from pillion_log.syslog.service import SyslogService

NOW_S = 1769860800.123  # 2026-01-31T12:00:00.123Z
NOW = "2026-01-31T12:00:00.123Z"


class MoodyStore(MemoryStore):
    """A store that answers when it is told to, or that it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.slow = False
        self.held: list[tuple[Sequence[Run], Done]] = []
        self.tries = 0

    def append(self, runs: Sequence[Run], done: Done) -> None:
        self.tries += 1
        if self.full:
            done(StorageFull("the disk is full"))
        elif self.slow:
            self.held.append((runs, done))
        else:
            super().append(runs, done)

    def go_on(self) -> None:
        self.slow = False
        held, self.held = self.held, []
        for runs, done in held:
            self.append(runs, done)

    def entries(self) -> list[dict[str, Any]]:
        with self.blocks() as blocks:
            return [json.loads(line) for block in reversed(list(blocks)) for line in block.read().splitlines()]

    def messages(self) -> list[str]:
        return [entry["Message"] for entry in self.entries()]


def read(data: bytes, peer: str = "10.0.0.9", missing: int = 0, offset_s: float = 0.0) -> dict[str, Any]:
    intake = Intake(MemoryStore(), clock=lambda: NOW_S)
    run = Reading(intake, lambda: NOW_S, lambda now_s: offset_s).read(data, peer, missing)
    found: dict[str, Any] = json.loads(run.lines)
    return found


@asynccontextmanager
async def serving(store: MoodyStore, networks: Any = LOOPBACK) -> AsyncIterator[tuple[SyslogService, tuple[str, int]]]:
    syslog = SyslogService(Intake(store), networks)
    address = await syslog.listen(Address("127.0.0.1", 0))
    try:
        yield syslog, ("127.0.0.1", int(address.rpartition(":")[2]))
    finally:
        await syslog.close(0.2)


async def until(true: Callable[[], object], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(where: tuple[str, int]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*where)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def say(where: tuple[str, int], data: bytes) -> None:
    async with connected(where) as (_, writer):
        writer.write(data)


def test_message_of_rfc_5424_becomes_an_entry_with_all_it_says() -> None:
    assert read(
        b'<165>1 2026-01-31T13:59:59.5+02:00 web1 shop 8710 ID47 [ex@32473 user="eve \\"x\\""][Gap n="1"] \xef\xbb\xbfit works\n'
    ) == {
        "Time": "2026-01-31T11:59:59.500Z",
        "Received": NOW,
        "Service": "shop",
        "Level": "info",
        "Message": "it works",
        "Instance": "web1",
        "Facility": 20,
        "Process": "8710",
        "Kind": "ID47",
        "ex@32473": {"user": 'eve "x"'},
        "Gap_": {"n": "1"},
    }


def test_message_of_rfc_3164_has_the_year_that_is_nearest_and_the_zone_of_this_machine() -> None:
    entry = read(b"<34>Dec 31 23:14:15 web1 su[230]: 'su root' failed", offset_s=3600.0)
    assert (entry["Time"], entry["Service"], entry["Instance"], entry["Level"], entry["Process"], entry["Message"]) == (
        "2025-12-31T22:14:15.000Z", "su", "web1", "error", "230", "'su root' failed"
    )  # fmt: skip


def test_app_name_that_is_no_service_name_becomes_one_and_stands_beside_it() -> None:
    entry = read(b"<14>1 - - my/app.py - - - m")
    assert (entry["Service"], entry["App"], entry["Instance"], entry["Time"]) == ("my-app.py", "my/app.py", "10.0.0.9", NOW)


@pytest.mark.parametrize(
    "data", [b"no header at all", b"<999>1 - - - - - - m", b"<5", b"\xff\xfe\x00", b'{"Service":"Bank","Message":"paid"}']
)
def test_what_cannot_be_read_is_a_message_of_service_unknown_and_counted(data: bytes) -> None:
    reading = Reading(Intake(MemoryStore()))
    entry = json.loads(reading.read(data, "10.0.0.9").lines)
    assert (entry["Service"], entry["Message"]) == ("unknown", data.rstrip(b"\0").decode("utf-8", "replace"))
    assert reading.headless == 1


def test_messages_without_a_header_are_told_of_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading(Intake(MemoryStore()))
    for _ in range(150):
        reading.read(b"no header", "10.0.0.9")
    assert [record.message.split()[0] for record in caplog.records] == ["1", "10", "100"]


def test_frame_that_was_cut_says_so() -> None:
    entry = read(b"<14>1 - - a - - - " + b"x" * 100, missing=10_420_224)
    assert (entry["Message"], entry["Cut"]) == ("x" * 100 + "…[cut: 10420224 bytes]", 10_420_224)


async def test_both_framings_of_tcp_and_datagrams_are_taken() -> None:
    store = MoodyStore()
    async with serving(store) as (_, where):
        await say(where, b"<14>1 - - a - - - one\n22 <14>1 - - a - - - tw\no<14>1 - - a - - - three")
        await until(lambda: len(store.entries()) == 3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<14>1 - - a - - - four\n", where)
        await until(lambda: len(store.entries()) == 4)
    assert store.messages() == ["one", "tw\no", "three", "four"]


async def test_sender_is_read_no_further_while_the_store_is_busy_and_nothing_is_lost() -> None:
    store = MoodyStore()
    store.slow = True
    async with serving(store) as (syslog, where), connected(where) as (_, writer):
        sending = asyncio.create_task(send_all(writer, 100_000))
        await until(lambda: store.held)
        await until(lambda: all(connection._paused for connection in syslog._connections))
        (connection,) = syslog._connections
        assert not sending.done()  # 22 MB are more than both ends hold
        assert connection._outbox._bytes < 2 * tcp.MAX_WAITING_BYTES
        store.go_on()
        await until(lambda: store.stats().services.get("a", ServiceCount()).lines == 100_000, 30.0)
        await sending
    assert [int(message.split()[0]) for message in store.messages()] == list(range(100_000))


async def send_all(writer: asyncio.StreamWriter, count: int) -> None:
    for start in range(0, count, 100):
        writer.write(b"".join(b"<14>1 - - a - - - %06d %s\n" % (number, b"x" * 200) for number in range(start, start + 100)))
        await writer.drain()


async def test_messages_wait_until_the_disk_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.01)
    store = MoodyStore()
    store.full = True
    async with serving(store) as (_, where):
        await say(where, b"<14>1 - - a - - - one\n")
        await until(lambda: store.tries > 3)
        store.full = False
        await until(lambda: store.messages() == ["one"])


async def test_datagrams_that_find_no_room_are_counted_to_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.01)
    monkeypatch.setattr(udp, "TELL_S", 0.05)
    monkeypatch.setattr(udp, "MAX_WAITING_BYTES", 4_000)
    store = MoodyStore()
    store.full = True
    async with serving(store) as (_, where):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(100):
                sender.sendto(b"<14>1 - - a - - - %d" % number, where)
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            store.full = False
            await until(lambda: any("Gap" in entry for entry in store.entries()))
    gap = store.entries()[-1]
    kept = store.messages()[:-1]
    assert kept == [str(number) for number in range(len(kept))]  # what came first was kept
    assert 10 < len(kept) < 100
    assert gap["Gap"] == 100 - len(kept)
    assert gap["Message"] == f"{gap['Gap']} datagrams of syslog are missing: they came faster than they could be stored"
    assert (gap["Service"], gap["Level"], gap["From"] <= gap["To"] <= gap["Time"]) == ("unknown", "warning", True)
    assert [record.message for record in caplog.records if "missing" in record.message] == [gap["Message"]]


def system_counts_drops() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        probe.bind(("127.0.0.1", 0))
        for _ in range(1_000):
            sender.sendto(b"x" * 100, probe.getsockname())
        try:
            return any(probe.getsockopt(socket.SOL_SOCKET, 55, 36)[32:])  # SO_MEMINFO
        except OSError:
            return False


@pytest.mark.skipif(not system_counts_drops(), reason="this system does not count what it drops (SO_MEMINFO)")
async def test_what_the_system_dropped_is_in_the_gap_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "RECEIVE_BYTES", 4_096)
    monkeypatch.setattr(udp, "TELL_S", 0.05)
    store = MoodyStore()
    async with serving(store) as (syslog, where):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(1_000):  # without a turn for the reader
                sender.sendto(b"<14>1 - - a - - - %d" % number, where)
            await until(lambda: any("Gap" in entry for entry in store.entries()))
        heard = syslog.heard()["udp"]
        assert heard.received + (heard.dropped or 0) == 1_000
    assert 1 < len(store.entries()) < 1_000
    assert sum(entry.get("Gap", 1) for entry in store.entries()) == 1_000


async def test_only_the_networks_listed_may_send(caplog: pytest.LogCaptureFixture) -> None:
    store = MoodyStore()
    async with serving(store, PRIVATE) as (syslog, where):  # without loopback
        await say(where, b"<14>1 - - a - - - m\n")
        await until(lambda: "list its network in PILLION_CLASSIC_NETWORKS" in caplog.text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<14>1 - - a - - - m", where)
        await until(lambda: syslog.heard()["udp"].refused == 1)
    assert store.entries() == []


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(service, "MAX_CONNECTIONS", 2)
    store = MoodyStore()
    async with serving(store) as (syslog, where), connected(where) as (_, first):
        first.write(b"<14>1 - - a - - - first\n")
        async with connected(where) as (_, second):
            second.write(b"<14>1 - - a - - - second\n")
            await until(lambda: len(store.entries()) == 2)
            await say(where, b"<14>1 - - a - - - third\n")
            await until(lambda: "there are 2 already" in caplog.text)
        await until(lambda: len(syslog._connections) == 1)
        await say(where, b"<14>1 - - a - - - fourth\n")
        await until(lambda: "fourth" in store.messages())
    assert "third" not in store.messages()


async def test_connection_that_says_nothing_is_closed_and_what_it_said_kept() -> None:
    store = MoodyStore()
    async with serving(store) as (syslog, where), connected(where) as (reader, writer):
        writer.write(b"<14>1 - - a - - - half")
        await until(lambda: any(one._frames._held for one in syslog._connections))
        (connection,) = syslog._connections
        now_s = asyncio.get_running_loop().time()
        connection.sweep(now_s + 599.0)
        assert store.entries() == []
        connection.sweep(now_s + 601.0)
        assert await reader.read() == b""
        await until(lambda: store.messages() == ["half"])


async def test_what_was_read_is_kept_before_the_service_ends() -> None:
    store = MoodyStore()
    store.slow = True
    async with serving(store) as (syslog, where):
        await say(where, b"<14>1 - - a - - - one\n")
        await until(lambda: store.held)
        closing = asyncio.create_task(syslog.close(5.0))
        await asyncio.sleep(0.05)
        assert not closing.done()
        store.go_on()
        await closing
    assert store.messages() == ["one"]


async def test_datagrams_that_are_there_at_the_end_are_kept_or_counted() -> None:
    store = MoodyStore()
    async with serving(store) as (_, where):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(600):  # more than are read at once
                sender.sendto(b"<14>1 - - a - - - %d" % number, where)
    if system_counts_drops():
        assert sum(entry.get("Gap", 1) for entry in store.entries()) == 600
    assert len(store.entries()) > udp.AT_ONCE


def test_appended_is_what_the_outbox_waits_for() -> None:
    store = MoodyStore()
    kept: list[bool] = []
    box = outbox.Outbox(Intake(store), 10, lambda: kept.append(box.empty))
    box.put([Run(b"{}\n")] * 4)
    assert (box.empty, box.full, kept) == (True, False, [True])
    assert Appended(4, 0).accepted == len(store.entries())
