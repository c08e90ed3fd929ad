"""What the checks of one of several registries ask of the bucket: each change once, and looked at again where it came to nothing.

While NATS takes nothing, what has died stays in everybody's tables; so once it does, those that were found are looked at first, and not
when their turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pillion_common.errors import PillionError, StorageFull
from pillion_common.models import State

FIRST_PAUSE_S, MOST_PAUSE_S = 0.25, 4.0


class Proposals:
    """Changes of state that are on their way, by instance, and those that have to be found anew.

    Args:
        look: checks these instances as soon as there is time for it.
        ready: whether a change may be asked for now.
    """

    def __init__(self, look: Callable[[Iterable[str]], None], ready: Callable[[], bool]) -> None:
        self._look = look
        self._ready = ready
        self._under_way: dict[str, State] = {}
        self._unmade: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = FIRST_PAUSE_S

    def begin(self, instance_id: str, state: State) -> bool:
        """Return whether a change is to be asked for: not while it is already, nor while nothing may be; then it is found again."""
        if self._under_way.get(instance_id) is state:
            return False
        if not self._ready():
            self._note_unmade(instance_id)
            return False
        self._under_way[instance_id] = state
        return True

    def end(self, instance_id: str, state: State, fault: PillionError | None) -> None:
        """Note how it ended. What is full stays so for a while: then the instance's next turn will do."""
        if self._under_way.get(instance_id) is state:
            del self._under_way[instance_id]
        if fault is None:
            self._pause_s = FIRST_PAUSE_S
        elif not isinstance(fault, StorageFull):
            self._note_unmade(instance_id)

    def forget(self, instance_id: str) -> None:
        """Think of an instance no more."""
        self._unmade.discard(instance_id)

    def close(self) -> None:
        """Look at nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _note_unmade(self, instance_id: str) -> None:
        self._unmade.add(instance_id)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._look_again)
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)  # NATS may refuse as fast as it is asked

    def _look_again(self) -> None:
        self._timer = None
        if not self._unmade:
            return
        if not self._ready():
            self._timer = asyncio.get_running_loop().call_later(FIRST_PAUSE_S, self._look_again)
            return
        unmade, self._unmade = self._unmade, set()
        self._look(unmade)
