"""A store that forgets: for tests, and for those who want a registry without a disk."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from pillion_registry.store.base import REVISION_GAP, Acknowledged, Change, OnDone, Put, Remove, SetState, Store, Stored, StoredInstance


class MemoryStore(Store):
    """Keeps everything in this object: durable as long as it lives, not over a restart of the process."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._revision = 0
        self._instances: dict[str, StoredInstance] = {}

    async def load(self) -> Stored:
        """Return all that was kept."""
        if self._revision:
            self._revision += REVISION_GAP
        return Stored(self._epoch, self._revision, tuple(self._instances.values()))

    def submit(self, changes: Sequence[Change], on_done: OnDone) -> None:
        """Keep the changes at once; `on_done` is called in the loop's next turn."""
        for change in changes:
            self._apply(change)
        asyncio.get_running_loop().call_soon(on_done, None)

    async def close(self) -> None:
        """Do nothing: there is nothing to finish."""

    def _apply(self, change: Change) -> None:
        match change:
            case Put(record, state, since_s, replaced, revision):
                for instance_id in replaced:
                    self._instances.pop(instance_id, None)
                self._instances[record.instance_id] = StoredInstance(record, state, since_s, None, None)
                self._revision = max(self._revision, revision)
            case Remove(instance_id, generation, revision):
                if self._same(instance_id, generation):
                    del self._instances[instance_id]
                self._revision = max(self._revision, revision)
            case SetState(instance_id, generation, state, reason, since_s, revision):
                self._revision = max(self._revision, revision)
                if stored := self._same(instance_id, generation):
                    self._instances[instance_id] = stored._replace(state=state, reason=reason, since_s=since_s)
            case Acknowledged(instance_id, generation, known):
                if stored := self._same(instance_id, generation):
                    self._instances[instance_id] = stored._replace(known=known)

    def _same(self, instance_id: str, generation: int) -> StoredInstance | None:
        stored = self._instances.get(instance_id)
        return stored if stored and stored.record.generation == generation else None
