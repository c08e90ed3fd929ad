"""Syslog on loopback, and when the spool is brought to the disk."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pillion_common.config import Address
from pillion_common.errors import StorageFull, Unavailable
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.sources.syslog import SyslogListener
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.logs.sync import SpoolSync


class Bench:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool", 1 << 20, boot=lambda: "")
        maker = EntryMaker("A", lambda: "A-1", lambda: 1_769_860_800.0)
        self.listener = SyslogListener(maker, Sink(self.spool, lambda: None), lambda: 1_769_860_800.0, lambda _: 0.0)
        self.where = ("", 0)

    async def listen(self) -> None:
        host, _, port = (await self.listener.listen(Address("127.0.0.1", 0))).removeprefix("syslog://").rpartition(":")
        self.where = host, int(port)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in self.spool.peek(1000, 1 << 20)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.listen()
    yield made
    made.listener.close()
    await asyncio.sleep(0.01)
    made.spool.close()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(3):
        while not look():
            await asyncio.sleep(0.005)


async def test_a_datagram_is_an_entry(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b'<11>1 2026-10-11T22:14:15.003Z web1 shop 8710 ID47 [ex@1 user="eve"][Gap x="1"] it fails', bench.where)
        await until(lambda: bench.spool.waiting)
    assert bench.entries() == [
        {
            "Time": "2026-10-11T22:14:15.003Z",
            "Service": "A",
            "Instance": "A-1",
            "Level": "error",
            "Message": "it fails",
            "Host": "web1",
            "App": "shop",
            "Process": "8710",
            "Kind": "ID47",
            "ex@1": {"user": "eve"},
            "Source": bench.spool.source,
            "Seq": 1,
        }
    ]


async def test_a_connection_carries_many_and_its_end_ends_the_last(bench: Bench) -> None:
    _, writer = await asyncio.open_connection(*bench.where)
    writer.write(b"<14>one\n9 <14>two\nx<14>three")
    writer.close()
    await until(lambda: bench.spool.waiting == 3)
    assert [entry["Message"] for entry in bench.entries()] == ["one", "two\nx", "three"]


async def test_a_message_that_is_too_long_is_cut(bench: Bench) -> None:
    _, writer = await asyncio.open_connection(*bench.where)
    writer.write(b"<14>" + b"x" * 100_000 + b"\n<14>next\n")
    writer.close()
    await until(lambda: bench.spool.waiting == 2)
    long, after = bench.entries()
    assert long["Message"].endswith(f"…[cut: {long['Cut']} bytes]")
    assert after["Message"] == "next"


async def test_what_the_disk_does_not_take_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, writer = await asyncio.open_connection(*bench.where)
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise StorageFull("full")

        patched.setattr(bench.spool, "append_all", full)
        writer.write(b"<14>one\n<14>two\n")
        await until(lambda: bench.spool.next_seq == 3)
    writer.write(b"<14>three\n")
    await until(lambda: bench.spool.waiting == 1)
    writer.close()
    assert [(entry["Seq"], entry.get("Gap")) for entry in bench.entries()] == [(2, 2), (3, None)]


async def test_a_port_that_is_taken_is_told(bench: Bench) -> None:
    other = SyslogListener(EntryMaker("A", str, float), Sink(bench.spool, lambda: None))
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:\d+ for syslog: address already in use"):
        await other.listen(Address(*bench.where))


# Syncs.


async def test_all_who_wait_are_synced_in_one_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    sync = SpoolSync(bench.spool)
    bench.spool.append({"Message": "a"})
    await asyncio.gather(*(sync.settle() for _ in range(50)))
    assert len(calls) <= 2


async def test_after_a_failed_sync_nothing_is_acknowledged_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SpoolSync(bench.spool)
    await sync.settle()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(Unavailable, match="Input/output error; check the disk"):
            await sync.settle()
    tried: list[int] = []
    monkeypatch.setattr(os, "fdatasync", tried.append)
    with pytest.raises(Unavailable):
        await sync.settle()
    assert not tried, "a kernel that has told of a failed write once would say now that all is well"
