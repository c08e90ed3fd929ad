"""What the catalogue's bucket holds, as far as it was followed. Pure: the same messages lead to the same on every replica.

One service has one instance at a URL. Where two keys claim it, the higher generation has it: generations rise with all that is known to
whoever makes one, so that is the later registration. The other is a loser: not there, to be deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pillion_common.errors import InvalidInput
from pillion_registry.catalog import Record
from pillion_registry.store.nats_bucket import IDENTITY, Entry
from pillion_registry.store.nats_wire import Gone, Kept, read, read_gone, record_of


class Mirrored(NamedTuple):
    """One instance that is there."""

    revision: int
    record: Record
    kept: Kept


class News(NamedTuple):
    """What one message has changed.

    Attributes:
        one: the instance as it is now; None where it is gone, for which `gone` has the reason.
        replaced: ids of others that are not there any more.
    """

    revision: int
    instance_id: str
    one: Mirrored | None
    gone: Gone | None = None
    replaced: tuple[str, ...] = ()


class Mirror:
    """Takes messages in, one after another."""

    def __init__(self) -> None:
        self.revision = 0
        self.instances: dict[str, Mirrored] = {}
        self.losers: dict[str, int] = {}  # key -> its revision
        self.marks: dict[str, tuple[int, float]] = {}  # deleted keys -> the marker's revision, and when it was seen
        self.strange: dict[str, int] = {}  # keys whose last message nobody can read -> its revision
        self._places: dict[tuple[str, str], str] = {}  # service and URL -> whose they are

    def has(self, instance_id: str, generation: int) -> bool:
        """Return whether an instance is there, of that generation."""
        one = self.instances.get(instance_id)
        return one is not None and one.kept.generation == generation

    def revision_of(self, key: str) -> int:
        """Return the revision of a key's last message; 0 if it has none."""
        if (strange := self.strange.get(key)) is not None:
            return strange
        if (one := self.instances.get(key)) is not None:
            return one.revision
        return self.losers.get(key) or self.marks.get(key, (0, 0.0))[0]

    def take(self, entry: Entry, now: float) -> News | None:
        """Take the next message; returns what it has changed, None if nothing.

        Raises:
            InvalidInput: it cannot be read.
        """
        self.revision = max(self.revision, entry.seq)
        key = entry.key
        if key == IDENTITY:
            return None
        self.strange.pop(key, None)
        if entry.deleted:
            self.losers.pop(key, None)
            self.marks[key] = entry.seq, now
            return News(entry.seq, key, None, read_gone(entry.value)) if self._drop(key) else None
        self.marks.pop(key, None)
        try:
            kept = read(entry.value)
        except InvalidInput:
            self.strange[key] = entry.seq  # so that it can be written again
            raise
        before = self.instances.get(key)
        record = before.record if before is not None and before.kept.generation == kept.generation else record_of(key, kept)
        place = record.name, record.url
        holder = self._places.get(place, key)
        if holder != key and self.instances[holder].kept.generation > kept.generation:
            self.losers[key] = entry.seq
            return News(entry.seq, key, None, Gone("replaced by a new registration")) if self._drop(key) else None
        self.losers.pop(key, None)
        self._drop(key)
        if holder != key:
            self.losers[holder] = self.instances[holder].revision
            self._drop(holder)
        one = self.instances[key] = Mirrored(entry.seq, record, kept)
        self._places[place] = key
        return News(entry.seq, key, one, None, (holder,) if holder != key else ())

    def old_marks(self, before: float) -> list[tuple[str, int]]:
        """Return the markers that were seen before a moment."""
        return [(key, seq) for key, (seq, seen_at) in self.marks.items() if seen_at < before]

    def missing(self, present: set[str], revision: int) -> Iterator[str]:
        """Yield the instances that are none of the present keys though they came no later than a revision."""
        yield from [key for key, one in self.instances.items() if one.revision <= revision and key not in present]

    def _drop(self, key: str) -> bool:
        one = self.instances.pop(key, None)
        if one is not None:
            self._places.pop((one.record.name, one.record.url), None)
        return one is not None
