"""A registry that answers as it is told, and the registrar that talks to it, for tests without processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from pillion_common import config
from pillion_common.config import Address
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.settings import Settings

REGISTERED = b'{"InstanceID":"Portald-1","Revision":7,"Epoch":"e1","State":"starting","HeartbeatInterval":3.0}'

Handler = Callable[[Request], Response | Awaitable[Response]]


class FakeRegistry:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.authorizations: list[bytes] = []
        self.answer: Handler = lambda request: Response(200, REGISTERED if request.method == "POST" else b"")
        self.url = ""

    def serve(self, request: Request) -> Response | Awaitable[Response]:
        self.asked.append((request.method, request.path, request.body))
        self.authorizations.append(request.header(b"authorization"))
        return self.answer(request)

    def methods(self) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.asked]

    def body(self, index: int = 0) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.asked[index][2])
        return body


@asynccontextmanager
async def fake_registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    server = Server(fake.serve)
    fake.url = await server.listen(Address("127.0.0.1", 0))
    try:
        yield fake
    finally:
        await server.close(0.1)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def settings(*registries: str, **more: str) -> Settings:
    words = ["--name", "Portald", "--port", "5000", "--registry", ",".join(registries)]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", value]
    return config.load(Settings, "sidecar", words, {})


@asynccontextmanager
async def running(registrar: Registrar) -> AsyncIterator[Registrar]:
    task = asyncio.create_task(registrar.run(7070))
    try:
        yield registrar
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        registrar.close()
        await asyncio.sleep(0)


async def until(look: Callable[[], object], within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)
