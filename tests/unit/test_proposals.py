"""Changes that NATS did not take are found again as soon as it takes some, and not as fast as it refuses them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import pytest

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.models import State
from pillion_registry import proposals
from pillion_registry.proposals import Proposals

GONE = Unavailable("NATS does not answer")


class Lab:
    """Proposals, whether any may be made, and what was looked at."""

    def __init__(self) -> None:
        self.ready = True
        self.looked: list[set[str]] = []
        self.proposals = Proposals(self.look, lambda: self.ready)

    def look(self, ids: Iterable[str]) -> None:
        self.looked.append(set(ids))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(proposals, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(proposals, "MOST_PAUSE_S", 0.04)
    return Lab()


async def looked(lab: Lab, times: int) -> None:
    async with asyncio.timeout(5):
        while len(lab.looked) < times:
            await asyncio.sleep(0.002)


async def test_a_change_is_asked_for_once_until_it_has_ended(lab: Lab) -> None:
    assert lab.proposals.begin("i1", State.DOWN)
    assert not lab.proposals.begin("i1", State.DOWN)
    assert lab.proposals.begin("i1", State.UP)  # the newest counts
    lab.proposals.end("i1", State.DOWN, None)
    assert not lab.proposals.begin("i1", State.UP)
    lab.proposals.end("i1", State.UP, None)
    assert lab.proposals.begin("i1", State.UP)
    await asyncio.sleep(0.05)
    assert lab.looked == []


async def test_what_was_found_while_nothing_may_be_asked_is_looked_at_once_it_may(lab: Lab) -> None:
    lab.ready = False
    assert not lab.proposals.begin("i1", State.DOWN)
    assert not lab.proposals.begin("i2", State.DOWN)
    lab.proposals.forget("i2")
    await asyncio.sleep(0.05)
    assert lab.looked == []
    lab.ready = True
    await looked(lab, 1)
    assert lab.looked == [{"i1"}]
    assert lab.proposals.begin("i1", State.DOWN)


async def test_what_nats_did_not_take_is_looked_at_again_ever_more_slowly(lab: Lab) -> None:
    loop = asyncio.get_running_loop()
    times = [loop.time()]
    for turn in range(4):
        assert lab.proposals.begin("i1", State.DOWN)
        lab.proposals.end("i1", State.DOWN, GONE)
        await looked(lab, turn + 1)
        times.append(loop.time())
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, (0.009, 0.019, 0.039, 0.039), strict=True)), pauses
    assert lab.proposals.begin("i1", State.DOWN)
    lab.proposals.end("i1", State.DOWN, None)
    assert lab.proposals._pause_s == 0.01


async def test_where_there_is_no_room_its_next_turn_will_do(lab: Lab) -> None:
    assert lab.proposals.begin("i1", State.DOWN)
    lab.proposals.end("i1", State.DOWN, StorageFull("no room"))
    await asyncio.sleep(0.05)
    assert lab.looked == []


async def test_nothing_is_looked_at_after_the_end(lab: Lab) -> None:
    assert lab.proposals.begin("i1", State.DOWN)
    lab.proposals.end("i1", State.DOWN, GONE)
    lab.proposals.close()
    await asyncio.sleep(0.05)
    assert lab.looked == []
