"""Lanes: one after another where keys are shared, side by side where they are not."""

from __future__ import annotations

import asyncio

from pillion_registry.lanes import Lanes


class Course:
    """Runners that each note when they enter and leave."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.notes: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def start(self, name: str, *keys: str) -> asyncio.Task[None]:
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._run(name, keys))

    async def _run(self, name: str, keys: tuple[str, ...]) -> None:
        async with self.lanes.hold(*keys):
            self.notes.append(f"+{name}")
            await self.gates[name].wait()
            self.notes.append(f"-{name}")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_with_a_common_key_go_in_the_order_they_came() -> None:
    course = Course()
    tasks = [course.start("a", "1"), course.start("b", "1", "2"), course.start("c", "2")]
    await settle()
    assert course.notes == ["+a", "+c"]
    for name in "abc":
        course.gates[name].set()
    await asyncio.gather(*tasks)
    assert course.notes == ["+a", "+c", "-a", "-c", "+b", "-b"]
    assert course.lanes.busy == {}


async def test_two_who_want_the_same_keys_in_another_order_do_not_block_each_other() -> None:
    course = Course()
    tasks = [course.start("a", "1", "2"), course.start("b", "2", "1")]
    for name in "ab":
        course.gates[name].set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert course.notes == ["+a", "-a", "+b", "-b"]


async def test_one_who_gives_up_waiting_lets_the_next_pass() -> None:
    course = Course()
    first, second, third = (course.start(name, "1") for name in "abc")
    await settle()
    second.cancel()
    await settle()
    course.gates["a"].set()
    course.gates["c"].set()
    await asyncio.gather(first, third)
    assert course.notes == ["+a", "-a", "+c", "-c"]
    assert course.lanes.busy == {}


async def test_one_who_gives_up_just_as_its_turn_comes_passes_it_on() -> None:
    course = Course()
    first, second, third = (course.start(name, "1") for name in "abc")
    await settle()
    course.gates["a"].set()
    await asyncio.sleep(0)  # the first leaves now: the turn is the second's, which has not run yet
    second.cancel()
    course.gates["c"].set()
    await asyncio.gather(first, third)
    assert course.notes == ["+a", "-a", "+c", "-c"]
    assert course.lanes.busy == {}


async def test_one_who_is_cancelled_while_it_waits_for_its_second_key_gives_the_first_back() -> None:
    course = Course()
    first, second = course.start("a", "2"), course.start("b", "1", "2")
    await settle()
    second.cancel()
    await settle()
    assert list(course.lanes.busy) == ["2"]
    course.gates["a"].set()
    await first
    assert course.lanes.busy == {}


async def test_a_key_given_twice_is_held_once() -> None:
    course = Course()
    task = course.start("a", "1", "1")
    course.gates["a"].set()
    await task
    assert course.lanes.busy == {}
