"""Forgets who has been gone for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pillion_common.errors import PillionError
from pillion_registry.absences import Absences
from pillion_registry.catalog import Catalog, Instance

TICK_S = 10.0


async def forget_old(catalog: Catalog, limit_s: float, clock: Callable[[], float], forget: Callable[[Instance], Awaitable[None]]) -> None:
    """Forget who has been gone for longer than limit_s, for ever.

    Args:
        forget: raises a PillionError where it cannot now; the next round tries again.
    """
    absences = Absences(catalog, clock(), time.monotonic())
    while True:
        await asyncio.sleep(min(TICK_S, limit_s / 4))
        for instance in absences.over(catalog, limit_s, clock(), time.monotonic()):
            try:
                await forget(instance)
            except PillionError:
                break  # logged
