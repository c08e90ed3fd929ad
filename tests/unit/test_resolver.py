"""Resolver and Dialer: what hangs delays nobody else."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from async_peer import OK, answers, peer_that

from pillion_common.errors import OwnLimit, PeerClosed, PeerError, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_common.http import resolver as module
from pillion_common.http.client import Answer, Channel
from pillion_common.http.resolver import Dialer, Resolver
from pillion_common.names import Url, parse_url


class Names:
    """Stands in for getaddrinfo: names with `hang` block until released, names with `gone` do not resolve, others are 127.0.0.1."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        self.addresses = ["127.0.0.1", "127.0.0.1"]

    def look_up(self, encoded: bytes, port: object, **_: object) -> list[Any]:
        host = encoded.decode()
        self.asked.append(host)
        if host.startswith("hang"):
            self.release.wait(20)
        if "gone" in host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    yield made
    made.release.set()


async def find(resolver: Resolver, host: str) -> list[str] | PeerError:
    future: asyncio.Future[list[str] | PeerError] = asyncio.get_running_loop().create_future()
    resolver.ask(host, future.set_result)
    return await asyncio.wait_for(future, 5)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


@contextmanager
def port_that_never_takes_a_connection() -> Iterator[int]:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.01)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("address", ["10.0.0.7", "::1", "::ffff:10.0.0.7"])
async def test_an_address_is_its_own_answer_at_once(names: Names, address: str) -> None:
    found: list[object] = []
    assert Resolver().ask(address, found.append) is None
    assert (found, names.asked) == ([[address]], [])


async def test_a_name_has_each_of_its_addresses_once(names: Names) -> None:
    assert await find(Resolver(), "app") == ["127.0.0.1"]


async def test_a_name_that_does_not_resolve_is_unreachable(names: Names) -> None:
    found = await find(Resolver(), "gone")
    assert isinstance(found, PeerUnreachable)
    assert "gone does not resolve" in found.message


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_a_name_that_cannot_be_a_name_is_unreachable(host: str) -> None:
    assert isinstance(await find(Resolver(), host), PeerUnreachable)


async def test_a_hanging_name_does_not_delay_another(names: Names) -> None:
    resolver, found = Resolver(), list[object]()
    for number in range(40):
        resolver.ask(f"hang-{number}", found.append)
    assert await find(resolver, "app") == ["127.0.0.1"]
    assert found == []


async def test_names_that_failed_before_leave_half_of_the_threads_to_the_others(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.0)  # so that each of these was slow the first time
    resolver, found = Resolver(), list[object]()
    names.release.set()
    for number in range(100):
        resolver.ask(f"hang-{number}", found.append)
    await until(lambda: len(found) == 100)
    names.release.clear()
    names.asked.clear()
    for number in range(100):
        resolver.ask(f"hang-{number}", found.append)
    await until(lambda: len(names.asked) >= module.MAX_SUSPECT_THREADS)
    assert await find(resolver, "app") == ["127.0.0.1"]
    assert len(names.asked) == 33
    names.release.set()
    await until(lambda: len(found) == 200)
    await until(lambda: resolver._threads == 0)


async def test_all_who_ask_for_a_name_share_its_look_up(names: Names) -> None:
    resolver, found = Resolver(), list[object]()
    for _ in range(5):
        resolver.ask("hang", found.append)
    await until(lambda: names.asked == ["hang"])
    names.release.set()
    await until(lambda: len(found) == 5)
    assert names.asked == ["hang"]
    await find(resolver, "hang")
    assert names.asked == ["hang", "hang"]  # nothing is kept


async def test_errors_that_are_shared_are_each_ones_own(names: Names) -> None:
    resolver, found = Resolver(), list[object]()
    resolver.ask("hang-gone", found.append)
    resolver.ask("hang-gone", found.append)
    names.release.set()
    await until(lambda: len(found) == 2)
    assert found[0] is not found[1]


async def test_who_has_cancelled_is_not_told(names: Names) -> None:
    resolver, found = Resolver(), list[object]()
    question = resolver.ask("hang", found.append)
    assert question is not None
    resolver.ask("hang", lambda _: found.append("the other one"))
    question.cancel()
    names.release.set()
    await until(lambda: found == ["the other one"])


async def test_closing_answers_those_who_wait_and_those_who_come_later(names: Names) -> None:
    resolver, found = Resolver(), list[object]()
    resolver.ask("hang", found.append)
    resolver.close()
    await until(lambda: len(found) == 1)
    assert isinstance(found[0], PeerClosed)
    assert isinstance(await find(resolver, "app"), PeerClosed)


def test_a_hanging_look_up_does_not_hold_up_the_end_of_the_process() -> None:
    program = (
        "import asyncio, socket, time\n"
        "from pillion_common.http.resolver import Resolver\n"
        "socket.getaddrinfo = lambda *a, **k: time.sleep(60)\n"
        "async def main(): Resolver().ask('app', print); await asyncio.sleep(0.05)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=15)


async def test_a_channel_whose_name_hangs_times_out_and_another_is_served(names: Names) -> None:
    async with peer_that(answers(OK)) as peer:
        port = parse_url(peer.url, "u").port
        hanging, good = Channel(Url("http", "hang", port, "/")), Channel(Url("http", "app", port, "/"))
        under_way = asyncio.ensure_future(hanging.request("GET", "/", timeout_s=0.2))
        assert (await good.request("GET", "/", timeout_s=2.0)).body == b"ok"
        with pytest.raises(PeerTimedOut):
            await under_way
        hanging.close()
        good.close()


@pytest.mark.parametrize("refusing", [[], ["127.0.0.2"]])
async def test_the_next_address_is_tried_when_one_is_silent_or_refuses(
    names: Names, monkeypatch: pytest.MonkeyPatch, refusing: list[str]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    monkeypatch.setattr(module, "ADDRESS_S", 0.05)
    with port_that_never_takes_a_connection() as port:
        names.addresses = ["127.0.0.1", *refusing, "127.0.0.3"]
        server = await asyncio.start_server(serve, "127.0.0.3", port, family=socket.AF_INET)
        channel = Channel(Url("http", "app", port, "/"))
        assert (await channel.request("GET", "/", timeout_s=2.0)).body == b"ok"
        channel.close()
        server.close()
        await server.wait_closed()


async def test_a_refusal_is_no_evidence_while_another_address_is_silent(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESS_S", 0.05)
    with port_that_never_takes_a_connection() as port:
        for addresses, error in ((["127.0.0.1", "127.0.0.2"], PeerTimedOut), (["127.0.0.3", "127.0.0.2"], PeerRefused)):
            names.addresses = addresses
            channel = Channel(Url("http", "app", port, "/"))
            with pytest.raises(error):
                await channel.request("GET", "/", timeout_s=2.0)
            channel.close()


async def test_waiting_for_our_own_dialer_is_not_the_peers_silence() -> None:
    with port_that_never_takes_a_connection() as port:
        async with peer_that(answers(OK)) as peer:
            dialer = Dialer(most=1)
            first = Channel(Url("http", "127.0.0.1", port, "/"), dialer=dialer)
            second = Channel(parse_url(peer.url, "u"), dialer=dialer)
            blocked = asyncio.ensure_future(first.request("GET", "/", timeout_s=0.5))
            await asyncio.sleep(0)
            found = await asyncio.gather(*(second.request("GET", "/", timeout_s=0.2) for _ in range(2)), return_exceptions=True)
            assert [type(error) for error in found] == [OwnLimit, OwnLimit]
            with pytest.raises(PeerTimedOut):
                await blocked
            assert (await second.request("GET", "/", timeout_s=1.0)).body == b"ok"
            first.close()
            second.close()


async def test_no_more_connections_are_opened_at_once_than_the_bound_and_all_get_their_turn() -> None:
    async with peer_that(answers(OK)) as peer:
        dialer, most = Dialer(most=4), 0
        channels = [Channel(parse_url(peer.url, "u"), dialer=dialer) for _ in range(50)]
        found: list[object] = []
        for channel in channels:
            channel.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", found.append, 2.0)
        while len(found) < 50:
            most = max(most, len(dialer._under_way))
            await asyncio.sleep(0)
        assert most == 4
        assert all(isinstance(answer, Answer) for answer in found)
        assert (dialer._under_way, dialer._suspects) == (set(), 0)
        for channel in channels:
            channel.close()


async def test_peers_that_were_silent_last_time_leave_half_of_the_dialer_to_the_others() -> None:
    with port_that_never_takes_a_connection() as port:
        async with peer_that(answers(OK)) as peer:
            dialer = Dialer(most=4)
            silent = [Channel(Url("http", "127.0.0.1", port, "/"), dialer=dialer) for _ in range(4)]
            for _ in range(2):
                asked = [asyncio.ensure_future(channel.request("GET", "/", timeout_s=0.15)) for channel in silent]
                await asyncio.sleep(0.02)
                good = Channel(parse_url(peer.url, "u"), dialer=dialer)
                again = asyncio.ensure_future(good.request("GET", "/", timeout_s=0.1))
                found = await asyncio.gather(again, *asked, return_exceptions=True)
                good.close()
            assert isinstance(found[0], Answer)  # the second time; the first time nobody knew
            for channel in silent:
                channel.close()


async def test_a_peer_is_no_suspect_any_more_once_it_has_taken_a_connection() -> None:
    with port_that_never_takes_a_connection() as port:
        async with peer_that(answers(OK, close=True)) as peer:
            suspects: list[bool] = []

            class FirstInVain(Dialer):
                def dial(self, url: Url, allow: Any, make: Any, on_done: Any, *, suspect: bool = False) -> Any:
                    suspects.append(suspect)
                    return super().dial(url if len(suspects) > 1 else url._replace(port=port), allow, make, on_done, suspect=suspect)

            channel = Channel(parse_url(peer.url, "u"), dialer=FirstInVain())
            with pytest.raises(PeerTimedOut):
                await channel.request("GET", "/", timeout_s=0.1)
            for _ in range(2):
                await channel.request("GET", "/", timeout_s=1.0)
                await until(lambda: not channel.connected)
            assert suspects == [False, True, False]


async def test_a_rule_that_fails_is_an_error_of_its_call_alone() -> None:
    async with peer_that(answers(OK)) as peer:

        def fail(address: str) -> bool:
            raise ZeroDivisionError

        dialer = Dialer(most=1)
        bad, good = (Channel(parse_url(peer.url, "u"), dialer=dialer, allow=allow) for allow in (fail, None))
        with pytest.raises(PeerUnreachable):
            await bad.request("GET", "/", timeout_s=1.0)
        assert (await good.request("GET", "/", timeout_s=1.0)).body == b"ok"
        bad.close()
        good.close()
