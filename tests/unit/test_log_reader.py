"""Queries that cannot be answered, or not to their end: it is said, and the place in the queue is given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from pillion_common.errors import InvalidInput, Unavailable
from pillion_log import reader
from pillion_log.entries import from_text
from pillion_log.reader import MAX_QUERIES, Reader
from pillion_log.store.base import Block
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


async def ask(asked: Reader, **parameters: str) -> bytes:
    async with asked.answer(parameters, as_text=False) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_store_that_cannot_be_opened_is_told_and_blocks_nobody() -> None:
    asked = Reader(BrokenStore(opens=False))
    for _ in range(MAX_QUERIES + 1):
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
        for _ in range(MAX_QUERIES):
            await running.enter_async_context(asked.answer({}, as_text=False))
        with pytest.raises(Unavailable, match="4 queries are running; try again soon"):
            await ask(asked)
    assert await ask(asked) == b""


async def test_bad_query_takes_no_place() -> None:
    asked = Reader(MemoryStore())
    for _ in range(MAX_QUERIES + 1):
        with pytest.raises(InvalidInput):
            await ask(asked, limit="no")
    assert await ask(asked) == b""
