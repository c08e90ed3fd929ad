"""A TCP path on which one direction, or both, can be cut and mended: what was sent is held meanwhile, and nothing is closed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

PIECE = 64 * 1024
BOTH, THERE, BACK = "both ways", "to NATS", "from NATS"


class Cable:
    """`async with Cable("127.0.0.1:4222") as cable:` connect to `cable.address`; then `cable.cut(BACK)`, `cable.mend()`."""

    def __init__(self, far: str) -> None:
        host, _, port = far.rpartition(":")
        self._far = host, int(port)
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.mend()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, way: str) -> None:
        """Let nothing through in one direction or both. A new connection needs both."""
        if way in (BOTH, THERE):
            self._there.clear()
        if way in (BOTH, BACK):
            self._back.clear()

    def mend(self) -> None:
        """Let through what was held, and all that comes."""
        self._there.set()
        self._back.set()

    async def _carry(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_out: asyncio.StreamWriter | None = None
        try:
            await self._there.wait()
            await self._back.wait()
            far_in, far_out = await asyncio.open_connection(*self._far)
            await asyncio.gather(self._pump(near_in, far_out, self._there), self._pump(far_in, near_out, self._back))
        except OSError:
            pass  # the far end is away, or one end has gone
        finally:
            for writer in (near_out, far_out):
                if writer is not None:
                    writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
        while True:
            piece = await reader.read(PIECE)
            await open_.wait()
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
