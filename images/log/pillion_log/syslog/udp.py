"""Syslog over UDP (RFC 5426): one datagram, one message. Nobody can be told to wait: what finds no room is dropped, counted, and told of.

What is dropped here and what the system dropped before we read it (Linux counts that for us: SO_MEMINFO) become a gap entry.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable

from pillion_common.logs import EventLog
from pillion_common.syslog import MAX_FRAME_BYTES
from pillion_log.entries import Run, stamp
from pillion_log.intake import Intake
from pillion_log.syslog.outbox import Outbox
from pillion_log.syslog.reading import Reading

MAX_WAITING_BYTES = 4 * 1024 * 1024
RECEIVE_BYTES = 4 * 1024 * 1024  # what the system is asked to hold for us; it may give less
AT_ONCE = 256  # datagrams read before others have their turn
TELL_S = 1.0
MAX_LAST_TURNS = 1_000  # at the end

_MEMINFO = 55  # asm-generic/socket.h; since Linux 4.12
_MEMINFO_DROPS = struct.Struct("=32xI")  # the last of its nine numbers (linux/sock_diag.h)

_log = EventLog("syslog")


class Missing:
    """Counts what was dropped, and says it once a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first_s = self._last_s = 0.0
        self.count = 0
        self.total = 0

    def add(self, count: int = 1) -> None:
        """Count datagrams that were dropped now."""
        self._last_s = self._clock()
        if not self.count:
            self._first_s = self._last_s
        self.count += count
        self.total += count

    def tell(self) -> tuple[int, str, str]:
        """Return how many were dropped since the last time, and between which times; count anew."""
        told = self.count, stamp(self._first_s), stamp(self._last_s)
        self.count = 0
        return told


class Datagrams:
    """Reads datagrams from a socket.

    Args:
        sock: bound, non-blocking; closed by `close`.
        allowed: says of an IP address whether it may send.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        sock: socket.socket,
        intake: Intake,
        reading: Reading,
        allowed: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._socket = sock
        self._intake = intake
        self._reading = reading
        self._allowed = allowed
        self._outbox = Outbox(intake, MAX_WAITING_BYTES, self._kept)
        self._missing = Missing(clock)
        self._dropped_by_system = 0
        self._teller: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.refused = 0

    @property
    def dropped(self) -> int:
        """Return how many datagrams were dropped."""
        return self._missing.total

    def start(self) -> None:
        """Read from now on."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        except OSError:
            pass  # then less is held
        self._loop.add_reader(self._socket, self._read)

    async def close(self, grace_s: float) -> None:
        """Read what is there, stop reading, and wait at most so long until all of it is kept."""
        if self._socket.fileno() < 0:
            return
        for _ in range(MAX_LAST_TURNS):
            if not self._read():
                break
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._tell(at_once=True)
        try:
            async with asyncio.timeout(grace_s):
                while not self._outbox.empty:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        self._outbox.close()

    def _read(self) -> bool:
        """Read what is there, as much as is read at once; return whether more may be there."""
        more = True
        runs: list[Run] = []
        size = 0
        for _ in range(AT_ONCE):
            try:
                data, sender = self._socket.recvfrom(MAX_FRAME_BYTES)
            except (BlockingIOError, InterruptedError):
                self._note_drops()  # all that were before this moment: as long as there is room, nothing is dropped
                more = False
                break
            except OSError as exc:
                _log.warn_seldom("syslog_failed", f"cannot read datagrams: {exc.strerror}")
                more = False
                break
            if not self._allowed(sender[0]):
                self.refused += 1
                _log.warn_seldom("syslog_refused", f"syslog of {sender[0]} is not taken: list its network in PILLION_CLASSIC_NETWORKS")
            elif self._outbox.full or size >= MAX_WAITING_BYTES:
                self._drop(1)
            elif data:
                run = self._reading.read(data, sender[0])
                size += len(run.lines)
                runs.append(run)
        if runs:
            self._outbox.put(runs)
        return more

    def _note_drops(self) -> None:
        try:
            (count,) = _MEMINFO_DROPS.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _MEMINFO, _MEMINFO_DROPS.size))
        except (OSError, struct.error):
            return  # a system that does not count them
        if more := (count - self._dropped_by_system) & 0xFFFF_FFFF:
            self._dropped_by_system = count
            self._drop(more)

    def _drop(self, count: int) -> None:
        self._missing.add(count)
        if self._teller is None:
            self._teller = self._loop.call_later(TELL_S, self._tell)

    def _tell(self, at_once: bool = False) -> None:
        """Say in an entry and in our own log what was dropped: if there is room for the entry, or at once; else later."""
        if self._teller is not None:
            self._teller.cancel()
            self._teller = None
        if not self._missing.count:
            return
        if self._outbox.full and not at_once:
            self._teller = self._loop.call_later(TELL_S, self._tell)
            return
        count, first, last = self._missing.tell()
        what = f"{count} datagrams of syslog are missing: they came faster than they could be stored"
        _log.warning("syslog_dropped", what, count=count)
        self._outbox.put([self._intake.make_gap(what, count, first, last)])

    def _kept(self) -> None:
        """Need nothing: what was full has room again, and the next datagram finds it."""
