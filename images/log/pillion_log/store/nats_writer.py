"""Writes what is appended to the stream, a group at a time: what came in while one was under way is the next one.

A group is one message, so that it is kept as a whole or not at all. Which of its entries are new is decided by what is known up to the
stream's last message, and the message is taken in only right after that one; where another log service's came first, that is looked at and
the decision made anew. A message of which nobody knows what became of it is sent again in the same place: it cannot be there twice.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_stream import Overtaken
from pillion_log.entries import Run
from pillion_log.store.base import Appended, Done
from pillion_log.store.nats_history import History
from pillion_log.store.nats_stream import LogStream
from pillion_log.store.nats_wire import Checkpoint, Packet, pack_checkpoint, pack_entries
from pillion_log.store.sources import Mark, Sources

GROUP_BYTES = 512 * 1024
GIVE_UP_S = 8.0  # a sidecar waits 10 for an answer
TRY_S = 2.5  # for one answer of JetStream
AGAIN_S = 0.1
LOOK_AGAIN_S = 0.02
OTHERS_S = 0.5
GIVE_WAY_S = 0.01
PROBE_EVERY_S = 1.0
RETRY_AFTER_S = 2
CHECKPOINT_BYTES = 32 << 20
CHECKPOINT_MESSAGES = 2000
CHECKPOINT_EVERY_S = 3600.0

STOPPING = Unavailable("the log service is stopping", code="stopping", retry_after_s=RETRY_AFTER_S)

_log = EventLog("store")

Item = tuple[Sequence[Run], Done]


@dataclass
class Attempt:
    """A message under way: what it says, and after which one it was made."""

    name: str
    after: int
    start: int
    packet: Packet
    lines: bytes = b""
    runs: list[Run] = field(default_factory=list)
    staged: dict[str, Mark] = field(default_factory=dict)
    answers: list[Appended] = field(default_factory=list)
    landed: bool = False


class Writer:
    """The one who writes. All is called in the loop's thread.

    Args:
        stream: where to.
        history: what is known of it; changed by `landed` alone.
        sources: likewise.
        landed: called with an attempt and its number when it was taken in, unless that came from the stream before.
        advance: has the history grow by the next message, if there is one.
        packs: whether messages are packed.
        give_up_s: how long a group is tried.
        random: from 0 to 1.
    """

    def __init__(
        self,
        stream: LogStream,
        history: History,
        sources: Sources,
        landed: Callable[[int, Attempt], None],
        advance: Callable[[], Awaitable[bool]],
        *,
        packs: bool,
        give_up_s: float = GIVE_UP_S,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.failure: Unavailable | None = None  # why nothing can be kept now
        self.waiting: deque[Item] = deque()
        self.attempt: Attempt | None = None
        self.news = asyncio.Event()  # set when the history has grown
        self.others_at = -OTHERS_S  # when another log service's message was seen last
        self.checkpoint = 0  # the stream's number of the last one
        self.checkpoint_at = 0  # its position
        self._checkpoint_time = time.monotonic()
        self._stream = stream
        self._history = history
        self._sources = sources
        self._landed = landed
        self._advance = advance
        self._random = random
        self._packs = packs
        self._give_up_s = give_up_s
        self._bell = asyncio.Event()
        self._stopping = False
        self._names = f"{secrets.token_hex(8)}-"
        self._count = 0

    def ring(self) -> None:
        """Say that something waits."""
        self._bell.set()

    def stop(self) -> None:
        """Have `run` end once all that waits is done."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        """Write what waits, as long as it is wanted."""
        while True:
            if self.failure is not None:
                await self._probe()
            elif self.waiting:
                await self._commit(self._take())
                await self._give_way()
                if self._is_due():
                    await self.write_checkpoint()
            elif self._stopping:
                return
            else:
                self._bell.clear()
                await self._bell.wait()

    async def write_checkpoint(self) -> Unavailable | None:
        """Write down what a start would have to read; returns why that failed."""

        def make() -> Attempt:
            chunks = self._history.close_chunk()
            history = self._history
            packet = pack_checkpoint(self._stream.prefix, Checkpoint(self._sources.copy(), chunks), history.end, self.checkpoint)
            return self._attempt(packet)

        failure = await self._send(make)
        if failure is not None:
            _log.warn_seldom("checkpoint_failed", f"a checkpoint of the log was not kept: {failure.message}; the next start takes longer")
        return failure

    def noted(self, seq: int, position: int) -> None:
        """Take note of a checkpoint, whoever wrote it."""
        self.checkpoint, self.checkpoint_at, self._checkpoint_time = seq, position, time.monotonic()

    async def _give_way(self) -> None:
        """Where others write too, let them come first now and then: who has just been taken in is always the first to know of it."""
        if time.monotonic() - self.others_at < OTHERS_S:
            await asyncio.sleep(self._random() * GIVE_WAY_S)

    def _is_due(self) -> bool:
        history = self._history
        messages = history.applied - self.checkpoint
        if history.end - self.checkpoint_at >= CHECKPOINT_BYTES or messages >= CHECKPOINT_MESSAGES:
            return True
        return messages > 0 and time.monotonic() - self._checkpoint_time >= CHECKPOINT_EVERY_S

    def _take(self) -> list[Item]:
        """Return what is the next group."""
        group: list[Item] = []
        size = 0
        while self.waiting:
            length = sum([len(run.lines) for run in self.waiting[0][0]])
            if group and size + length > GROUP_BYTES:
                break
            size += length
            group.append(self.waiting.popleft())
        return group

    async def _commit(self, group: list[Item]) -> None:
        """Keep a group, and tell those who wait for it."""
        answers: list[Appended] = []
        try:
            failure = None
            for items in self._parts(group):
                told = await self._keep(items)
                if isinstance(told, Unavailable):
                    failure = told
                    break
                answers = told if not answers else [_sum(one, more) for one, more in zip(answers, told, strict=True)]
        except asyncio.CancelledError:
            self._tell_all(group, [], STOPPING)
            raise
        except Exception as exc:  # a fault of ours with one group must not end the task that all others need
            _log.fault("group_failed", f"a group of entries was not kept: {type(exc).__name__}: {exc}", exc)
            failure = Unavailable("the log's store failed; its log says how", code="store_failed", retry_after_s=RETRY_AFTER_S)
        self._tell_all(group, answers, failure)

    def _parts(self, group: list[Item]) -> list[list[Sequence[Run]]]:
        """Return the runs of a group, in several parts where they are one append that no message can hold."""
        runs = [item[0] for item in group]
        limit = self._stream.max_message_bytes
        if len(group) > 1 or sum([len(run.lines) for run in runs[0]]) <= limit:
            return [runs]
        return [[part] for part in split_runs(runs[0], limit)]

    async def _keep(self, items: list[Sequence[Run]]) -> list[Appended] | Unavailable:
        """Keep runs as one message; returns what became of each item."""
        answers: list[Appended] = []

        def make() -> Attempt | None:
            staged: dict[str, Mark] = {}
            runs: list[Run] = []
            answers[:] = []
            for given in items:
                fresh, answer = self._sources.fresh(given, staged)
                runs += fresh
                answers.append(answer)
            if not runs:
                return None
            lines = b"".join([run.lines for run in runs])
            packet = pack_entries(self._stream.prefix, runs, lines, self._history.end, self._packs)
            attempt = self._attempt(packet)
            attempt.lines, attempt.runs, attempt.staged, attempt.answers = lines, runs, staged, list(answers)
            return attempt

        failure = await self._send(make)
        if failure is not None:
            return failure
        return self.attempt.answers if self.attempt is not None else answers

    async def _send(self, make: Callable[[], Attempt | None]) -> Unavailable | None:
        """Have a message taken in, made anew as often as another came first; returns why it was not."""
        deadline = time.monotonic() + self._give_up_s
        self.attempt = None
        failure: Unavailable | None = None
        while self.attempt is None or not self.attempt.landed:
            if (left_s := deadline - time.monotonic()) <= 0:
                return self._failed(failure or Unavailable("the log's stream changes too fast", retry_after_s=RETRY_AFTER_S))
            if self.attempt is None or self.attempt.after != self._history.applied:
                if (attempt := make()) is None:
                    self.attempt = None
                    return None
                self.attempt = attempt
            attempt = self.attempt
            try:
                seq = await self._stream.publish(attempt.packet, attempt.after, attempt.name, min(TRY_S, left_s))
            except Overtaken:
                await self._wait(attempt, left_s)
            except StorageFull as exc:
                return self._failed(exc)
            except Unavailable as exc:
                failure = exc
                await asyncio.sleep(min(AGAIN_S, left_s))
            else:
                if not attempt.landed:
                    attempt.landed = True
                    self._landed(seq, attempt)
        self._works()
        return None

    async def _wait(self, attempt: Attempt, timeout_s: float) -> None:
        """Wait until what came first is known."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._history.applied == attempt.after and not attempt.landed:
                    with suppress(Unavailable):
                        if await self._advance():
                            continue
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            pass

    def _attempt(self, packet: Packet) -> Attempt:
        self._count += 1
        return Attempt(f"{self._names}{self._count}", self._history.applied, self._history.end, packet)

    async def _probe(self) -> None:
        """While nothing can be kept: take nothing, and see whether a checkpoint can."""
        self.refuse(self.failure or STOPPING)
        if self._stopping:
            self.failure = None
        elif self._stream.reachable:
            await self.write_checkpoint()
            await asyncio.sleep(0 if self.failure is None else PROBE_EVERY_S)
        else:
            await asyncio.sleep(AGAIN_S)

    def refuse(self, failure: Unavailable) -> None:
        """Tell all that waits that it is not kept."""
        while self.waiting:
            self._tell(self.waiting.popleft()[1], failure)

    def _failed(self, exc: Unavailable) -> Unavailable:
        if self.failure is None:
            _log.error("store_failed", f"{exc.message}; nothing is acknowledged until it does")
        self.failure = exc
        return exc

    def _works(self) -> None:
        if self.failure is not None:
            _log.info("store_works", "NATS keeps entries again")
            self.failure = None

    def _tell_all(self, group: list[Item], answers: list[Appended], failure: Unavailable | None) -> None:
        for number, (_, done) in enumerate(group):
            self._tell(done, failure or answers[number])

    @staticmethod
    def _tell(done: Done, outcome: Appended | Unavailable) -> None:
        try:
            done(outcome)
        except Exception as exc:  # a fault of ours with one answer must not keep the others waiting
            _log.fault("answer_failed", f"an answer was not given: {type(exc).__name__}: {exc}", exc)


def split_runs(runs: Sequence[Run], limit: int) -> list[list[Run]]:
    """Return runs in parts of at most so many bytes, in their order."""
    parts: list[list[Run]] = [[]]
    size = 0
    for run in runs:
        for piece in _split(run, limit) if len(run.lines) > limit else [run]:
            if size + len(piece.lines) > limit and parts[-1]:
                parts.append([])
                size = 0
            parts[-1].append(piece)
            size += len(piece.lines)
    return parts


def _split(run: Run, limit: int) -> list[Run]:
    """Return a run in pieces of at most so many bytes; an entry is never cut."""
    lines = run.lines.splitlines(keepends=True)
    pieces = []
    begin = size = 0
    for number, line in enumerate([*lines, b""]):
        if number > begin and (number == len(lines) or size + len(line) > limit):
            text = b"".join(lines[begin:number])
            pieces.append(msgspec.structs.replace(run, lines=text, length=number - begin, seqs=run.seqs[begin:number]))
            begin, size = number, 0
        size += len(line)
    return pieces


def _sum(one: Appended, more: Appended) -> Appended:
    return Appended(one.accepted + more.accepted, one.duplicates + more.duplicates)
