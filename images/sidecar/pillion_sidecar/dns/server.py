"""The DNS server: one address, UDP and TCP on the same port. What it answers is the zone's (dns_zone.py).

Loaded only when PILLION_DNS is set.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pillion_common.config import Address
from pillion_common.http.listener import Listener
from pillion_common.logs import EventLog
from pillion_sidecar.dns.hosts import HostNames
from pillion_sidecar.dns.message import HEADER_BYTES, MAX_QUERY_BYTES, SERVFAIL, refusal
from pillion_sidecar.dns.zone import Unresolved, Zone
from pillion_sidecar.table.known import Known

IDLE_S = 10.0
MAX_CONNECTIONS = 64
MAX_WAITING = 256  # queries that wait for host names
AT_ONCE = 16  # queries of one connection before others have their turn
PORT_TRIES = 16  # port 0: the one that TCP got may be taken over UDP

Send = Callable[[bytes], None]

_log = EventLog("dns")


class DnsServer:
    """Answers queries about what a table knows.

    Args:
        table: what is known.
        address: where to listen; an IP address, port 0 lets the system choose.
        own_zone: where the app runs; providers there have the better priority.
        domain: the zone's name.
        idle_s: time without a whole query after which a TCP connection is closed.
        hosts: how the host names of providers resolve; None: as the system says.
    """

    def __init__(
        self,
        table: Known,
        address: Address,
        own_zone: str = "",
        domain: str = "pillion",
        *,
        idle_s: float = IDLE_S,
        hosts: HostNames | None = None,
    ) -> None:
        self._address = address
        self._idle_s = idle_s
        self._hosts = hosts or HostNames(domain)
        self._zone = Zone(table, own_zone, domain, self._hosts.get)
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._connections: OrderedDict[_Connection, None] = OrderedDict()  # the one that was silent for longest comes first
        self._waiting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def listen(self) -> str:
        """Start answering.

        Returns:
            The address listened on, with the real port, like dns://127.0.0.1:5300.

        Raises:
            OSError: the address is taken or not ours.
        """
        host = self._address.host
        if not host.startswith("127.") and host != "::1":
            _log.warning("dns_open", f"PILLION_DNS={self._address}: all who reach it may ask what is where; 127.0.0.1 is for the app alone")
        try:
            port = await self._bind()
        except OSError as exc:
            raise OSError(exc.errno, f"cannot listen on {self._address} for DNS: {(exc.strerror or str(exc)).lower()}") from exc
        assert self._listener is not None
        self._listener.start()
        return f"dns://{Address(host, port)}"

    def close(self) -> None:
        """Stop, and drop who is connected."""
        if self._listener is not None:
            self._listener.close()
        if self._udp is not None:
            self._udp.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.drop()
        for task in self._waiting:
            task.cancel()

    def take(self, query: bytes, send: Send, *, udp: bool, on_answered: Callable[[], None] | None = None) -> bool:
        """Answer a query, now or when the host names it takes are looked up.

        Args:
            send: called with the answer, at most once.
            on_answered: called when a query that had to wait is done with.

        Returns:
            False if it has to wait.
        """
        try:
            answer = self._answer(query, udp)
        except Unresolved as exc:
            if len(self._waiting) < MAX_WAITING:
                task = self._loop.create_task(self._answer_later(query, exc.hosts, send, udp, on_answered), name="dns-hosts")
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
                return False
            answer = refusal(query, SERVFAIL)
        if answer is not None:
            send(answer)
        return True

    def admit(self, connection: _Connection) -> None:
        """Take a connection in; if there are too many, the one that was silent for longest goes."""
        self._connections[connection] = None
        if len(self._connections) > MAX_CONNECTIONS:
            next(iter(self._connections)).drop()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._idle_s, self._drop_idle)

    def heard(self, connection: _Connection) -> None:
        """Note that a connection has done something useful."""
        connection.heard_at = self._loop.time()
        if connection in self._connections:
            self._connections.move_to_end(connection)

    def forget(self, connection: _Connection) -> None:
        """Let a closed connection go."""
        self._connections.pop(connection, None)

    def _drop_idle(self) -> None:
        self._sweep = None
        now = self._loop.time()
        while self._connections:
            first = next(iter(self._connections))
            left_s = first.heard_at + self._idle_s - now
            if left_s > 0:
                self._sweep = self._loop.call_later(left_s, self._drop_idle)
                return
            first.drop()

    async def _bind(self) -> int:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for left in reversed(range(PORT_TRIES)):
            self._listener = Listener(family, (host, port), lambda: _Connection(self))
            udp = socket.socket(family, socket.SOCK_DGRAM)
            try:
                if family == socket.AF_INET6:
                    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                udp.bind((host, self._listener.port))
                udp.setblocking(False)
                self._udp, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
                return self._listener.port
            except OSError as exc:
                udp.close()
                self._listener.close()
                if port or not left or exc.errno != errno.EADDRINUSE:
                    raise
        raise AssertionError("the last try returns or raises")

    def _answer(self, query: bytes, udp: bool) -> bytes | None:
        try:
            return self._zone.answer(query, udp=udp)
        except Unresolved:
            raise
        except Exception as exc:  # the outermost guard: one query must not end the answering of others
            _log.fault("dns_failed", f"a query failed with {type(exc).__name__}: {exc}; it was {query.hex()}", exc)
            return refusal(query, SERVFAIL)

    async def _answer_later(self, query: bytes, hosts: set[str], send: Send, udp: bool, on_answered: Callable[[], None] | None) -> None:
        await self._hosts.look_up(hosts)
        try:
            answer = self._answer(query, udp)
        except Unresolved:
            answer = refusal(query, SERVFAIL)  # the table has others now
        if answer is not None:
            send(answer)
        if on_answered is not None:
            on_answered()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.take(data, lambda answer: self._send(answer, addr), udp=True)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True

    def error_received(self, exc: Exception) -> None:
        """Somebody did not wait for an answer: nobody's fault."""

    def _send(self, answer: bytes, peer: tuple[Any, ...]) -> None:
        if self._writable and not self._transport.is_closing():  # else it is lost, as UDP may
            self._transport.sendto(answer, peer)


class _Connection(asyncio.Protocol):
    """One client over TCP: each message has its length in two bytes before it.

    Many may be sent at once; each is answered as soon as it can be.
    """

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._read = bytearray()
        self._waiting = 0
        self._writable = True
        self._again: asyncio.Handle | None = None
        self._ended = False
        self._paused = False
        self.heard_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        if self._again is not None:
            self._again.cancel()

    def data_received(self, data: bytes) -> None:
        self._read += data
        self._serve()

    def eof_received(self) -> bool:
        self._ended = True  # who has asked and said that it will ask no more still gets its answers
        self._serve()
        return not self._transport.is_closing()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._serve()

    def drop(self) -> None:
        """Close at once."""
        self._server.forget(self)
        self._transport.abort()

    def _serve(self) -> None:
        """Take the next queries, if there is room for their answers."""
        self._again = None
        for _ in range(AT_ONCE):
            size = int.from_bytes(self._read[:2], "big")
            if len(self._read) >= 2 and not HEADER_BYTES <= size <= MAX_QUERY_BYTES:
                self.drop()  # no query is like that, and there is no telling where the next one begins
                return
            if len(self._read) < 2 + size or not self._read or not self._writable or self._waiting >= AT_ONCE:
                break
            query = bytes(self._read[2 : 2 + size])
            del self._read[: 2 + size]
            self._server.heard(self)
            self._waiting += not self._server.take(query, self._send, udp=False, on_answered=self._answered)
        else:
            self._again = self._loop.call_soon(self._serve)
        self._go_on()

    def _go_on(self) -> None:
        """Read on if there is room for more; close when all is said."""
        full = self._again is not None or not self._writable or self._waiting >= AT_ONCE
        if self._ended and not full and not self._waiting:
            self._transport.close()  # what is left in self._read is no whole query
        elif full is not self._paused and not self._ended and not self._transport.is_closing():
            self._paused = full
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    def _answered(self) -> None:
        self._waiting -= 1
        if self._again is None:
            self._again = self._loop.call_soon(self._serve)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(len(answer).to_bytes(2, "big") + answer)
