"""What classic dependents know goes from one registry to another: what is kept, what is in doubt, and who may tell."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any, cast

import pytest

from pillion_common.errors import Unavailable
from pillion_common.models import Patch, ProviderEntry
from pillion_common.nats_stream import Overtaken
from pillion_registry import handover
from pillion_registry.dependent import Delivery, Dependent, Knowledge
from pillion_registry.handover import Handover
from pillion_registry.provider_set import ProviderSet
from pillion_registry.store.nats_bucket import Entry
from pillion_registry.store.nats_wire import Told, read_told, write

X, Y, Z = (ProviderEntry("Db", f"http://10.0.0.{number}:80") for number in (1, 2, 3))
ANSWERED_S = 0.3


class FakeBucket:
    """A bucket in memory that can be made to fail; `before` is called before each put."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.seq = 0
        self.fails = False
        self.before = lambda: None
        self.most = self.under_way = 0

    async def get(self, key: str) -> Entry | None:
        await asyncio.sleep(0)
        if self.fails:
            raise Unavailable("NATS does not answer")
        return self.entries.get(key)

    async def put(self, key: str, value: bytes, expected: int, give_up_s: float, deletes: bool = False) -> int:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.before()
        if self.fails:
            raise Unavailable("NATS does not answer")
        found = self.entries.get(key)
        if (found.seq if found else 0) != expected:
            raise Overtaken
        self.seq += 1
        self.entries[key] = Entry(self.seq, key, value, deletes)
        return self.seq

    def told(self) -> Told:
        return read_told(self.entries["i1"].value)


class Lab:
    def __init__(self) -> None:
        self.bucket = FakeBucket()
        self.live = {"one", "other"}
        self.one, self.other = (self.handover(name) for name in ("one", "other"))

    def handover(self, name: str) -> Handover:
        return Handover(cast(Any, self.bucket), name, self.live.__contains__, ANSWERED_S)


def dependent(*known: ProviderEntry, generation: int = 1) -> Dependent:
    sets = MappingProxyType({"Db": ProviderSet({entry.url: entry for entry in known})})
    return Dependent("i1", generation, ("Db",), True, Knowledge(sets, None))


def delivery(added: tuple[ProviderEntry, ...] = (), removed: tuple[ProviderEntry, ...] = ()) -> Delivery:
    return Delivery(Patch(added=added, removed=removed, revision=1, epoch="e"), Knowledge(MappingProxyType({}), None))


def known(*entries: ProviderEntry) -> dict[str, tuple[ProviderEntry, ...]]:
    return {"Db": entries}


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def test_one_that_has_just_registered_knows_nothing(lab: Lab) -> None:
    assert not lab.one.holds(dependent())
    assert await lab.one.take("i1", 1) == ({}, ())
    assert lab.one.holds(dependent())
    assert not lab.one.holds(dependent(generation=2))
    assert lab.bucket.told() == Told(1, {}, (), "one")


async def test_before_a_patch_it_is_in_doubt_and_after_the_answer_it_is_known(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    assert await lab.one.telling(dependent(X), delivery((Y,), (X,)))
    told = lab.bucket.told()
    assert (told.known, {entry.url for entry in told.doubts}) == (known(X), {X.url, Y.url})
    assert await lab.one.told(dependent(Y), known(Y))
    assert lab.bucket.told() == Told(1, known(Y), (), "one")


async def test_patches_that_were_not_answered_stay_in_doubt_beside_each_other(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(), delivery((X,)))
    await lab.one.telling(dependent(), delivery((Y,)))
    assert lab.bucket.told().doubts == (X, Y)
    lab.live.remove("one")
    assert await lab.other.take("i1", 1) == (known(), (X, Y))
    await lab.other.telling(dependent(), delivery((), (X, Y)))
    assert lab.bucket.told().doubts == (X, Y)
    await lab.other.told(dependent(), {})
    assert lab.bucket.told().doubts == ()


async def test_a_patch_that_was_answered_is_kept_together_with_the_next_and_in_doubt_no_more(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    first = delivery(added=(X,))._replace(result=dependent(X).known)
    assert await lab.one.telling(dependent(), first)
    answered = dependent(X)
    answered.known = first.result
    assert await lab.one.telling(answered, delivery(added=(Y,)))
    told = lab.bucket.told()
    assert (told.known, told.doubts) == (known(X), (Y,))


async def test_whoever_takes_it_over_keeps_the_one_before_from_telling(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.told(dependent(X), known(X))
    assert await lab.other.take("i1", 1) == (known(X), ())
    assert lab.one.holds(dependent())  # it does not know yet
    assert not await lab.one.telling(dependent(X), delivery((Y,)))
    assert not lab.one.holds(dependent())
    assert await lab.other.telling(dependent(X), delivery((Z,)))
    assert lab.bucket.told() == Told(1, known(X), (Z,), "other")


async def test_it_waits_for_the_answer_that_a_live_teller_may_just_get(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(), delivery((X,)))
    taking = asyncio.create_task(lab.other.take("i1", 1))
    await asyncio.sleep(0.05)
    assert not taking.done()
    assert await lab.one.told(dependent(X), known(X))
    assert await taking == (known(X), ())


async def test_it_does_not_wait_for_longer_than_an_answer_takes(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(), delivery((X,)))
    began = asyncio.get_running_loop().time()
    assert await lab.other.take("i1", 1) == (known(), (X,))
    assert ANSWERED_S <= asyncio.get_running_loop().time() - began < 3 * ANSWERED_S


async def test_it_does_not_wait_for_the_dead(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(), delivery((X,)))
    lab.live.remove("one")
    began = asyncio.get_running_loop().time()
    assert await lab.other.take("i1", 1) == (known(), (X,))
    assert asyncio.get_running_loop().time() - began < 0.05


async def test_it_waits_for_its_own_patch_as_well_where_it_takes_one_anew(lab: Lab) -> None:
    """Else what settles the doubt and the patch that is under way would race to the dependent."""
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(), delivery((X,)))
    began = asyncio.get_running_loop().time()
    assert await lab.one.take("i1", 1) == (known(), (X,))
    assert asyncio.get_running_loop().time() - began >= ANSWERED_S


async def test_one_that_has_registered_anew_is_in_no_doubt(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    await lab.one.telling(dependent(X), delivery((Y,)))
    assert await lab.one.take("i1", 2) == ({}, ())
    assert not await lab.one.told(dependent(X, generation=1), known(X))  # late
    assert lab.bucket.told() == Told(2, {}, (), "one")


async def test_what_nobody_can_read_is_nothing(lab: Lab) -> None:
    lab.bucket.entries["i1"] = Entry(5, "i1", b"what?", False)
    lab.bucket.seq = 5
    assert await lab.one.take("i1", 1) == ({}, ())


async def test_who_is_overtaken_while_it_takes_over_looks_again(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    turns = iter(range(3))

    def overtake() -> None:
        if next(turns, None) is not None:
            lab.bucket.seq += 1
            lab.bucket.entries["i1"] = Entry(lab.bucket.seq, "i1", write(Told(1, known(Z), (), "third")), False)

    lab.bucket.before = overtake
    assert await lab.other.take("i1", 1) == (known(Z), ())
    turns = iter(range(1000))
    with pytest.raises(Unavailable, match="others keep what i1 knows"):
        await lab.other.take("i1", 1)


async def test_while_nothing_can_be_kept_nothing_may_be_sent_and_it_stays_whose_it_is(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    lab.bucket.fails = True
    assert not await lab.one.telling(dependent(), delivery((X,)))
    assert not await lab.one.told(dependent(X), known(X))
    with pytest.raises(Unavailable):
        await lab.other.take("i1", 1)
    assert lab.one.holds(dependent())
    lab.bucket.fails = False
    assert await lab.one.telling(dependent(), delivery((X,)))
    lab.one.drop("i1")
    assert not await lab.one.told(dependent(X), known(X))


async def test_hundreds_that_are_taken_over_leave_room_for_what_is_kept_before_a_patch(lab: Lab) -> None:
    await lab.one.take("i1", 1)
    taking = asyncio.gather(*(lab.one.take(f"j{number}", 1) for number in range(300)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await lab.one.telling(dependent(), delivery((X,)))
    assert not taking.done()
    await taking
    assert handover.TAKES_AT_ONCE <= lab.bucket.most <= handover.TAKES_AT_ONCE + 1
