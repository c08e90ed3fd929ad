"""The syslog side of the log service: binds TCP and UDP at one address, says who may send, holds the connections."""

from __future__ import annotations

import asyncio
import socket

from pillion_common.config import Address, Network
from pillion_common.http.listener import Listener
from pillion_common.logs import EventLog
from pillion_common.networks import within
from pillion_log.intake import Intake
from pillion_log.metrics import Heard
from pillion_log.syslog.reading import Reading
from pillion_log.syslog.tcp import Connection
from pillion_log.syslog.udp import Datagrams

MAX_CONNECTIONS = 256
SWEEP_S = 5.0
CLOSING_TICK_S = 0.01

_log = EventLog("syslog")


class SyslogService:
    """Takes syslog in.

    Args:
        intake: takes the entries.
        networks: who may send; syslog has no token to show.
    """

    def __init__(self, intake: Intake, networks: tuple[Network, ...]) -> None:
        self.intake = intake
        self.reading = Reading(intake)  # what connections bring
        self._datagrams_reading = Reading(intake)
        self._refused = 0  # connections
        self._networks = networks
        self._connections: set[Connection] = set()
        self._listeners: list[Listener] = []
        self._datagrams: list[Datagrams] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, address: Address) -> str:
        """Start listening, over TCP and UDP at the same port.

        Args:
            address: port 0 lets the system choose.

        Returns:
            The address listened on, with the real port.

        Raises:
            OSError: the address is taken or not ours.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                listener = Listener(family, where, lambda: Connection(self))
                self._listeners.append(listener)
                self._datagrams.append(
                    Datagrams(_bind(family, (where[0], listener.port, *where[2:])), self.intake, self._datagrams_reading, self._allows)
                )
            except OSError as exc:
                raise OSError(exc.errno, f"cannot listen on {address} for syslog: {(exc.strerror or str(exc)).lower()}") from exc
        for listener in self._listeners:
            listener.start()
        for datagrams in self._datagrams:
            datagrams.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="syslog-sweeper")
        return f"syslog://{Address(address.host, self._listeners[0].port)}"

    def heard(self) -> dict[str, Heard]:
        """Return what came so far, by transport; nothing if it does not listen."""
        if not self._listeners:
            return {}
        tcp, udp = self.reading, self._datagrams_reading
        dropped, refused = sum(one.dropped for one in self._datagrams), sum(one.refused for one in self._datagrams)
        return {
            "tcp": Heard(tcp.received, tcp.headless, None, self._refused),
            "udp": Heard(udp.received, udp.headless, dropped, refused),
        }

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop listening and reading, and wait at most so long until what was read is kept."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close()
        for datagrams in self._datagrams:
            await datagrams.close(grace_s)
        try:
            async with asyncio.timeout(grace_s):
                while self._connections:
                    await asyncio.sleep(CLOSING_TICK_S)
        except TimeoutError:
            _log.warning("syslog_lost", "syslog messages that were read could not be kept: the store does not take them")
        for connection in self._connections:
            connection.give_up()

    # From its connections.

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, or say in the log why not."""
        if not self._allows(connection.peer):
            self._refused += 1
            _log.warn_seldom("syslog_refused", f"syslog of {connection.peer} is not taken: list its network in PILLION_CLASSIC_NETWORKS")
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            self._refused += 1
            _log.warn_seldom(
                "syslog_crowded", f"a syslog connection of {connection.peer} is not taken: there are {MAX_CONNECTIONS} already"
            )
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Let a connection go."""
        self._connections.discard(connection)

    def _allows(self, peer: str) -> bool:
        return within(peer, self._networks)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                connection.sweep(now_s)


def _bind(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock
