"""Syslog on loopback, over UDP and TCP at one port: each message becomes an entry of the app beside this sidecar.

`<11>1 2026-10-11T22:14:15.003Z web1 shop 8710 ID47 [ex@32473 user="eve"] it fails` becomes
`{"Time":"2026-10-11T22:14:15.003Z","Level":"error","Message":"it fails","App":"shop","Process":"8710","Kind":"ID47",
"ex@32473":{"user":"eve"},…}`, with this app's Service and Instance.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from pillion_common.config import Address
from pillion_common.logs import EventLog
from pillion_common.syslog import Frame, FrameReader, parse
from pillion_sidecar.logs.entry import MAX_LINE_BYTES, Entry, EntryMaker, cut_mark
from pillion_sidecar.logs.sink import Sink

_log = EventLog("syslog")

MAX_CONNECTIONS = 64
RECEIVE_BYTES = 1024 * 1024  # of datagrams that wait in the kernel; it may grant less
BIND_TRIES = 20  # of a port that is free for both, if the system may choose
OWN = frozenset(("Time", "Service", "Instance", "Level", "Message", "Source", "Seq", "Gap", "Cut", "From", "To", "Received"))


class SyslogListener:
    """Takes syslog messages.

    Args:
        clock: seconds since 1970.
        offset_s: what senders' clocks are ahead of UTC at a time, for those that do not say.
    """

    def __init__(
        self, maker: EntryMaker, sink: Sink, clock: Callable[[], float] = time.time, offset_s: Callable[[float], float] | None = None
    ) -> None:
        self._maker = maker
        self._sink = sink
        self._clock = clock
        self._offset_s = offset_s or _local_offset_s
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.connections: set[asyncio.Transport] = set()

    async def listen(self, address: Address) -> str:
        """Start listening; return where, e.g. syslog://127.0.0.1:5514.

        Raises:
            OSError: the address is taken or not ours.
        """
        loop = asyncio.get_running_loop()
        stream, datagram = _bind(address)
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagram)
        self._server = await loop.create_server(lambda: _Connection(self), sock=stream)
        return f"syslog://{Address(address.host, stream.getsockname()[1])}"

    def close(self) -> None:
        """Take nothing more."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for transport in list(self.connections):
            transport.abort()

    def take(self, frames: list[Frame]) -> None:
        """Keep messages."""
        self._sink.keep_or_lose([self._entry(frame) for frame in frames])

    def _entry(self, frame: Frame) -> Entry:
        now_s = self._clock()
        message = parse(frame.data, now_s, self._offset_s(now_s))
        told = {"Host": message.host, "App": message.app, "Process": message.process, "Kind": message.kind}
        fields: dict[str, object] = {key: text for key, text in told.items() if text}
        fields.update((key, values) for key, values in message.data.items() if key not in OWN)
        text = message.text or "(an empty message)"
        if frame.missing:
            text, fields["Cut"] = text + cut_mark(frame.missing), frame.missing
        return self._maker.make(text, message.level, message.time, fields)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, listener: SyslogListener) -> None:
        self._listener = listener

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data.strip(b"\r\n\0 "):
            self._listener.take([Frame(data)])


class _Connection(asyncio.Protocol):
    def __init__(self, listener: SyslogListener) -> None:
        self._listener = listener
        self._frames = FrameReader(MAX_LINE_BYTES)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._listener.connections) >= MAX_CONNECTIONS:
            _log.warn_seldom("syslog_connections", f"over {MAX_CONNECTIONS} connections for syslog: one was closed")
            transport.abort()
            return
        self._transport = transport
        self._listener.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._listener.take(self._frames.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._listener.connections.discard(self._transport)
            self._listener.take(self._frames.end())


def _bind(address: Address) -> tuple[socket.socket, socket.socket]:
    """Return sockets for TCP and UDP at the same port."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for left in reversed(range(BIND_TRIES if address.port == 0 else 1)):
        stream, datagram = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind(tuple(address))
            datagram.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            datagram.bind((address.host, stream.getsockname()[1]))
        except OSError as exc:
            stream.close()
            datagram.close()
            if not left:
                raise OSError(exc.errno, f"cannot listen on {address} for syslog: {(exc.strerror or str(exc)).lower()}") from exc
        else:
            return stream, datagram
    raise AssertionError("the last try returns or raises")


def _local_offset_s(now_s: float) -> float:
    return float(time.localtime(now_s).tm_gmtoff)
