"""A bell that wakes all who wait for the next change of the table."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings for those who wait at that moment; it keeps nothing for later."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def waiting(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def ring(self) -> None:
        """Wake all."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return at the next ring, or after timeout_s."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:
            self._waiting.discard(future)
