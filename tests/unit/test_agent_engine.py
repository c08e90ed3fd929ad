"""The engine's API as the agent asks it: answers, events, and all that can go wrong with either."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, container_id, fake_engine

from pillion_common.errors import PeerBroken, PeerClosed, PeerError, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_sidecar.agent import engine as engine_module
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.settings import EngineAddress

WEB = container_id(1)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as running:
        yield running


def of(fake: FakeEngine) -> Engine:
    return Engine(EngineAddress(path=str(fake.path)))


async def until(look: Any, within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)


class Followed:
    def __init__(self) -> None:
        self.opened = 0
        self.events: list[dict[str, Any]] = []

    def open(self) -> None:
        self.opened += 1


@asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[tuple[Followed, asyncio.Task[None]]]:
    seen = Followed()
    task = asyncio.create_task(engine.follow(seen.open, seen.events.append))
    try:
        yield seen, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def answering(tmp_path: Path, *pieces: bytes, close: bool = True) -> AsyncIterator[Engine]:
    """An engine that answers everything with these bytes."""

    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            if not close:
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    path = tmp_path / "raw.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield Engine(EngineAddress(path=str(path)))
        await asyncio.gather(*[task for task in serving if task])


async def test_it_lists_and_inspects(fake: FakeEngine) -> None:
    fake.run(1, "web", networks={"n": "10.0.0.1"})
    engine = of(fake)
    assert [one["Id"] for one in await engine.list()] == [WEB]
    assert (await engine.inspect(WEB))["Name"] == "/web"
    assert await engine.inspect(container_id(2)) is None


async def test_an_engine_behind_tcp_is_asked_the_same_way() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = json.dumps([{"Id": head.split(b" ")[1].decode()}]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await Engine(EngineAddress(host="127.0.0.1", port=port)).list() == [{"Id": "/containers/json"}]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, b"Forbidden"), "GET /containers/json is forbidden; the proxy before the engine has to allow /containers and /events"),
        ((500, b'{"message":"oops"}'), 'the engine answered 500 to GET /containers/json: {"message":"oops"}'),
        ((200, b"<html>"), "the engine's answer to /containers/json is not JSON"),
        ((200, b"[" * 100_000), "the engine's answer to /containers/json is not JSON"),
        ((404, b""), "the engine answered 404 to GET /containers/json"),
    ],
)
async def test_an_answer_that_is_none(fake: FakeEngine, answer: tuple[int, bytes], said: str) -> None:
    fake.forced["/containers/json"] = answer
    with pytest.raises(PeerBroken, match=said.replace("(", r"\(").replace("{", r"\{")):
        await of(fake).list()


async def test_a_huge_answer_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_ANSWER_BYTES", 1 << 20)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    async with answering(tmp_path, head, *[b"x" * (1 << 19)] * 4, close=False) as engine:
        with pytest.raises(PeerBroken, match="the engine's answer to /containers/json is over 1 MB"):
            await engine.list()


@pytest.mark.parametrize("pieces", [(b"SSH-2.0-x\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",)])
async def test_what_is_not_http_is_told(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    async with answering(tmp_path, *pieces) as engine:
        with pytest.raises(PeerBroken, match="not valid HTTP"):
            await engine.list()
        with pytest.raises(PeerBroken, match="not valid HTTP"):
            await engine.follow(lambda: None, lambda event: None)


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nContent-Le",), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1",)])
async def test_a_connection_that_ends_early_is_told(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    async with answering(tmp_path, *pieces) as engine:
        with pytest.raises(PeerClosed, match="before its answer to /containers/json was whole"):
            await engine.list()


async def test_silence_ends_after_its_time(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "READ_S", 0.05)
    fake.delays_s["/containers/json"] = 0.5
    with pytest.raises(PeerTimedOut, match=r"did not answer to /containers/json within 0\.05 s"):
        await of(fake).list()


async def test_an_engine_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable, match="is not there: mount it, or name the engine's socket or proxy with PILLION_DOCKER"):
        await Engine(EngineAddress(path=str(tmp_path / "none.sock"))).list()
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(PeerRefused, match=r"nobody listens at unix://.*: is the engine running"):
        await Engine(EngineAddress(path=str(path))).list()


async def test_a_socket_that_may_not_be_opened_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio, "open_unix_connection", refuse)
    with pytest.raises(PeerUnreachable, match=r"may not be opened: run the agent in the group that owns it \(group_add in compose\)"):
        await Engine(EngineAddress(path="/var/run/docker.sock")).list()


# Events.


async def test_events_come_as_they_happen_however_they_are_cut(fake: FakeEngine) -> None:
    async with following(of(fake)) as (seen, _):
        await until(lambda: seen.opened)
        fake.tell(WEB, "start")
        fake.send(b'{"Action":"kill"}\n{"Action":"d')
        fake.send(b'ie"}\n\r\n')
        await until(lambda: len(seen.events) == 3)
    assert [event["Action"] for event in seen.events] == ["start", "kill", "die"]


async def test_what_is_no_event_stands_for_something_unknown(fake: FakeEngine) -> None:
    async with following(of(fake)) as (seen, _):
        await until(lambda: seen.opened)
        fake.send(b"garbage\n[1]\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"Action":"die"}\n')
        await until(lambda: len(seen.events) == 5)
    assert seen.events == [{}, {}, {}, {}, {"Action": "die"}]


async def test_an_event_without_end_ends_the_stream(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_EVENT_BYTES", 1000)
    async with following(of(fake)) as (seen, task):
        await until(lambda: seen.opened)
        fake.send(b"x" * 1001)
        with pytest.raises(PeerBroken, match="an event of the engine is over 1000 bytes"):
            await task


async def test_a_stream_that_is_cut_ends_without_an_error(fake: FakeEngine) -> None:
    async with following(of(fake)) as (seen, task):
        await until(lambda: seen.opened)
        fake.cut()
        await task


async def test_a_stream_is_opened_anew_after_its_time(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "STREAM_S", 0.05)
    async with following(of(fake)) as (seen, task):
        await task
        assert seen.opened == 1


async def test_an_engine_that_gives_no_events_is_told(fake: FakeEngine, tmp_path: Path) -> None:
    fake.forced["/events"] = (403, b"Forbidden")
    with pytest.raises(PeerError, match="GET /events is forbidden; the proxy before the engine has to allow /containers and /events"):
        await of(fake).follow(lambda: None, lambda event: None)
    async with answering(tmp_path) as silent:
        with pytest.raises(PeerClosed, match="did not answer to /events"):
            await silent.follow(lambda: None, lambda event: None)
