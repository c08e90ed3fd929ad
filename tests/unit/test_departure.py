"""The answer that lets an app's end wait until nobody comes any more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable

import pytest

from pillion_common.errors import PillionError
from pillion_common.http.message import Request, Response, error_response
from pillion_common.http.router import Router
from pillion_sidecar.local import departure
from pillion_sidecar.local.departure import Departure


async def ask(asked: Departure, target: str = "/drained") -> Response:
    router = Router()
    asked.add_to(router)
    request = Request("GET", target.encode(), [], "10.0.0.1", "1.1", True)
    try:
        handler = router(request)
        assert handler is not None
        answer = handler(request)
        assert isinstance(answer, Awaitable)
        return await answer
    except PillionError as exc:
        return error_response(exc)


async def test_it_answers_once_the_app_is_withdrawn_and_its_last_requests_had_their_time() -> None:
    leaving = Departure(5.0)
    asked = asyncio.create_task(ask(leaving))
    await asyncio.sleep(0.05)
    assert not asked.done()
    leaving.note(grace_s=0.1)
    noted = time.monotonic()
    answer = await asked
    assert (answer.status, json.loads(answer.body)) == (200, {"State": "drained"})
    assert 0.09 < time.monotonic() - noted < 2.0


async def test_it_waits_at_least_as_long_as_asked_for() -> None:
    leaving = Departure(5.0)
    leaving.note(grace_s=0.0)
    began = time.monotonic()
    assert (await ask(leaving, "/drained?least=1")).status == 200
    assert time.monotonic() - began >= 0.99


async def test_an_app_that_is_not_drained_is_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "BEGIN_S", 0.05)
    leaving = Departure(0.0)
    leaving.note(grace_s=0.0)
    leaving.undo()
    answer = await ask(leaving)
    assert (answer.status, json.loads(answer.body)["Error"]) == (504, "not_drained")


@pytest.mark.parametrize("query", ["least=", "least=-1", "least=1.5", "least=301", "least=%C2%B2", "most=1", "least=1&wait=2"])
async def test_what_it_cannot_wait_for_is_refused(query: str) -> None:
    answer = await ask(Departure(0.0), f"/drained?{query}")
    assert (answer.status, json.loads(answer.body)["Error"]) == (400, "invalid_query")


async def test_who_waits_is_counted() -> None:
    leaving = Departure(5.0)
    waiting = [asyncio.create_task(ask(leaving)) for _ in range(departure.MAX_WAITING)]
    await asyncio.sleep(0)
    assert (await ask(leaving)).status == 503
    for task in waiting[1:]:
        task.cancel()
    await asyncio.sleep(0)
    leaving.note(grace_s=0.0)
    assert (await waiting[0]).status == 200
    assert (await ask(leaving)).status == 200
