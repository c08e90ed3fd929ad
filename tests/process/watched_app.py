"""A running check of an app, for tests: its settings, what it told, and how long until it says something."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pillion_common import config
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.settings import Settings

UNCHECKED = "it was not checked yet"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(check: str, port: int, interval_s: float = 1.0, timeout_s: float = 1.0, **more: str) -> Settings:
    given = {"check": check, "check-interval": f"{interval_s:g}s", "check-timeout": f"{timeout_s:g}s", **more}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    return config.load(Settings, "sidecar", ["--name", "A", "--port", str(port), *words], {})


class Watched:
    """A running check, and the (well, reason) pairs it told."""

    def __init__(self, check: str, port: int, interval_s: float, timeout_s: float, more: dict[str, str]) -> None:
        self.told: list[tuple[bool, str]] = []
        self.check = AppCheck(settings(check, port, interval_s, timeout_s, **more), self._note)

    def _note(self, well: bool, reason: str) -> None:
        self.told.append((well, reason))

    async def looked(self, within_s: float = 10.0) -> None:
        """Wait for what the first look found: on a busy machine a command alone takes longer than any fixed pause."""
        async with asyncio.timeout(within_s):
            while self.check.reason == UNCHECKED:
                await asyncio.sleep(0.002)

    async def until(self, well: bool, within_s: float = 3.0) -> float:
        started = time.monotonic()
        async with asyncio.timeout(within_s):
            while self.check.well is not well:
                await asyncio.sleep(0.002)
        return time.monotonic() - started


@asynccontextmanager
async def watched(check: str, port: int, interval_s: float = 0.05, timeout_s: float = 1.0, **more: str) -> AsyncIterator[Watched]:
    seen = Watched(check, port, interval_s, timeout_s, more)
    task = asyncio.create_task(seen.check.run())
    try:
        yield seen
    finally:
        assert not task.done(), "a check goes on for ever"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        seen.check.close()
        await asyncio.sleep(0)
