"""What the log's writer makes of JetStream's doubts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from pillion_common.nats_stream import Doubtful
from pillion_log.entries import from_line
from pillion_log.store.base import Appended
from pillion_log.store.nats_wire import Packet
from pillion_log.store.nats_writer import Attempt, Writer
from pillion_log.store.sources import Sources

ENTRY = from_line(b'{"Message":"m","Source":"s","Seq":1}', "2026-01-31T12:00:00.123Z")


class Stream:
    """Answers the first message as if it were a repeat, though it was refused: another's came first."""

    prefix = "p.logs"
    max_message_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []

    async def publish(self, packet: Packet, after: int, name: str, timeout_s: float) -> int:
        self.sent.append((after, name))
        if len(self.sent) == 1:
            raise Doubtful
        return after + 1


async def test_a_message_that_was_refused_and_is_answered_as_a_repeat_is_made_anew() -> None:
    """So a cluster of nats-server 2.10 answers, where the first answer was lost: taken for kept, its entries were gone."""
    history, stream, landed = SimpleNamespace(applied=3, end=100), Stream(), []

    async def advance() -> bool:
        history.applied = 4
        return True

    def land(seq: int, attempt: Attempt) -> None:
        landed.append((seq, attempt.lines))
        history.applied = seq

    writer = Writer(cast(Any, stream), cast(Any, history), Sources(), land, advance, packs=False)
    running = asyncio.create_task(writer.run())
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    writer.waiting.append(([ENTRY], told.set_result))
    writer.ring()
    async with asyncio.timeout(5):
        assert await told == Appended(1, 0)
    assert [after for after, _ in stream.sent] == [3, 4]
    assert len({name for _, name in stream.sent}) == 2
    assert landed == [(5, ENTRY.lines)]
    writer.stop()
    await running
