"""The crowd of the suite with three registries: once its changes are paused, nobody changes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from churn import Churn, Provider
from truth import Truth


async def test_a_change_that_was_due_when_they_were_paused_is_not_made() -> None:
    made: list[str] = []
    provider = Provider(1, "Db", classic=False)
    churn = Churn([provider], Truth({}), cast(Any, None), per_second=20)
    churn._start = lambda one: made.append(one.service)  # type: ignore[method-assign]
    churn.go_on()
    running = asyncio.create_task(churn.run())
    await asyncio.sleep(0.01)  # the next one is due 40 ms later
    await churn.pause()
    await asyncio.sleep(0.1)
    assert made == []
    churn.go_on()
    await asyncio.sleep(0.1)
    assert made
    running.cancel()
