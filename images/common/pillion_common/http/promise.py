"""A response that comes later, without the price of a task: for hot routes that answer many requests at one moment (a group commit)."""

from __future__ import annotations

from collections.abc import Callable

from pillion_common.errors import PillionError
from pillion_common.http.message import Response

Outcome = Response | PillionError


class Promise:
    """Settled once, by whoever does the work; listened to once, by the connection that waits to answer."""

    __slots__ = ("_listener", "_outcome")

    def __init__(self) -> None:
        self._listener: Callable[[Outcome], None] | None = None
        self._outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        """Give the response, or the error that is its answer. In the loop's thread; a second time counts for nothing."""
        if self._outcome is None:
            self._outcome = outcome
            if self._listener is not None:
                self._listener(outcome)

    def then(self, listener: Callable[[Outcome], None]) -> None:
        """Call the listener once there is an outcome: now, if there is one already."""
        if self._outcome is None:
            self._listener = listener
        else:
            listener(self._outcome)
