"""A registry that follows the bucket slowly shows at each revision what one that is faster showed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion_registry.store import holes
from pillion_registry.store.holes import Holes
from pillion_registry.store.nats_bucket import Entry


class Bucket:
    """One message for each key, and what was there at each revision."""

    def __init__(self) -> None:
        self.messages: dict[str, int] = {}
        self.revision = 0
        self.was: dict[int, dict[str, int]] = {0: {}}

    def put(self, key: str) -> None:
        self.revision += 1
        self.messages[key] = self.revision
        self.was[self.revision] = dict(self.messages)


class Reader:
    """Reads the next message that is there, whenever it is its turn, and shows what it was handed on."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.at = self.revision = 0
        self.shown: dict[str, int] = {}
        self.holes = Holes(self._show)

    def read(self) -> bool:
        left = sorted((seq, key) for key, seq in self.bucket.messages.items() if seq > self.at)
        if left:
            self.at, key = left[0]
            self.holes.take(Entry(self.at, key, b"", False, len(left) - 1))
        return bool(left)

    def _show(self, entry: Entry) -> None:
        assert entry.seq > self.revision
        self.revision = entry.seq
        self.shown[entry.key] = entry.seq


@given(st.lists(st.sampled_from([*"abc", "read"]), max_size=60))
@settings(deadline=None)
def test_what_is_shown_at_a_revision_is_what_was_there_then(steps: list[str]) -> None:
    async def play() -> None:
        bucket = Bucket()
        reader = Reader(bucket)
        for step in steps:
            if step == "read":
                reader.read()
            else:
                bucket.put(step)
            assert reader.shown == bucket.was[reader.revision]
        while reader.read():
            pass
        assert (reader.revision, reader.shown) == (bucket.revision, bucket.messages)
        reader.holes.close()

    asyncio.run(play())


async def test_what_is_whole_is_handed_on_at_once() -> None:
    bucket = Bucket()
    reader = Reader(bucket)
    for key in "abcab":
        bucket.put(key)
        assert reader.read()
        assert reader.revision == bucket.revision


async def test_a_hole_that_nothing_closes_is_waited_for_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "HOLD_S", 0.02)
    handed: list[int] = []
    one = Holes(lambda entry: handed.append(entry.seq))
    one.take(Entry(7, "a", b"", False, 100))
    one.take(Entry(8, "b", b"", False, 99))
    assert handed == []
    await asyncio.sleep(0.1)
    assert handed == [7, 8]
    one.take(Entry(9, "a", b"", False, 98))
    assert handed == [7, 8, 9]  # nothing is missing before it


async def test_a_message_that_nothing_is_behind_fills_a_hole_however_many_were_expected() -> None:
    handed: list[int] = []
    one = Holes(lambda entry: handed.append(entry.seq))
    one.take(Entry(7, "a", b"", False, 100))
    one.take(Entry(9, "b", b"", False, 0))
    assert handed == [7, 9]
