"""Queries that cannot be answered, or not to their end: it is said, and the place in the queue is given back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from pillion_common.errors import InvalidInput, Unavailable
from pillion_log import reader
from pillion_log.entries import from_text
from pillion_log.query import paging
from pillion_log.reader import MAX_ANSWERS, Reader
from pillion_log.store.base import Block, MemoryBlock
from pillion_log.store.memory import MemoryStore


class BrokenBlock:
    start, end, summary = 0, 1, None

    def read(self) -> bytes:
        raise OSError(5, "Input/output error")


class BrokenStore(MemoryStore):
    """Cannot be opened at all, or breaks in the second block."""

    def __init__(self, opens: bool) -> None:
        super().__init__()
        self._opens = opens

    @contextmanager
    def blocks(self, after: int = 0, newest_first: bool = True) -> Iterator[Iterator[Block]]:
        if not self._opens:
            raise OSError(24, "Too many open files")
        with super().blocks() as found:
            yield iter([*found, BrokenBlock()])


class LongStore(MemoryStore):
    """Has many blocks, each with one entry of 1,000 bytes."""

    @contextmanager
    def blocks(self, after: int = 0, newest_first: bool = True) -> Iterator[Iterator[Block]]:
        lines = [from_text(b"%04d" % number + b"x" * 996, "2026-01-31T12:00:00.123Z").lines for number in range(5000)]
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line))
        found: list[Block] = [MemoryBlock(start, line) for start, line in zip(starts, lines, strict=False)]
        yield iter(found[::-1] if newest_first else found)


async def ask(asked: Reader, **parameters: str) -> bytes:
    async with asked.answer(parameters, as_text=False) as answer:
        return b"".join([piece async for piece in answer.pieces])


async def head(asked: Reader, **parameters: str) -> dict[str, str]:
    async with asked.answer(parameters, as_text=False) as answer:
        return answer.headers


async def test_store_that_cannot_be_opened_is_told_and_blocks_nobody() -> None:
    asked = Reader(BrokenStore(opens=False))
    for _ in range(MAX_ANSWERS + 1):
        with pytest.raises(Unavailable, match=r"cannot be read: .*Too many open files"):
            await ask(asked)


async def test_answer_that_ends_early_says_so_in_its_last_line() -> None:
    store = BrokenStore(opens=True)
    store.append([from_text(b"one", "2026-01-31T12:00:00.123Z")], lambda outcome: None)
    lines = (await ask(Reader(store), order="desc")).splitlines()
    assert b'"Message":"one"' in lines[0]
    assert lines[1] == b'{"Error":"store_failed","Message":"the answer ends here: the store cannot be read: Input/output error"}'


async def test_one_query_more_than_may_run_is_refused_until_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "WAIT_S", 0.01)
    asked = Reader(MemoryStore())
    async with AsyncExitStack() as running:
        for _ in range(MAX_ANSWERS):
            await running.enter_async_context(asked.answer({}, as_text=False))
        with pytest.raises(Unavailable, match="32 queries are running; try again soon"):
            await ask(asked)
    assert await ask(asked) == b""


async def test_bad_query_takes_no_place() -> None:
    asked = Reader(MemoryStore())
    for _ in range(MAX_ANSWERS + 1):
        with pytest.raises(InvalidInput):
            await ask(asked, limit="no")
    assert await ask(asked) == b""


def store_of(count: int) -> MemoryStore:
    store = MemoryStore()
    for number in range(count):
        store.append([from_text(b"[A] - m%d" % number, "2026-01-31T12:00:00.123Z")], lambda outcome: None)
    return store


def messages(body: bytes) -> list[str]:
    return [told["Message"] for line in body.splitlines() if "Message" in (told := json.loads(line))]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_page_that_does_not_fit_into_memory_is_sent_whole_all_the_same(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "KEPT_BYTES", 100_000)
    numbers = [int(message[:4]) for message in messages(await ask(Reader(LongStore()), limit="3000", order=order))]
    assert numbers == (list(range(2000, 5000)) if order == "asc" else list(range(4999, 1999, -1)))


async def test_head_says_where_the_next_page_begins_and_whether_all_was_searched() -> None:
    asked = Reader(store_of(3))
    told = await head(asked, limit="2")
    assert told == {"X-Pillion-Done": "true", "X-Pillion-Cursor": told["X-Pillion-Cursor"]}
    assert messages(await ask(asked, cursor=told["X-Pillion-Cursor"])) == ["m0"]
    assert await head(asked) == {"X-Pillion-Done": "true"}  # all of it: there is no next page
    assert (await head(asked, **{"from": "oldest"}))["X-Pillion-Cursor"].startswith("f")


@pytest.mark.parametrize("parameters", [{}, {"order": "desc"}, {"from": "oldest"}])
async def test_last_line_tells_the_same_where_it_is_asked_for(parameters: dict[str, str]) -> None:
    asked = Reader(store_of(3))
    lines = (await ask(asked, limit="2", page="1", **parameters)).splitlines()
    cursor = (await head(asked, limit="2", **parameters))["X-Pillion-Cursor"]
    assert len(lines) == 3
    assert json.loads(lines[2]) == {"Cursor": cursor, "Scanned": "", "Done": True}


async def test_search_that_was_ended_says_so_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_SEARCH_S", 0.0)
    asked = Reader(store_of(3))
    lines = (await ask(asked)).splitlines()
    told = json.loads(lines[-1])
    assert (len(lines), told["Error"], told["Cursor"], told["Done"]) == (4, "not_done", "b0", False)
    assert told["Scanned"] == "2026-01-31T12:00:00.123Z"
    assert (await head(asked))["X-Pillion-Done"] == "false"
    async with asked.answer({}, as_text=True) as answer:
        text = b"".join([piece async for piece in answer.pieces])
    assert text.splitlines()[-1].startswith(b'# {"Error":"not_done"')
