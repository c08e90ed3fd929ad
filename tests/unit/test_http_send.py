"""What Channel.send promises, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from async_peer import OK, Peer, Reader, Writer, answers, channel, opened, peer_that, silent

from pillion_common.errors import OwnLimit, PeerBroken, PeerClosed, PeerError, PeerRefused, PeerTimedOut
from pillion_common.http.client import MAX_QUEUED, Answer, Channel, encode_request
from pillion_common.http.resolver import Dialer
from pillion_common.names import Url, parse_url

Test = Callable[[], Coroutine[Any, Any, None]]


def on_both_loops(test: Test) -> Callable[[Callable[[], asyncio.AbstractEventLoop]], None]:
    @pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        async def run_and_close() -> None:
            try:
                await test()
            finally:
                while opened:
                    opened.pop().close()
                await asyncio.sleep(0.02)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run_and_close())

    return run


class Outcomes(list[object]):
    """Gathers what on_done is given; `all(n)` waits for n outcomes, and then a moment for one too many."""

    async def all(self, count: int) -> Outcomes:
        async with asyncio.timeout(5):
            while len(self) < count:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        return self

    @property
    def types(self) -> list[type]:
        return [type(one) for one in self]


def ask(one: Channel, target: str, found: Outcomes, timeout_s: float = 1.0, retry: bool = False, method: str = "GET") -> None:
    one.send(encode_request(one._url, method, target), found.append, timeout_s, retry=retry)


async def echo_target(peer: Peer, reader: Reader, writer: Writer) -> None:
    while True:
        target = (await peer.head(reader)).split()[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))


def misbehaves(then: Callable[[Writer], Awaitable[None] | None]) -> Callable[[Peer, Reader, Writer], Coroutine[Any, Any, None]]:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        then(writer)

    return behave


async def closes_when_used_again(peer: Peer, reader: Reader, writer: Writer) -> None:
    await peer.head(reader)
    writer.write(OK)
    await peer.head(reader)


def test_a_request_is_encoded_once_for_as_often_as_it_is_sent() -> None:
    url = Url("http", "::1", 6000, "/")
    assert encode_request(url, "GET", "/heartbeat") == b"GET /heartbeat HTTP/1.1\r\nHost: [::1]:6000\r\n\r\n"
    assert encode_request(url, "POST", "/services", b"{}", ("A: b",)) == (
        b"POST /services HTTP/1.1\r\nHost: [::1]:6000\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    )


@on_both_loops
async def test_requests_are_answered_in_order_and_one_too_many_in_the_queue_is_refused() -> None:
    async with peer_that(echo_target) as peer:
        one, found = channel(peer), Outcomes()
        for number in range(MAX_QUEUED + 2):
            ask(one, f"/{number}", found)
        assert found == []
        await found.all(MAX_QUEUED + 2)
        assert found.types == [OwnLimit] + [Answer] * (MAX_QUEUED + 1)
        assert [one.body for one in found if isinstance(one, Answer)] == [b"/%d" % number for number in range(MAX_QUEUED + 1)]
        assert peer.connections == 1


@on_both_loops
async def test_only_one_request_at_a_time_is_on_the_wire() -> None:
    read: list[bytes] = []

    async def slow(peer: Peer, reader: Reader, writer: Writer) -> None:
        while data := await reader.read(65536):
            read.append(data)
            await asyncio.sleep(0.02)
            writer.write(OK)

    async with peer_that(slow) as peer:
        one, found = channel(peer), Outcomes()
        for number in range(3):
            ask(one, f"/{number}", found)
        await found.all(3)
        assert [data.count(b"GET") for data in read] == [1, 1, 1]


@on_both_loops
async def test_a_callback_may_send_the_next_request_and_it_goes_behind_those_that_wait() -> None:
    async with peer_that(echo_target) as peer:
        one, found = channel(peer), Outcomes()

        def again(outcome: Answer | PeerError) -> None:
            found.append(outcome)
            ask(one, "/last", found)

        one.send(encode_request(parse_url(peer.url, "u"), "GET", "/first"), again, 1.0)
        ask(one, "/second", found)
        await found.all(3)
        assert [one.body for one in found if isinstance(one, Answer)] == [b"/first", b"/second", b"/last"]


@on_both_loops
async def test_a_callback_that_fails_harms_no_other_call() -> None:
    async with peer_that(echo_target) as peer:
        one, found = channel(peer), Outcomes()
        one.send(encode_request(parse_url(peer.url, "u"), "GET", "/"), lambda _: found.missing, 1.0)  # type: ignore[attr-defined]
        ask(one, "/next", found)
        await found.all(1)
        assert found.types == [Answer]
        assert peer.connections == 1


@on_both_loops
async def test_every_way_to_fail_is_told_exactly_once() -> None:
    async def one_call(behaviour: Callable[[Peer, Reader, Writer], Awaitable[None]], timeout_s: float = 1.0) -> list[type]:
        async with peer_that(behaviour) as peer:
            one, found = channel(peer), Outcomes()
            ask(one, "/", found, timeout_s)
            types = (await found.all(1)).types
            one.close()
            await asyncio.sleep(0.02)
            assert len(found) == 1
            return types

    assert await one_call(misbehaves(lambda writer: writer.close())) == [PeerClosed]
    assert await one_call(misbehaves(lambda writer: writer.transport.abort())) == [PeerClosed]
    assert await one_call(misbehaves(lambda writer: writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"))) == [PeerClosed]
    assert await one_call(misbehaves(lambda writer: writer.write(b"garbage\r\n\r\n"))) == [PeerBroken]
    assert await one_call(silent, timeout_s=0.1) == [PeerTimedOut]


@on_both_loops
async def test_a_refused_connection_is_told_once_to_each_that_waits() -> None:
    async with peer_that(answers(OK)) as peer:
        one, found = channel(peer), Outcomes()
    for _ in range(3):
        ask(one, "/", found)
    await found.all(3)
    assert found.types == [PeerRefused] * 3
    assert not one.connected


class LateDialer(Dialer):
    """Tells of its connections 50 ms after they are made: what the peer does meanwhile comes first."""

    def dial(self, url: Url, allow: Any, make: Any, on_done: Callable[[Any], None], *, suspect: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        return super().dial(url, allow, make, lambda outcome: loop.call_later(0.05, on_done, outcome) and None, suspect=suspect)


@on_both_loops
async def test_a_peer_that_closes_as_soon_as_it_is_connected_has_closed_for_one_call_only() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        if peer.connections > 1:
            await echo_target(peer, reader, writer)

    async with peer_that(behave) as peer:
        one, found = channel(peer, dialer=LateDialer()), Outcomes()
        for _ in range(3):
            ask(one, "/", found, retry=True)
        await found.all(3)
        assert found.types == [PeerClosed, Answer, Answer]
        assert peer.connections == 2


@on_both_loops
async def test_a_peer_that_speaks_first_is_not_believed() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        writer.write(OK)
        await asyncio.sleep(1)

    async with peer_that(behave) as peer:
        one, found = channel(peer, dialer=LateDialer()), Outcomes()
        ask(one, "/", found)
        await found.all(1)
        assert found.types == [PeerClosed]


@on_both_loops
async def test_time_runs_out_in_the_connect_and_in_the_queue_as_well() -> None:
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        one = Channel(Url("http", "127.0.0.1", listener.getsockname()[1], "/"))
        opened.append(one)
        found = Outcomes()
        ask(one, "/takes the last place in the backlog, or none", found, timeout_s=0.1)
        ask(one, "/", found, timeout_s=0.15)
        ask(one, "/", found, timeout_s=0.15)
        await found.all(3)
        assert found.types == [PeerTimedOut] * 3


@on_both_loops
async def test_who_waits_behind_a_call_that_timed_out_is_served_on_a_new_connection() -> None:
    async def first_hangs(peer: Peer, reader: Reader, writer: Writer) -> None:
        if peer.connections == 1:
            await silent(peer, reader, writer)
        await echo_target(peer, reader, writer)

    async with peer_that(first_hangs) as peer:
        one, found = channel(peer), Outcomes()
        ask(one, "/first", found, timeout_s=0.1)
        ask(one, "/second", found, timeout_s=1.0)
        await found.all(2)
        assert found.types == [PeerTimedOut, Answer]
        assert peer.connections == 2


@on_both_loops
async def test_close_ends_all_that_wait_and_all_that_come_later_once_and_from_the_loop() -> None:
    async with peer_that(silent) as peer:
        one, found = channel(peer), Outcomes()
        for _ in range(3):
            ask(one, "/", found)
        await asyncio.sleep(0.05)
        one.close()
        ask(one, "/", found)
        assert found == []
        await found.all(4)
        assert found.types == [PeerClosed] * 4
        assert not one.connected


@on_both_loops
async def test_close_while_connecting_ends_the_call_and_leaves_no_connection() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with peer_that(echo_target) as peer:
        for turns in range(6):
            one, found = channel(peer), Outcomes()
            ask(one, "/", found)
            for _ in range(turns):
                await asyncio.sleep(0)
            one.close()
            await found.all(1)
            assert found.types in ([PeerClosed], [Answer])
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # what the loop opened for itself


@on_both_loops
async def test_a_cancelled_request_leaves_its_answer_to_nobody_and_its_place_to_the_next() -> None:
    async def late(peer: Peer, reader: Reader, writer: Writer) -> None:
        while True:
            target = (await peer.head(reader)).split()[1]
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with peer_that(late) as peer:
        one = channel(peer)
        tasks = [asyncio.create_task(one.request("GET", f"/{number}", timeout_s=2.0)) for number in range(4)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one.body if isinstance(one, Answer) else type(one) for one in found] == [
            asyncio.CancelledError,
            b"/1",
            asyncio.CancelledError,
            b"/3",
        ]


@on_both_loops
async def test_only_what_may_be_retried_is_and_only_on_a_connection_used_before() -> None:
    async with peer_that(closes_when_used_again) as peer:
        one, found = channel(peer), Outcomes()
        ask(one, "/1", found, retry=True)
        await found.all(1)
        ask(one, "/2", found, retry=True)
        await found.all(2)
        ask(one, "/3", found, retry=False)
        await found.all(3)
        assert found.types == [Answer, Answer, PeerClosed]
        assert peer.connections == 2


@on_both_loops
async def test_what_has_been_answered_in_part_is_not_sent_again() -> None:
    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        writer.write(OK)
        await peer.head(reader)
        writer.write(b"HTTP/1.1 2")
        await writer.drain()
        await asyncio.sleep(0.02)

    async with peer_that(behave) as peer:
        one, found = channel(peer), Outcomes()
        ask(one, "/1", found, retry=True)
        await found.all(1)
        ask(one, "/2", found, retry=True)
        await found.all(2)
        assert found.types == [Answer, PeerClosed]
        assert len(peer.heads) == 2


@on_both_loops
async def test_an_idle_connection_that_closes_is_told_once_and_the_channel_connects_again() -> None:
    hang_up = asyncio.Event()

    async def behave(peer: Peer, reader: Reader, writer: Writer) -> None:
        await peer.head(reader)
        writer.write(OK)
        await hang_up.wait()

    calls: list[int] = []
    async with peer_that(behave) as peer:
        one, found = channel(peer, on_closed=lambda: calls.append(1)), Outcomes()
        ask(one, "/1", found)
        await found.all(1)
        assert (one.connected, calls) == (True, [])
        hang_up.set()
        await asyncio.sleep(0.05)
        assert (one.connected, calls) == (False, [1])
        hang_up.clear()
        ask(one, "/2", found)
        await found.all(2)
        assert found.types == [Answer, Answer]
        assert (peer.connections, calls) == (2, [1])


@on_both_loops
async def test_small_requests_do_not_wait_for_more_to_send() -> None:
    async with peer_that(answers(OK)) as peer:
        one = channel(peer)
        await one.request("GET", "/", timeout_s=1.0)
        assert one._wire is not None
        assert one._wire._transport is not None
        raw = one._wire._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@on_both_loops
async def test_an_answer_that_is_there_after_our_own_pause_counts() -> None:
    async with peer_that(answers(OK)) as peer:
        one, found = channel(peer), Outcomes()
        ask(one, "/", found)
        await found.all(1)
        ask(one, "/", found, timeout_s=0.05)
        await asyncio.sleep(0)
        time.sleep(0.4)
        await found.all(2)
        assert found.types == [Answer, Answer]
