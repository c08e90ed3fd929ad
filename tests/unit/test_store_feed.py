"""A registry's feed of a bucket hands all on, in order, whatever of it gets lost; and shows at each revision what was there then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion_common.errors import Unavailable
from pillion_common.nats_stream import State, StreamGone
from pillion_registry.store import feed as feeds
from pillion_registry.store.feed import Feed
from pillion_registry.store.nats_bucket import Bucket, Entry

TICK_S = 0.0001


class FakeBucket:
    """One message for each key, on servers that may know less than they should; and what was there at each revision."""

    def __init__(self) -> None:
        self.stream = self
        self.name, self.reachable = "KV_test", True
        self.messages: dict[str, int] = {}
        self.revision = 0
        self.was: dict[int, dict[str, int]] = {0: {}}
        self.hear: Callable[[Entry], None] = lambda _: None
        self.left = False
        self.leader = "a"
        self.applied: int | None = None  # as much as a leader that was just elected has
        self.behind = 0  # as many as another replica lacks
        self.fails: Exception | None = None
        self.asked: list[int] = []
        self.on_asked: Callable[[], None] = lambda: None

    def put(self, key: str, told: bool = True) -> None:
        self.revision += 1
        self.messages[key] = self.revision
        self.was[self.revision] = dict(self.messages)
        if told:
            self.tell(key, self.revision)

    def tell(self, key: str, revision: int) -> None:
        self.hear(Entry(revision, key, b"", False))

    async def listen(self, hear: Callable[[Entry], None]) -> FakeBucket:
        self.hear = hear
        return self

    async def unsubscribe(self) -> None:
        self.left = True

    async def newest(self) -> int | None:
        await asyncio.sleep(0)
        return max(0, max(self.messages.values(), default=0) - self.behind)

    async def lead(self) -> tuple[str, State]:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        return self.leader, State(min(self.messages.values(), default=1), self._last(), 0)

    def _last(self) -> int:
        return self.revision if self.applied is None else self.applied

    async def numbered(self, seq: int) -> Entry | None:
        self.asked.append(seq)
        self.on_asked()
        await asyncio.sleep(0)
        return next((Entry(seq, key, b"", False) for key, at in self.messages.items() if at == seq <= self._last()), None)

    async def entries(self) -> list[Entry]:
        entries = []
        for key in list(self.messages):
            self.on_asked()
            await asyncio.sleep(0)
            entries.append(Entry(self.messages[key], key, b"", False))
        return entries


class Reader:
    """Shows what it was handed on."""

    def __init__(self, bucket: FakeBucket) -> None:
        self.bucket = bucket
        self.revision = 0
        self.shown: dict[str, int] = {}
        self.feed = Feed(cast("Bucket", bucket), self._show)

    def _show(self, entry: Entry) -> None:
        assert entry.seq > self.revision
        self.revision = entry.seq
        self.shown[entry.key] = entry.seq

    async def until_it_shows(self, revision: int) -> None:
        async with asyncio.timeout(5):
            while self.revision < revision:
                self.check()
                await asyncio.sleep(TICK_S)
        self.check()

    def check(self) -> None:
        assert self.shown == self.bucket.was[self.revision]


@asynccontextmanager
async def reading(bucket: FakeBucket) -> AsyncIterator[Reader]:
    reader = Reader(bucket)
    running = asyncio.create_task(reader.feed.run())
    try:
        yield reader
    finally:
        reader.feed.stop()
        with suppress(StreamGone):
            await asyncio.wait_for(running, 2)
        assert bucket.left


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BEAT_S", 0.001)


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["told", "lost", "twice", "late"]), st.integers(0, 3)), max_size=40)


@given(STEPS, st.sampled_from([2, 1_000]), st.integers(0, 2))
@settings(deadline=None, max_examples=150)
def test_whatever_gets_lost_each_revision_is_shown_as_it_was(steps: list[tuple[str, str, int]], many: int, behind: int) -> None:
    async def play() -> None:
        bucket = FakeBucket()
        bucket.behind = behind
        late: list[tuple[str, int]] = []
        async with reading(bucket) as reader:
            for key, what, turns in steps:
                bucket.put(key, told=what in ("told", "twice"))
                if what == "twice":
                    bucket.tell(key, bucket.revision)
                elif what == "late":
                    late.append((key, bucket.revision))
                for _ in range(turns):
                    await asyncio.sleep(0)
                    reader.check()
            for key, revision in late:
                bucket.tell(key, revision)
                reader.check()
            bucket.behind = 0
            await reader.until_it_shows(bucket.revision)
            assert reader.shown == bucket.messages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "MANY", many)
        asyncio.run(play())


async def test_what_was_written_while_the_missing_is_read_is_shown_with_it() -> None:
    bucket = FakeBucket()
    async with reading(bucket) as reader:
        bucket.put("a")
        await reader.until_it_shows(1)
        again = iter("abab")

        def replace() -> None:
            if key := next(again, ""):
                bucket.put(key, told=key == "a")

        bucket.on_asked = replace
        for key in "bcd":
            bucket.put(key, told=False)
        await reader.until_it_shows(8)


async def test_a_leader_that_lacks_a_message_is_not_believed_that_it_is_not_there() -> None:
    bucket = FakeBucket()
    async with reading(bucket) as reader:
        bucket.put("a")
        await reader.until_it_shows(1)

        def elect() -> None:
            bucket.leader, bucket.applied = "b", 1
            bucket.on_asked = lambda: None
            asyncio.get_running_loop().call_later(0.01, lambda: setattr(bucket, "applied", None))

        bucket.on_asked = elect
        bucket.put("b", told=False)
        bucket.put("c", told=False)
        await reader.until_it_shows(3)
        assert reader.shown == {"a": 1, "b": 2, "c": 3}


async def test_without_a_leader_what_is_told_goes_on_and_what_is_missing_comes_later() -> None:
    bucket = FakeBucket()
    async with reading(bucket) as reader:
        bucket.put("a")
        await reader.until_it_shows(1)
        bucket.fails = Unavailable("nobody leads")
        bucket.put("b")
        await reader.until_it_shows(2)
        heard_at = reader.feed.heard_at
        bucket.put("c", told=False)
        bucket.put("d")
        await asyncio.sleep(0.02)
        assert reader.revision == 2
        assert reader.feed.heard_at > heard_at  # the bucket's other servers say that they have it
        bucket.fails = None
        await reader.until_it_shows(4)
        assert bucket.asked[-1] == 3


async def test_nothing_is_shown_before_all_that_was_there_at_the_beginning() -> None:
    bucket = FakeBucket()
    for key in "abcde":
        bucket.put(key)
    bucket.fails = Unavailable("nobody leads")
    async with reading(bucket) as reader:
        await asyncio.sleep(0.01)
        bucket.put("f")
        assert reader.revision == 0
        bucket.fails = None
        await reader.until_it_shows(6)


async def test_where_much_is_missing_no_number_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MANY", 10)
    bucket = FakeBucket()
    for _ in range(500):
        for key in "abc":
            bucket.put(key)
    async with reading(bucket) as reader:
        await reader.until_it_shows(1500)
        assert len(bucket.asked) < 10


async def test_what_is_kept_for_later_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_AHEAD", 3)
    bucket = FakeBucket()
    async with reading(bucket) as reader:
        bucket.put("a")
        await reader.until_it_shows(1)
        bucket.fails = Unavailable("nobody leads")
        bucket.put("b", told=False)
        for number in range(20):
            bucket.put(f"c{number}")
        await asyncio.sleep(0.01)
        assert len(reader.feed._ahead) == 3
        bucket.fails = None
        await reader.until_it_shows(22)


async def test_one_that_is_never_whole_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is replaced while it is read."""
    monkeypatch.setattr(feeds, "SETTLE_S", 0.05)
    bucket = FakeBucket()
    shown: list[int] = []
    feed = Feed(cast("Bucket", bucket), lambda entry: shown.append(entry.seq))
    running = asyncio.create_task(feed.run())
    bucket.on_asked = lambda: bucket.put("a", told=False)
    bucket.put("b", told=False)
    bucket.put("a", told=False)
    async with asyncio.timeout(5):
        while not shown:
            await asyncio.sleep(TICK_S)
    bucket.on_asked = lambda: None
    feed.stop()
    await running
    assert shown[0] == 1


async def test_a_bucket_that_was_put_back_ends_it_unless_it_is_one_that_was_just_elected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "GONE_S", 0.1)
    bucket = FakeBucket()
    reader = Reader(bucket)
    running = asyncio.create_task(reader.feed.run())
    for key in "abc":
        bucket.put(key)
    await reader.until_it_shows(3)
    bucket.applied = bucket.behind = 1
    await asyncio.sleep(0.05)
    bucket.applied, bucket.behind = None, 0
    await asyncio.sleep(0.1)
    assert not running.done()
    bucket.applied = bucket.behind = 1
    with pytest.raises(StreamGone, match="the stream KV_test was put back to an earlier state"):
        await asyncio.wait_for(running, 5)


async def test_it_is_not_heard_where_no_server_has_it_and_the_leader_does_not_answer() -> None:
    bucket = FakeBucket()
    async with reading(bucket) as reader:
        bucket.put("a")
        await reader.until_it_shows(1)

        async def nobody() -> int | None:
            return None

        bucket.newest = nobody  # type: ignore[method-assign]
        bucket.fails = Unavailable("nobody leads")
        await asyncio.sleep(0.01)
        heard_at = reader.feed.heard_at
        await asyncio.sleep(0.02)
        assert reader.feed.heard_at == heard_at


async def test_a_fault_of_who_takes_it_ends_it() -> None:
    def take(entry: Entry) -> None:
        if entry.seq == 2:
            raise KeyError("a fault")

    bucket = FakeBucket()
    feed = Feed(cast("Bucket", bucket), take)
    running = asyncio.create_task(feed.run())
    bucket.put("a")
    await asyncio.sleep(0.01)
    bucket.put("b")
    with pytest.raises(KeyError, match="a fault"):
        await asyncio.wait_for(running, 5)


async def test_a_bucket_that_is_gone_ends_it_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "GONE_S", 0.05)
    bucket = FakeBucket()
    bucket.fails = StreamGone("it is not there any more")
    feed = Feed(cast("Bucket", bucket), lambda _: None)
    with pytest.raises(StreamGone, match="not there any more"):
        await asyncio.wait_for(feed.run(), 5)
    assert bucket.left
