"""Withdrawals under way: who has yet to acknowledge that a provider is gone. What a drain waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pillion_registry.dependent import Dependent


class _Withdrawal:
    def __init__(self, name: str, url: str, waiting: Iterable[str]) -> None:
        self.name = name
        self.url = url
        self.waiting = dict.fromkeys(waiting)
        self.over = asyncio.Event()

    def strike(self, instance_id: str) -> None:
        self.waiting.pop(instance_id, None)
        if not self.waiting:
            self.over.set()


class Withdrawals:
    """Those that somebody waits for; at most one for each request that is being answered."""

    def __init__(self) -> None:
        self._open: set[_Withdrawal] = set()

    async def wait(self, name: str, url: str, waiting: Iterable[str], timeout_s: float) -> tuple[int, tuple[str, ...]]:
        """Wait until all of `waiting` have acknowledged, or were released.

        Returns:
            How many did, and the ids of those that did not within timeout_s.
        """
        withdrawal = _Withdrawal(name, url, waiting)
        total = len(withdrawal.waiting)
        if total:
            self._open.add(withdrawal)
            try:
                async with asyncio.timeout(timeout_s):
                    await withdrawal.over.wait()
            except TimeoutError:
                pass
            finally:
                self._open.discard(withdrawal)
        return total - len(withdrawal.waiting), tuple(withdrawal.waiting)

    def acknowledged(self, dependent: Dependent) -> None:
        """Note that a dependent has answered a patch."""
        for withdrawal in list(self._open):
            if dependent.instance_id in withdrawal.waiting and not dependent.may_know(withdrawal.name, withdrawal.url):
                withdrawal.strike(dependent.instance_id)

    def release(self, instance_id: str) -> None:
        """Wait no longer for a dependent that is gone."""
        for withdrawal in list(self._open):
            withdrawal.strike(instance_id)
