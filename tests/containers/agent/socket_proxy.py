"""A read-only proxy before an engine's socket: GET /containers… and GET /events, 403 for all else. One request a connection."""

from __future__ import annotations

import asyncio
import contextlib
import re

SOCKET = "/var/run/docker.sock"
ALLOWED = re.compile(rb"GET (/v[\d.]+)?/(containers|events)[/?][^ ]* HTTP/1\.1\r\n")


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if ALLOWED.match(head):
            upstream, engine = await asyncio.open_unix_connection(SOCKET)
            engine.write(head)
            await asyncio.gather(pump(upstream, writer), pump(reader, engine))
        else:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "0.0.0.0", 2375)
    async with server:
        await server.serve_forever()


asyncio.run(main())
