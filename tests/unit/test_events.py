"""The event stream over a real socket: what a reader is told, when, and what a slow or gone one costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pillion_common.config import Address
from pillion_common.http.server import Server
from pillion_common.names import parse_url
from pillion_sidecar.local import events as events_module
from pillion_sidecar.local.events import Events
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Patch, Provider


class Bench:
    def __init__(self) -> None:
        self.table = ProviderTable({"Db": 1, "Mail": 0})
        self.stale = False
        self.events = Events(self.table, lambda: self.stale)
        self.port = 0

    def add(self, url: str) -> None:
        self.events.changed(self.table.apply(Patch(added=(Provider("Db", url),))))


class Reader:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.raw = reader
        self.writer = writer
        self.head = b""

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(3):
            event = (await self.raw.readuntil(b"\n\n")).decode()
        name, data = event.removesuffix("\n\n").split("\n", 1)
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def reader(bench: Bench, method: str = "GET") -> AsyncIterator[Reader]:
    raw, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(f"{method} /events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    made = Reader(raw, writer)
    made.head = await raw.readuntil(b"\r\n\r\n")
    try:
        yield made
    finally:
        writer.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    server = Server(streaming=made.events)
    made.port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port
    yield made
    made.events.close()
    await server.close(0.5)


async def test_a_stream_begins_with_everything_and_goes_on_with_what_changes(bench: Bench) -> None:
    bench.add("http://a:1")
    async with reader(bench) as stream:
        assert b"Content-Type: text/event-stream\r\n" in stream.head
        assert b"Content-Length" not in stream.head
        name, told = await stream.next()
        assert (name, told["Stale"], told["Providers"]["Mail"]) == ("snapshot", False, [])
        assert [provider["URL"] for provider in told["Providers"]["Db"]] == ["http://a:1"]
        bench.add("http://b:1")
        name, told = await stream.next()
        assert (name, told["Name"]) == ("providers", "Db")
        assert [provider["URL"] for provider in told["Providers"]] == ["http://a:1", "http://b:1"]


async def test_a_change_is_told_at_once(bench: Bench) -> None:
    async with reader(bench) as stream:
        await stream.next()
        began = asyncio.get_running_loop().time()
        bench.add("http://b:1")
        await stream.next()
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_the_registrys_absence_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "TICK_S", 0.02)
    async with reader(bench) as stream:
        await stream.next()
        bench.stale = True
        assert await stream.next() == ("registry", {"Stale": True})
        bench.stale = False
        assert await stream.next() == ("registry", {"Stale": False})


async def test_a_quiet_stream_is_kept_alive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "TICK_S", 0.02)
    monkeypatch.setattr(events_module, "KEEP_ALIVE_S", 0.05)
    async with reader(bench) as stream:
        await stream.next()
        async with asyncio.timeout(2):
            assert await stream.raw.readuntil(b"\n\n") == b": still here\n\n"


async def test_a_slow_reader_is_told_the_newest_state_once(bench: Bench) -> None:
    async with reader(bench) as stream:
        await stream.next()
        for number in range(50):
            bench.add(f"http://{number}:1")  # all within one turn of the loop
        assert len(next(iter(bench.events._streams)).dirty) == 1
        _, told = await stream.next()
        assert len(told["Providers"]) == 50
        bench.add("http://last:1")
        assert len((await stream.next())[1]["Providers"]) == 51


async def test_a_reader_that_is_gone_is_forgotten_when_it_takes_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "TICK_S", 0.02)
    monkeypatch.setattr(events_module, "KEEP_ALIVE_S", 0.02)
    async with reader(bench) as stream:
        await stream.next()
        assert len(bench.events._streams) == 1
    async with asyncio.timeout(2):
        while bench.events._streams:
            await asyncio.sleep(0.01)


async def test_the_sidecars_end_ends_the_stream(bench: Bench) -> None:
    async with reader(bench) as stream:
        await stream.next()
        bench.events.close()
        async with asyncio.timeout(2):
            assert await stream.raw.read() == b""


async def test_a_head_request_is_answered_with_the_head(bench: Bench) -> None:
    async with reader(bench, "HEAD") as stream, asyncio.timeout(2):
        assert await stream.raw.read() == b""
    assert bench.events._streams == set()
