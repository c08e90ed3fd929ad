"""A log service that a test can make to fail, refuse and wait."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pillion_common.config import Address
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server


class FakeLog:
    """Takes batches (status `logs`) and classic lines (status `log`); keeps what it took, repeats and all."""

    def __init__(self) -> None:
        self.logs = 200
        self.log = 200
        self.requests: list[Request] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.lines: list[str] = []
        self.answer = b'{"Accepted":1,"Duplicates":0,"Rejected":[]}'
        self.delay_s = 0.0
        self.most = 1_000_000  # batches that it takes; then 503
        self.retry_after = b""
        self.takes_gzip = True
        self.url = ""

    async def serve(self, request: Request) -> Response:
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        if request.path == "/logs":
            body = request.body
            if request.header(b"content-encoding") == b"gzip":
                if not self.takes_gzip:
                    return Response(415, b"no")
                body = zlib.decompress(body, 31)
            if len(self.batches) == self.most:
                self.logs = 503
            if self.logs == 200:
                self.batches.append([json.loads(line) for line in body.splitlines()])
            more = {b"Retry-After": self.retry_after} if self.retry_after else None
            return Response(self.logs, self.answer if self.logs == 200 else b"no", headers=more)
        if self.log == 200:
            self.lines.append(request.body.decode())
        return Response(self.log)

    def messages(self) -> list[str]:
        return [entry["Message"] for batch in self.batches for entry in batch]


@asynccontextmanager
async def fake_log() -> AsyncIterator[FakeLog]:
    fake = FakeLog()
    server = Server(fake.serve)
    fake.url = await server.listen(Address("127.0.0.1", 0))
    try:
        yield fake
    finally:
        await server.close(0.1)
