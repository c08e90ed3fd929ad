"""Bounds and verdicts of the intake."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pillion_common import models
from pillion_common.errors import InvalidInput, StorageFull, TooLarge
from pillion_log.entries import Entry
from pillion_log.intake import Intake
from pillion_log.store.base import Appended
from pillion_log.store.memory import MemoryStore


class FullStore(MemoryStore):
    async def append(self, entries: Sequence[Entry]) -> Appended:
        raise StorageFull("the disk is full", retry_after_s=5)


def make() -> tuple[Intake, MemoryStore]:
    store = MemoryStore()
    return Intake(store, clock=lambda: 1769860800.123), store


def messages(store: MemoryStore) -> list[str]:
    with store.blocks() as blocks:
        return [json.loads(line)["Message"] for block in reversed(list(blocks)) for line in block.lines()]


async def test_bad_lines_are_rejected_one_by_one_and_good_ones_kept() -> None:
    intake, store = make()
    taken = await intake.take_batch(
        b'{"Message":"one"}\n{"Message":""}\n\nnonsense\r\n{"Message":"two","Source":"s","Seq":1}\r\n{"Message":"two","Source":"s","Seq":1}'
    )
    assert messages(store) == ["one", "two"]
    assert (taken.accepted, taken.duplicates) == (2, 1)
    assert [(rejected.line, rejected.error[:24]) for rejected in taken.rejected] == [
        (2, "Message must be a text th"[:24]),
        (4, "the line is not a JSON o"),
    ]
    assert models.encode(taken).startswith(b'{"Accepted":2,"Duplicates":1,"Rejected":[{"Line":2,"Error":"Message must')


async def test_batch_of_bad_lines_alone_is_answered_line_by_line() -> None:
    intake, _ = make()
    assert models.encode(await intake.take_batch(b"{}")) == (
        b'{"Accepted":0,"Duplicates":0,"Rejected":[{"Line":1,"Error":"Message must be a text that is not empty"}]}'
    )


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n"])
async def test_empty_batch_is_refused(body: bytes) -> None:
    intake, _ = make()
    with pytest.raises(InvalidInput, match="send one JSON object a line"):
        await intake.take_batch(body)


async def test_batch_of_10000_lines_is_the_largest() -> None:
    intake, _ = make()
    assert (await intake.take_batch(b'{"Message":"m"}\n' * 10_000)).accepted == 10_000
    with pytest.raises(TooLarge, match="over 10000 lines"):
        await intake.take_batch(b'{"Message":"m"}\n' * 10_001)
    with pytest.raises(TooLarge):
        await intake.take_batch(b'{"Message":"m"}\n' * 10_000 + b"{}")


async def test_text_of_64_kb_is_the_largest() -> None:
    intake, store = make()
    await intake.take_text(b"x" * 65_536)
    with pytest.raises(TooLarge, match="over 65536 bytes"):
        await intake.take_text(b"x" * 65_537)
    assert messages(store) == ["x" * 65_536]


async def test_what_is_not_stored_is_not_acknowledged() -> None:
    intake = Intake(FullStore())
    with pytest.raises(StorageFull):
        await intake.take_text(b"x")
    with pytest.raises(StorageFull):
        await intake.take_batch(b'{"Message":"m"}')
