"""The DNS server's sockets: both transports, what a client may do to them, and host names that take their time."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord
from fake_table import FakeTable
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion_common.config import Address
from pillion_common.errors import PeerError, PeerUnreachable
from pillion_sidecar.dns import hosts as dns_hosts
from pillion_sidecar.dns import message as dns_message
from pillion_sidecar.dns import server as dns
from pillion_sidecar.dns.hosts import HostNames
from pillion_sidecar.dns.server import DnsServer
from pillion_sidecar.wire import Provider

WAIT_S = 5.0
DB = Provider("Db", "http://10.0.0.7:5432")


class FakeResolver:
    """Hosts -> addresses, at once; or an error; None never answers."""

    def __init__(self, **hosts: list[str] | PeerError | None) -> None:
        self.hosts = hosts
        self.asked: list[str] = []
        self.cancelled = 0

    def ask(self, host: str, on_found: Any) -> FakeResolver:
        self.asked.append(host)
        found = self.hosts[host]
        if found is not None:
            asyncio.get_running_loop().call_soon(on_found, found)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


@asynccontextmanager
async def serving(table: FakeTable, host: str = "127.0.0.1", resolver: FakeResolver | None = None, **more: Any) -> AsyncIterator[int]:
    """Run a server on a free port; yields the port."""
    hosts = HostNames("pillion", resolver) if resolver else None  # type: ignore[arg-type]
    server = DnsServer(table, Address(host, 0), hosts=hosts, **more)
    where = await server.listen()
    assert where.startswith(f"dns://[{host}]:" if ":" in host else f"dns://{host}:")
    try:
        yield int(where.rpartition(":")[2])
    finally:
        server.close()
        await asyncio.sleep(0.01)


def query(name: str = "Db.pillion", kind: str = "A", edns: int = 0) -> bytes:
    asked = DNSRecord.question(name, kind)
    if edns:
        asked.add_ar(EDNS0(udp_len=edns))
    return bytes(asked.pack())


async def over_udp(port: int, message: bytes, host: str = "127.0.0.1", wait_s: float = WAIT_S) -> DNSRecord:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.connect((host, port))
        await loop.sock_sendall(peer, message)
        async with asyncio.timeout(wait_s):
            return DNSRecord.parse(await loop.sock_recv(peer, 65536))


class Peer:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(len(message).to_bytes(2, "big") + message for message in messages))

    async def answer(self) -> DNSRecord:
        async with asyncio.timeout(WAIT_S):
            size = int.from_bytes(await self.reader.readexactly(2), "big")
            return DNSRecord.parse(await self.reader.readexactly(size))

    async def closed(self, wait_s: float = WAIT_S) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


@asynccontextmanager
async def tcp(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


def told(reply: DNSRecord) -> list[str]:
    return [record.rdata.toZone() for record in reply.rr]


# Both transports.


async def test_both_transports_answer_on_one_port() -> None:
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as peer:
        assert told(await over_udp(port, query())) == ["10.0.0.7"]
        peer.send(query(kind="SRV"))
        assert told(await peer.answer()) == ["0 1 5432 0a000007.addr.pillion."]
        peer.send(query())  # and the connection stays
        assert told(await peer.answer()) == ["10.0.0.7"]


async def test_what_does_not_fit_over_udp_comes_whole_over_tcp() -> None:
    table = FakeTable(Db=tuple(Provider("Db", f"http://10.0.0.{number}:80") for number in range(60)))
    async with serving(table) as port, tcp(port) as peer:
        short = await over_udp(port, query())
        assert (short.header.tc, len(short.rr)) == (1, 30)  # of 16 bytes each
        assert len((await over_udp(port, query(edns=1232))).rr) == 60
        peer.send(query())
        whole = await peer.answer()
        assert (whole.header.tc, len(whole.rr)) == (0, 60)


async def test_the_port_is_the_one_asked_for_and_a_taken_one_is_refused_with_its_name() -> None:
    async with serving(FakeTable(Db=())) as port:
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port} for DNS: address already in use"):
            await DnsServer(FakeTable(), Address("127.0.0.1", port)).listen()
    again = DnsServer(FakeTable(), Address("127.0.0.1", port))
    assert await again.listen() == f"dns://127.0.0.1:{port}"
    again.close()


async def test_a_port_that_is_taken_over_udp_alone_is_left_and_another_chosen() -> None:
    taken: list[socket.socket] = []
    bind = socket.socket.bind

    class Racing(socket.socket):
        def bind(self, address: Any) -> None:
            if self.type == socket.SOCK_DGRAM and len(taken) < 2:
                other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                bind(other, address)
                taken.append(other)
            super().bind(address)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "socket", Racing)
        async with serving(FakeTable(Db=(DB,))) as port:
            assert port not in [other.getsockname()[1] for other in taken]
            assert told(await over_udp(port, query())) == ["10.0.0.7"]
    assert len(taken) == 2
    for other in taken:
        other.close()


async def test_ipv6() -> None:
    async with serving(FakeTable(Db=(DB,)), "::1") as port:
        assert told(await over_udp(port, query(), "::1")) == ["10.0.0.7"]


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("127.0.0.53", False), ("::1", False), ("0.0.0.0", True)])
async def test_more_than_loopback_is_warned_of(host: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    server = DnsServer(FakeTable(), Address(host, 0))
    await server.listen()
    server.close()
    assert ("all who reach it may ask what is where" in caplog.text) is warned


async def test_a_fault_of_ours_is_told_to_one_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    table = FakeTable(Db=(DB,))
    async with serving(table) as port:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(table, "find", lambda name: 1 / 0)
            assert RCODE.get((await over_udp(port, query())).header.rcode) == "SERVFAIL"
        assert "ZeroDivisionError" in caplog.text
        assert told(await over_udp(port, query())) == ["10.0.0.7"]


# What a client may do.


async def test_many_queries_at_once_are_all_answered() -> None:
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as peer:
        messages = [query() for _ in range(500)]
        peer.send(*messages)
        ids = [(await peer.answer()).header.id for _ in messages]
        assert ids == [int.from_bytes(message[:2], "big") for message in messages]


async def test_a_query_may_come_byte_by_byte() -> None:
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as peer:
        for byte in len(query()).to_bytes(2, "big") + query():
            peer.writer.write(bytes((byte,)))
            await peer.writer.drain()
            await asyncio.sleep(0.001)
        assert told(await peer.answer()) == ["10.0.0.7"]


async def test_who_asks_and_sends_no_more_gets_the_answers() -> None:
    resolver = FakeResolver(host=["10.0.0.9"])
    async with serving(FakeTable(Db=(DB,), Far=(Provider("Far", "http://host:1"),)), resolver=resolver) as port, tcp(port) as peer:
        peer.send(*[query()] * 40, query("Far.pillion"))
        peer.writer.write(b"\0")  # and half of another
        peer.writer.write_eof()
        answers = [told(await peer.answer()) for _ in range(41)]
        assert answers == [["10.0.0.7"]] * 40 + [["10.0.0.9"]]
        assert await peer.closed()


@pytest.mark.parametrize("size", [0, 11, 513, 65535])
async def test_a_message_of_a_senseless_size_ends_the_connection(size: int) -> None:
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as peer:
        peer.writer.write(size.to_bytes(2, "big"))
        assert await peer.closed()


async def test_an_answer_over_tcp_is_not_answered() -> None:
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as peer:
        peer.send(DNSRecord.parse(query()).reply().pack(), query())
        assert told(await peer.answer()) == ["10.0.0.7"]
        assert not await peer.closed(0.05)


async def test_who_asks_nothing_is_closed_in_time_and_who_asks_is_not() -> None:
    async with serving(FakeTable(Db=(DB,)), idle_s=0.2) as port, tcp(port) as idle, tcp(port) as slow, tcp(port) as busy:
        whole = len(query()).to_bytes(2, "big") + query()
        for turn in range(8):
            busy.send(query())
            await busy.answer()
            slow.writer.write(whole[turn : turn + 1])  # bytes are no query
            await asyncio.sleep(0.05)
        assert await idle.closed(0.05)
        assert await slow.closed(0.05)
        busy.send(query())
        assert told(await busy.answer()) == ["10.0.0.7"]


async def test_of_too_many_connections_the_longest_silent_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MAX_CONNECTIONS", 2)
    async with serving(FakeTable(Db=(DB,))) as port, tcp(port) as first, tcp(port) as second:
        for peer in (first, second, first):
            peer.send(query())
            await peer.answer()
        async with tcp(port) as third:
            third.send(query())
            assert told(await third.answer()) == ["10.0.0.7"]
            assert await second.closed()
            first.send(query())
            assert told(await first.answer()) == ["10.0.0.7"]


async def test_who_does_not_read_is_not_read_from_and_closed_in_time() -> None:
    many = FakeTable(Db=tuple(Provider("Db", f"http://10.0.0.{number}:80") for number in range(60)))
    async with serving(many, idle_s=0.3) as port:
        loop = asyncio.get_running_loop()
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", port))

            async def flood() -> None:
                some = (len(query()).to_bytes(2, "big") + query()) * 200
                for _ in range(2000):  # 13 MB of queries, whose answers would take 400
                    await loop.sock_sendall(peer, some)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(flood(), 4 * WAIT_S)
        assert len(told(await over_udp(port, query(edns=1232)))) == 60


async def test_bytes_over_udp_that_are_no_query_get_no_answer_or_a_short_one() -> None:
    async with serving(FakeTable(Db=(DB,))) as port:
        with pytest.raises(TimeoutError):
            await over_udp(port, b"short", wait_s=0.05)
        with pytest.raises(TimeoutError):
            await over_udp(port, bytes(DNSRecord.parse(query()).reply().pack()), wait_s=0.05)
        assert RCODE.get((await over_udp(port, query()[:-3])).header.rcode) == "FORMERR"
        assert RCODE.get((await over_udp(port, query() + bytes(1000))).header.rcode) == "FORMERR"


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_whatever_comes_the_server_answers_the_next(pieces: list[bytes], rand: random.Random) -> None:
    async def abuse() -> None:
        async with serving(FakeTable(Db=(DB,))) as port:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                for piece in pieces:
                    peer.sendto(piece, ("127.0.0.1", port))
            async with tcp(port) as stream:
                stream.writer.write(b"".join(pieces))
                if rand.random() < 0.5:
                    stream.send(query())
                await asyncio.sleep(0)
            assert told(await over_udp(port, query())) == ["10.0.0.7"]

    asyncio.run(abuse())


# Host names.


def far(*hosts: str) -> FakeTable:
    return FakeTable(Far=tuple(Provider("Far", f"http://{host}:80") for host in hosts), Db=(DB,))


async def test_host_names_are_looked_up_and_kept_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_hosts, "KEPT_S", 0.4)
    resolver = FakeResolver(one=["10.0.0.1", "fd00::1"], two=["10.0.0.2", "fe80::1%eth0"])
    async with serving(far("one", "two"), resolver=resolver) as port:
        for _ in range(3):
            assert sorted(told(await over_udp(port, query("far.pillion")))) == ["10.0.0.1", "10.0.0.2"]
        assert told(await over_udp(port, query("far.pillion", "AAAA"))) == ["fd00::1"]
        assert sorted(resolver.asked) == ["one", "two"]
        await asyncio.sleep(0.4)
        resolver.hosts["one"] = ["10.0.0.3"]
        assert sorted(told(await over_udp(port, query("far.pillion")))) == ["10.0.0.2", "10.0.0.3"]


async def test_a_host_name_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_hosts, "LOOK_UP_S", 0.1)
    resolver = FakeResolver(hangs=None, fails=PeerUnreachable("fails does not resolve"), one=["10.0.0.1"])
    async with serving(far("hangs", "one"), resolver=resolver) as port, tcp(port) as peer:
        peer.send(query("far.pillion"), query())
        assert told(await peer.answer()) == ["10.0.0.7"]
        assert told(await peer.answer()) == ["10.0.0.1"]
        assert resolver.cancelled == 2
    async with serving(far("hangs", "fails"), resolver=resolver) as port:
        assert RCODE.get((await over_udp(port, query("far.pillion"))).header.rcode) == "SERVFAIL"


async def test_too_many_that_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MAX_WAITING", 3)
    monkeypatch.setattr(dns_hosts, "LOOK_UP_S", 0.2)
    async with serving(far("hangs"), resolver=FakeResolver(hangs=None)) as port, tcp(port) as peer:
        peer.send(*[query("far.pillion") for _ in range(5)], query())
        answers = [await peer.answer() for _ in range(3)]
        assert [RCODE.get(answer.header.rcode) for answer in answers] == ["SERVFAIL", "SERVFAIL", "NOERROR"]
        assert [(await peer.answer()).header.rcode for _ in range(3)] == [2, 2, 2]


async def test_the_server_may_close_while_somebody_waits() -> None:
    async with serving(far("hangs"), resolver=FakeResolver(hangs=None)) as port:
        with pytest.raises(TimeoutError):
            await over_udp(port, query("far.pillion"), wait_s=0.05)


async def test_a_host_below_our_own_zone_is_not_looked_up_for_that_would_be_us() -> None:
    resolver = FakeResolver()
    async with serving(far("Db.pillion", "x.pillion."), resolver=resolver) as port:
        assert RCODE.get((await over_udp(port, query("far.pillion"))).header.rcode) == "SERVFAIL"
        assert resolver.asked == []


async def test_the_system_is_asked_unless_told_otherwise() -> None:
    async with serving(far("localhost")) as port:
        assert "127.0.0.1" in told(await over_udp(port, query("far.pillion")))


async def test_what_is_kept_of_host_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_hosts, "MAX_KEPT", 3)
    resolver = FakeResolver(**{f"h{number}": [f"10.0.0.{number}"] for number in range(5)})
    names = HostNames("pillion", resolver)  # type: ignore[arg-type]
    for number in range(5):
        await names.look_up({f"h{number}"})
        assert names.get(f"h{number}") == (bytes([10, 0, 0, number]),)
    assert len(names._kept) <= 3


def test_the_numbers_are_those_dnslib_knows() -> None:
    for name in ("A", "SOA", "AAAA", "SRV", "OPT", "IXFR", "AXFR", "ANY"):
        assert QTYPE.get(getattr(dns_message, name)) == name
    for name in ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"):
        assert RCODE.get(getattr(dns_message, name)) == name
