"""The thread that does what blocks, one piece of work after the other, and tells the loop of each.

It is given ready bytes and calls little but the system, which takes no time from the loop's thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

Work = Callable[[], None]
Then = Callable[[OSError | None], None]


class Writer:
    """A thread of its own for one loop's blocking work. `start` and all else are called in that loop's thread."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[tuple[Work, Then] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def do(self, work: Work, then: Then) -> None:
        """Call `work` in the thread, and `then` in the loop's, with the OSError it raised or None."""
        self._tasks.put((work, then))

    async def stop(self) -> None:
        """End once all that was given is done. Safe to call twice, and before it began."""
        if self._thread.is_alive():
            self._tasks.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while self._do(self._tasks.get()):
            pass

    def _do(self, task: tuple[Work, Then] | None) -> bool:
        if task is None:
            return False
        work, then = task
        error = None
        try:
            work()
        except OSError as exc:
            error = exc
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(then, error)
        return True
