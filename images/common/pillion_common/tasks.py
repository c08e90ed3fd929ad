"""Supervised tasks: each is named, owned, and never ends unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pillion_common.logs import EventLog

_log = EventLog("tasks")


class Supervisor:
    """Owns tasks. `keep` is for those that must run as long as the program: when one ends, `failed` is set and the program stops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = asyncio.Event()

    def keep(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that only cancellation may end."""
        task = self._start(name, coroutine)
        # Cancellation comes from stop(), where a set event no longer matters.
        task.add_done_callback(lambda _: self.failed.set())
        return task

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends by itself; an exception it leaks is a logged fault."""
        return self._start(name, coroutine)

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel all tasks and wait for them, at most timeout_s."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=timeout_s)
            for task in pending:
                _log.warning("task_stuck", f"task {task.get_name()} did not end within {timeout_s:g} s")

    def _start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.fault("task_failed", f"task {task.get_name()} ended with {type(exc).__name__}: {exc}", exc)
