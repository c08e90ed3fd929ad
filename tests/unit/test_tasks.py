"""Supervised tasks: none ends unnoticed, all end when told to."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pillion_common.tasks import Supervisor


async def for_ever() -> None:
    await asyncio.Event().wait()


async def break_down() -> None:
    raise RuntimeError("boom")


async def return_at_once() -> None:
    pass


@pytest.mark.parametrize("ending", [break_down, return_at_once])
async def test_a_kept_task_that_ends_sets_failed(ending: object, caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    tasks.keep("worker", ending())  # type: ignore[operator]
    await asyncio.wait_for(tasks.failed.wait(), 5)


async def test_a_kept_task_that_breaks_is_a_logged_fault_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    tasks.keep("prober", break_down())
    await asyncio.wait_for(tasks.failed.wait(), 5)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "task prober ended with RuntimeError: boom" in caplog.text
    assert any(record.exc_info for record in caplog.records)


async def test_a_spawned_task_that_breaks_is_logged_and_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    task = tasks.spawn("check 1", break_down())
    await asyncio.wait([task], timeout=5)
    await asyncio.sleep(0)
    assert "task check 1 ended with RuntimeError: boom" in caplog.text
    assert not tasks.failed.is_set()


async def test_a_spawned_task_that_ends_is_nothing_special(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    await tasks.spawn("check 1", return_at_once())
    await asyncio.sleep(0)
    assert caplog.text == ""
    assert not tasks.failed.is_set()


async def test_stop_cancels_all_and_logs_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    started = [tasks.keep("a", for_ever()), tasks.spawn("b", for_ever())]
    await asyncio.sleep(0)
    await tasks.stop()
    assert all(task.cancelled() for task in started)
    assert caplog.text == ""


async def test_stop_without_tasks_and_stop_twice_do_no_harm() -> None:
    tasks = Supervisor()
    await tasks.stop()
    tasks.keep("a", for_ever())
    await asyncio.sleep(0)
    await tasks.stop()
    await tasks.stop()


async def test_a_task_that_is_stopped_before_its_first_step_is_closed_properly() -> None:
    tasks = Supervisor()
    coroutine = for_ever()
    tasks.keep("a", coroutine)
    await tasks.stop()
    closed = coroutine.cr_frame is None
    coroutine.close()
    assert closed


async def test_stop_waits_only_so_long_for_a_task_that_does_not_listen(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Supervisor()
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    task = tasks.spawn("stubborn", stubborn())
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING):
        await tasks.stop(timeout_s=0.05)
    assert "task stubborn did not end within 0.05 s" in caplog.text
    release.set()
    await asyncio.wait([task], timeout=5)


async def test_a_task_may_stop_its_own_supervisor() -> None:
    tasks = Supervisor()
    other = tasks.spawn("other", for_ever())
    await asyncio.wait_for(tasks.spawn("stopper", tasks.stop()), 5)
    assert other.cancelled()
