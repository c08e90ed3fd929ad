"""Classic messages that are taken together: the same entries as one by one, and each sender told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from pillion_common.errors import InvalidInput, StorageFull
from pillion_log.entries import Run, from_text, from_texts
from pillion_log.store.base import Appended, Done
from pillion_log.store.memory import MemoryStore
from pillion_log.texts import MAX_GATHERED_BYTES, Texts

NOW = "2026-01-31T12:00:00.123Z"
PLAIN = [b"[A] - ", b"[b.c] - ", b"] - ", b"[", b"x", b"yy zz"]
HOSTILE = [*PLAIN, b"\n", b"\r", b'"', b"\\", b"\x7f", b"\x00", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b"[not a name] - "]


class CountingStore(MemoryStore):
    """Remembers how many runs each append brought."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[int] = []

    def append(self, runs: Sequence[Run], done: Done) -> None:
        self.appended.append(len(runs))
        super().append(runs, done)


class FullStore(MemoryStore):
    def append(self, runs: Sequence[Run], done: Done) -> None:
        done(StorageFull("the disk is full", retry_after_s=5))


def joined(runs: Sequence[Run]) -> bytes:
    return b"".join(run.lines for run in runs)


def take_all(store: MemoryStore, bodies: Sequence[bytes]) -> list[Any]:
    """Take bodies in one turn of the loop and return what their senders were told."""
    told: list[Any] = []

    async def run() -> None:
        texts = Texts(store, lambda: 1769860800.123)
        for body in bodies:
            texts.take(body, told.append)
        assert sum(map(len, bodies)) >= MAX_GATHERED_BYTES or not told
        await asyncio.sleep(0)

    asyncio.run(run())
    return told


def messages(store: MemoryStore) -> list[str]:
    with store.blocks() as blocks:
        return [json.loads(line)["Message"] for block in reversed(list(blocks)) for line in block.read().splitlines()]


def test_texts_of_one_service_become_one_run() -> None:
    head = '{"Time":"2026-01-31T12:00:00.123Z","Received":"2026-01-31T12:00:00.123Z","Service":"A","Level":"info","Message":'
    assert from_texts([b"[A] - one", b"[A] - ", b"[A] - [A] - x"], NOW) == [
        Run(f'{head}"one"}}\n{head}""}}\n{head}"[A] - x"}}\n'.encode(), 3, service="A", received=NOW),
    ]


@pytest.mark.parametrize("words", [[b"[A] - ", b"x"], PLAIN, HOSTILE])
def test_texts_taken_together_become_what_each_becomes_alone(words: list[bytes]) -> None:
    chance = random.Random(1)
    for _ in range(20_000):
        texts = [b"".join(chance.choices(words, k=chance.randint(1, 4))).strip(b"\r\n") for _ in range(chance.randint(1, 5))]
        texts = [text for text in texts if text]
        if texts:
            runs = from_texts(texts, NOW)
            assert joined(runs) == joined([from_text(text, NOW) for text in texts]), texts
            assert sum(run.length for run in runs) == len(texts)


def test_all_of_one_moment_go_to_the_store_together_and_each_sender_is_told() -> None:
    store = CountingStore()
    assert take_all(store, [b"[A] - one\n", b"\r\n[A] - two", b"[A] - three"]) == [Appended(1, 0)] * 3
    assert messages(store) == ["one", "two", "three"]
    assert store.appended == [1]


def test_different_services_keep_their_order() -> None:
    store = CountingStore()
    assert take_all(store, [b"[A] - one", b"two", b"[B] - three", b'[A] - "four"']) == [Appended(1, 0)] * 4
    assert messages(store) == ["one", "two", "three", '"four"']


def test_much_at_one_moment_is_handed_over_in_parts() -> None:
    store = CountingStore()
    bodies = [b"[A] - " + b"x" * 60_000] * 40
    assert take_all(store, bodies) == [Appended(1, 0)] * 40
    assert store.appended == [1, 1, 1]


def test_what_is_not_stored_is_told_to_each_sender() -> None:
    told = take_all(FullStore(), [b"one", b"two"])
    assert [type(one) for one in told] == [StorageFull, StorageFull]


def test_a_sender_that_cannot_be_told_keeps_nobody_waiting() -> None:
    told: list[Any] = []

    def fail(outcome: object) -> None:
        raise ValueError("gone")

    async def run() -> None:
        texts = Texts(MemoryStore(), lambda: 1769860800.123)
        texts.take(b"one", fail)
        texts.take(b"two", told.append)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert told == [Appended(1, 0)]


def test_what_is_refused_is_not_handed_over() -> None:
    store = CountingStore()
    texts = Texts(store, lambda: 1769860800.123)
    with pytest.raises(InvalidInput, match="send one message as text/plain"):
        texts.take(b"\r\n\n", print)
    assert store.appended == []


def test_what_is_too_long_is_cut_and_handed_over_alone() -> None:
    store = CountingStore()
    told: list[object] = []
    Texts(store, lambda: 1769860800.123).take(b"x" * 65_537, told.append)
    assert told == [Appended(1, 0)]
    assert store.appended == [1]
