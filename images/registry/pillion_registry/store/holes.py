"""Holds messages back where earlier ones are missing, until what took their place has come too. Knows nothing of what they say.

A bucket has one message for each key. Who follows slowly never sees what was replaced meanwhile, and would show what came after it as if it
had never been: at one revision something else than a registry that was faster. What has replaced the missing was in the stream when the
hole was seen, so it is among the messages that were still to come then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pillion_registry.store.nats_bucket import Entry

HOLD_S = 1.0  # then what is there is handed on as it is: a registry that never catches up must show something


class Holes:
    """Hands messages on in their order, those that belong together within one turn of the loop.

    Args:
        hand_on: must not raise.
    """

    def __init__(self, hand_on: Callable[[Entry], None]) -> None:
        self._hand_on = hand_on
        self._last = 0
        self._left = 0  # messages until the hole is filled
        self._held: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, entry: Entry) -> None:
        """Take the next message of the stream."""
        missing = entry.seq > self._last + 1
        self._last = entry.seq
        self._left = entry.behind if missing else min(self._left - 1, entry.behind)
        self._held.append(entry)
        if self._left <= 0:
            self.close()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD_S, self.close)

    def close(self) -> None:
        """Hand on all that is held back."""
        self._left = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for entry in held:
            self._hand_on(entry)
