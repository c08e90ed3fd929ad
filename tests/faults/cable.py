"""A TCP path of one program to one server, on which the packets of one direction, or of both, can be dropped; nothing is closed.

The program connects to an address of the path's own, so that it alone is cut off, by iptables in a network namespace of this process's own.
"""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
from contextlib import suppress

PIECE = 64 * 1024
BOTH, THERE, BACK = "both ways", "to NATS", "from NATS"
TIMEOUT_S = 10
_CLONE_NEWNET = 0x40000000  # linux/sched.h


def leave_network() -> None:
    """Go, with all that this process starts from now on, to a network namespace that has a loopback and nothing else. Needs root.

    Raises:
        OSError: that is not possible.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    _run("ip", "link", "set", "lo", "up")


class Cable:
    """`async with Cable("127.0.0.1:4222") as cable:` connect to `cable.address`; then `cable.cut(BACK)`, `cable.mend()`."""

    def __init__(self, far: str) -> None:
        host, _, port = far.rpartition(":")
        self._far = host, int(port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._rules: list[tuple[str, ...]] = []
        self._port = 0
        self.address = ""

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, self._port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, way: str) -> None:
        """Drop what is sent in one direction or both."""
        for direction, end in ((THERE, "--dport"), (BACK, "--sport")):
            if way in (BOTH, direction):
                rule = ("INPUT", "-i", "lo", "-p", "tcp", end, str(self._port), "-j", "DROP")
                _run("iptables", "-w", "-A", *rule)
                self._rules.append(rule)

    def mend(self) -> None:
        """Drop nothing any more: each side sends again when its TCP does."""
        while self._rules:
            _run("iptables", "-w", "-D", *self._rules.pop())

    async def _carry(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_out: asyncio.StreamWriter | None = None
        try:
            far_in, far_out = await asyncio.open_connection(*self._far)
            await asyncio.gather(_pump(near_in, far_out), _pump(far_in, near_out))
        except OSError:
            pass  # the far end is away, or one end has gone
        finally:
            for writer in (near_out, far_out):
                if writer is not None:
                    writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
