"""Lanes: those who touch the same key pass one after another, in the order they came; all others go side by side. Knows nothing of what the
keys are."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class Lanes:
    """Hands out lanes: `async with lanes.hold("a", "b"): ...`."""

    def __init__(self) -> None:
        self.busy: dict[str, deque[asyncio.Future[None]] | None] = {}  # key -> those who wait for it; None: nobody does

    def hold(self, *keys: str) -> _Hold:
        """Return a context in which all these keys are ours alone."""
        return _Hold(self.busy, sorted(set(keys)))  # in one order everywhere, so that nobody waits in a circle


class _Hold:
    __slots__ = ("_busy", "_held", "_keys")

    def __init__(self, busy: dict[str, deque[asyncio.Future[None]] | None], keys: list[str]) -> None:
        self._busy = busy
        self._keys = keys
        self._held = 0

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                if key in self._busy:
                    await self._wait(key)
                else:
                    self._busy[key] = None
                self._held += 1
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    async def _wait(self, key: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        waiting = self._busy[key] = self._busy[key] or deque()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on(key)  # it was our turn, and we are not there any more
            elif turn in waiting:
                waiting.remove(turn)
            raise

    def _release(self) -> None:
        for key in self._keys[: self._held]:
            self._pass_on(key)
        self._held = 0

    def _pass_on(self, key: str) -> None:
        waiting = self._busy[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._busy[key]
