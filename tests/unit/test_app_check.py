"""The check of the app: up, down, hanging, and how soon a change is known."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from watched_app import UNCHECKED, free_port, settings, watched

from pillion_common.config import Address
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_common.names import parse_url
from pillion_sidecar.check.app_check import AppCheck

LONG_S = 30.0  # an interval that no test waits for: what is seen earlier was seen by the tripwire


class TcpApp:
    """An app that takes connections and says nothing; `die` closes them as a kernel does for a killed process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.taken = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._writers.append(writer)
        await reader.read()
        writer.close()

    async def die(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0)


@pytest.fixture
async def app() -> AsyncIterator[TcpApp]:
    app = TcpApp()
    await app.start()
    yield app
    await app.die()


HttpServe = Callable[[Callable[[Request], Response | Awaitable[Response]]], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[HttpServe]:
    servers: list[Server] = []

    async def start(handler: Callable[[Request], Response | Awaitable[Response]]) -> int:
        server = Server(handler)
        servers.append(server)
        return parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port

    yield start
    for server in servers:
        await server.close(0.1)


async def test_an_app_that_was_not_checked_yet_is_not_well() -> None:
    check = AppCheck(settings("tcp", 1), lambda well, reason: None)
    assert not check.well
    assert check.reason == UNCHECKED


async def test_none_means_well_for_ever() -> None:
    async with watched("none", free_port()) as seen:
        await asyncio.sleep(0.1)
        assert seen.check.well
        assert seen.check.reason == ""
        assert seen.told == []


async def test_an_open_port_is_well(app: TcpApp) -> None:
    async with watched("tcp", app.port) as seen:
        await seen.until(True)
        await asyncio.sleep(0.2)
        assert seen.told == [(True, "")]


async def test_a_closed_port_is_not_and_says_why() -> None:
    port = free_port()
    async with watched("tcp", port) as seen:
        await seen.looked()
        assert not seen.check.well
        assert seen.check.reason == f"port {port} took no connection: Connection refused"
        assert seen.told == [], "down from the start is no change"


async def test_a_port_that_hangs_is_given_up_in_time() -> None:
    # A listener that takes nothing, with its backlog full: further connections get no answer.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with watched("tcp", port, timeout_s=0.1) as seen:
            await seen.looked()
            assert not seen.check.well
            assert seen.check.reason == f"port {port} took no connection within 0.1 s"
        for filler in fillers:
            filler.close()


async def test_an_app_that_dies_is_noticed_at_once_and_its_return_at_the_next_check(app: TcpApp) -> None:
    async with watched("tcp", app.port, interval_s=LONG_S) as seen:
        await seen.until(True)
        await asyncio.sleep(0.1)
        await app.die()
        assert await seen.until(False, 1.0) < 0.3
    async with watched("tcp", app.port) as seen:
        await asyncio.sleep(0.1)
        await app.start()
        await seen.until(True)
        assert seen.told == [(True, "")]


async def test_each_change_is_told_once(app: TcpApp) -> None:
    async with watched("tcp", app.port) as seen:
        await seen.until(True)
        await app.die()
        await seen.until(False)
        await asyncio.sleep(0.2)
        await app.start()
        await seen.until(True)
        assert seen.told == [(True, ""), (False, f"port {app.port} took no connection: Connection refused"), (True, "")]


async def test_an_app_that_hangs_up_idle_connections_is_not_checked_in_a_busy_loop() -> None:
    taken = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with watched("tcp", server.sockets[0].getsockname()[1], interval_s=LONG_S) as seen:
        await asyncio.sleep(0.5)
        assert seen.check.well
        assert 1 < taken <= 12
    server.close()


@pytest.mark.parametrize(("status", "well"), [(200, True), (204, True), (302, True), (399, True), (400, False), (404, False), (503, False)])
async def test_the_statuses_of_an_http_check(serve: HttpServe, status: int, well: bool) -> None:
    asked = []

    def answer(request: Request) -> Response:
        asked.append((request.method, request.path, request.raw_query))
        return Response(status)

    port = await serve(answer)
    async with watched("http:/ok?deep=1", port) as seen:
        await seen.looked()
        assert seen.check.well is well
        assert seen.check.reason == ("" if well else f"/ok?deep=1 answered {status}")
        assert asked[0] == ("GET", "/ok", b"deep=1")


async def test_an_http_app_that_hangs_is_given_up_in_time(serve: HttpServe) -> None:
    async def never(request: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    port = await serve(never)
    async with watched("http:/ok", port, timeout_s=0.1) as seen:
        await seen.looked()
        assert seen.check.reason == f"127.0.0.1:{port} did not answer within 0.1 s"


async def test_an_http_app_that_refuses_and_comes_back(serve: HttpServe) -> None:
    well = False
    port = await serve(lambda request: Response(200 if well else 503))
    async with watched("http:/ok", port) as seen:
        await seen.looked()
        assert not seen.check.well
        well = True
        await seen.until(True)
        well = False
        await seen.until(False)
        assert seen.told == [(True, ""), (False, "/ok answered 503")]


async def test_an_http_app_that_dies_is_noticed_at_once() -> None:
    server = Server(lambda request: Response(200))
    port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port
    async with watched("http:/ok", port, interval_s=LONG_S) as seen:
        await seen.until(True)
        await asyncio.sleep(0.1)
        await server.close(0)
        assert await seen.until(False, 1.0) < 0.3
        assert seen.check.reason == f"127.0.0.1:{port} refused the connection"


async def test_what_is_no_http_is_not_well(app: TcpApp) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with watched("http:/", server.sockets[0].getsockname()[1]) as seen:
        await seen.looked()
        assert not seen.check.well
    server.close()


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_an_http_app_that_closes_after_each_answer_is_asked_once_an_interval(version: bytes) -> None:
    # Many a small server speaks HTTP/1.0, or says Connection: close; its good manners are no sign of death.
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(version + b" 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with watched("http:/", server.sockets[0].getsockname()[1], interval_s=0.5) as seen:
        await asyncio.sleep(1.2)
        assert seen.check.well
        assert asked <= 4
    server.close()


class Waiting:
    """An app that ends as many do: it takes no more connections, and waits until those it has are closed."""

    async def __aenter__(self) -> Waiting:
        self.left = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.close()
        self.left.set()

    def take_no_more(self) -> None:
        self.left.clear()
        self._server.close()


@pytest.mark.parametrize("told", [True, False])
async def test_an_app_that_ends_does_not_wait_for_the_tripwire(told: bool) -> None:
    async with Waiting() as app:
        check = AppCheck(settings("tcp", app.port, 0.1), lambda well, reason: None)
        task = asyncio.create_task(check.run())
        try:
            async with asyncio.timeout(3):
                while not check.well:
                    await asyncio.sleep(0.01)
                app.take_no_more()
                if told:
                    check.let_go()
                await app.left.wait()
        finally:
            task.cancel()
            check.close()


async def test_after_letting_go_the_app_is_still_looked_at() -> None:
    async with Waiting() as app:
        check = AppCheck(settings("tcp", app.port, 0.05), lambda well, reason: None)
        check.let_go()
        task = asyncio.create_task(check.run())
        try:
            async with asyncio.timeout(3):
                while not check.well:
                    await asyncio.sleep(0.01)
                app.take_no_more()
                while check.well:
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            check.close()
