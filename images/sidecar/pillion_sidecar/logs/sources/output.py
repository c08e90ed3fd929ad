"""The output of a command: through to where ours goes, and line by line into the spool.

A thread of its own reads each of the two and writes it through, so a terminal that stands still stops the command, as it would without us,
and nothing else. What the spool's side cannot take within HAND_S is counted as lost: it stops nobody.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable

from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.sources.stream import EntryStream

PIECE_BYTES = 64 * 1024
PIECES = 16  # on their way from the thread to the loop
HAND_S = 1.0
FLUSH_S = 1.0  # after which a trace is taken as whole
STREAMS = ((1, "stdout"), (2, "stderr"))


class CommandOutput:
    """Takes the output of one command.

    Args:
        join: names of languages whose traces are joined.
    """

    def __init__(self, maker: EntryMaker, sink: Sink, join: Iterable[str]) -> None:
        join = tuple(join)
        self._pumps = [_Pump(descriptor, EntryStream(maker, join, 0, {"Stream": name}), sink) for descriptor, name in STREAMS]

    def open(self) -> tuple[int, int]:
        """Return descriptors for the command's stdout and stderr; `started` or `close` is to follow."""
        stdout, stderr = (pump.open() for pump in self._pumps)
        return stdout, stderr

    def started(self) -> None:
        """The command has its output: read it."""
        for pump in self._pumps:
            pump.start()

    def close(self) -> None:
        """There is no command after all."""
        for pump in self._pumps:
            pump.close()

    async def end(self, timeout_s: float) -> None:
        """Take what is left, for at most timeout_s: what the command started may live on and hold its output open."""
        await asyncio.wait([asyncio.ensure_future(pump.ended.wait()) for pump in self._pumps], timeout=timeout_s)
        for pump in self._pumps:
            pump.finish()


class _Pump:
    """One of the two."""

    def __init__(self, through: int, stream: EntryStream, sink: Sink) -> None:
        self._through = through
        self._stream = stream
        self._sink = sink
        self._room = threading.Semaphore(PIECES)
        self._reading = -1
        self._writing = -1
        self._flush: asyncio.TimerHandle | None = None
        self._finished = False
        self.ended = asyncio.Event()

    def open(self) -> int:
        self._reading, self._writing = os.pipe()
        return self._writing

    def start(self) -> None:
        os.close(self._writing)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._pump, args=(loop,), daemon=True).start()

    def close(self) -> None:
        os.close(self._writing)
        os.close(self._reading)

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            if self._flush is not None:
                self._flush.cancel()
            self._keep(self._stream.end())

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read until the end. In a thread of its own."""
        through, lost = True, 0
        try:
            while data := os.read(self._reading, PIECE_BYTES):
                through = through and _write_all(self._through, data)
                if self._room.acquire(timeout=HAND_S):
                    loop.call_soon_threadsafe(self._take, data, lost)
                    lost = 0
                else:
                    lost += data.count(b"\n")
            loop.call_soon_threadsafe(self._end, lost)
        except (OSError, RuntimeError):
            pass  # the loop has ended, and so do we
        finally:
            os.close(self._reading)

    def _take(self, data: bytes, lost: int) -> None:
        self._room.release()
        if lost:
            self._keep(self._stream.end())
            self._sink.lose(lost)
        if self._finished:
            return
        self._keep(self._stream.feed(data))
        if self._flush is not None:
            self._flush.cancel()
        self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_now) if self._stream.holds else None

    def _flush_now(self) -> None:
        self._keep(self._stream.flush())

    def _end(self, lost: int) -> None:
        self.finish()
        if lost:
            self._sink.lose(lost)
        self.ended.set()

    def _keep(self, placed: Iterable[tuple[dict[str, object], int]]) -> None:
        self._sink.keep_or_lose([entry for entry, _ in placed])


def _write_all(descriptor: int, data: bytes) -> bool:
    """Write; False if nobody reads there any more."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        return False
    return True
