"""Bounds and verdicts of the intake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from pillion_common import models
from pillion_common.errors import InvalidInput, StorageFull, TooLarge
from pillion_log.composing import Parts
from pillion_log.entries import Run
from pillion_log.intake import Exported, Intake
from pillion_log.store.base import Appended, Done
from pillion_log.store.memory import MemoryStore


class FullStore(MemoryStore):
    def append(self, runs: Sequence[Run], done: Done) -> None:
        done(StorageFull("the disk is full", retry_after_s=5))


def make() -> tuple[Intake, MemoryStore]:
    store = MemoryStore()
    return Intake(store, clock=lambda: 1769860800.123), store


def take_text(intake: Intake, body: bytes) -> Any:
    told: list[Any] = []

    async def run() -> None:
        intake.take_text(body, told.append)
        await asyncio.sleep(0)

    asyncio.run(run())
    return told.pop()


def take_batch(intake: Intake, body: bytes) -> Any:
    told: list[Any] = []
    intake.take_batch(body, told.append)
    return told.pop()


def take_records(intake: Intake, body: bytes) -> Any:
    told: list[Any] = []
    intake.take_records(body, told.append)
    return told.pop()


def entries(store: MemoryStore) -> list[dict[str, Any]]:
    with store.blocks() as blocks:
        return [json.loads(line) for block in reversed(list(blocks)) for line in block.read().splitlines()]


def messages(store: MemoryStore) -> list[str]:
    return [one["Message"] for one in entries(store)]


def test_bad_lines_are_rejected_one_by_one_and_good_ones_kept() -> None:
    intake, store = make()
    taken = take_batch(
        intake,
        b'{"Message":"one"}\n{"Message":""}\n\nnonsense\r\n{"Message":"two","Source":"s","Seq":1}\r\n{"Message":"two","Source":"s","Seq":1}',
    )
    assert messages(store) == ["one", "two"]
    assert (taken.accepted, taken.duplicates) == (2, 1)
    assert [(rejected.line, rejected.error[:24]) for rejected in taken.rejected] == [
        (2, "Message must be a text th"[:24]),
        (4, "the line is not a JSON o"),
    ]
    assert models.encode(taken).startswith(b'{"Accepted":2,"Duplicates":1,"Rejected":[{"Line":2,"Error":"Message must')


def test_batch_of_bad_lines_alone_is_answered_line_by_line() -> None:
    intake, _ = make()
    assert models.encode(take_batch(intake, b"{}")) == (
        b'{"Accepted":0,"Duplicates":0,"Rejected":[{"Line":1,"Error":"Message must be a text that is not empty"}]}'
    )


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n"])
def test_empty_batch_is_refused(body: bytes) -> None:
    intake, _ = make()
    with pytest.raises(InvalidInput, match="send one JSON object a line"):
        take_batch(intake, body)


def test_batch_of_10000_lines_is_the_largest() -> None:
    intake, _ = make()
    assert (take_batch(intake, b'{"Message":"m"}\n' * 10_000)).accepted == 10_000
    with pytest.raises(TooLarge, match="over 10000 lines"):
        take_batch(intake, b'{"Message":"m"}\n' * 10_001)
    with pytest.raises(TooLarge):
        take_batch(intake, b'{"Message":"m"}\n' * 10_000 + b"{}")


def test_text_over_64_kb_is_cut_and_says_so() -> None:
    intake, store = make()
    assert take_text(intake, b"x" * 65_536) == Appended(1, 0)
    assert take_text(intake, b"[A] - " + b"x" * 65_536) == Appended(1, 0)
    assert messages(store) == ["x" * 65_536, "x" * 65_530 + "…[cut: 6 bytes]"]
    assert [one.get("Cut") for one in entries(store)] == [None, 6]
    assert entries(store)[1]["Service"] == "A"


def test_what_comes_without_the_token_is_flagged_and_cannot_say_otherwise() -> None:
    intake, store = make()
    foreign = intake.unverified()
    take_text(foreign, b"[A] - classic")
    take_batch(foreign, b'{"Message":"plain"}\n{"Message":"plain"}')
    take_batch(foreign, b'{"Message":"liar","Unverified":false}')
    take_records(foreign, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"record"}}]}]}]}')
    foreign.take_runs([foreign.make(Parts("syslog"))], lambda outcome: None)
    assert [(one["Message"], one["Unverified"]) for one in entries(store)] == [
        ("classic", True), ("plain", True), ("plain", True), ("liar", True), ("record", True), ("syslog", True)
    ]  # fmt: skip
    take_batch(intake, b'{"Message":"true","Unverified":true}')
    assert "Unverified" not in entries(store)[-1]


def test_records_are_stored_and_those_that_are_none_are_counted() -> None:
    intake, store = make()
    outcome = take_records(intake, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"one"}},5]}]}]}')
    assert outcome == Exported(1, ("the log record is no object",))
    assert messages(store) == ["one"]
    assert take_records(intake, b"{}") == Exported(0, ())


def test_what_is_not_stored_is_not_acknowledged() -> None:
    intake = Intake(FullStore())
    assert isinstance(take_text(intake, b"x"), StorageFull)
    assert isinstance(take_batch(intake, b'{"Message":"m"}'), StorageFull)
    assert isinstance(take_records(intake, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}'), StorageFull)
