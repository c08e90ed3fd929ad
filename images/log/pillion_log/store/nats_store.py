"""The store for several log services: a NATS stream, which JetStream replicates. Each service takes in, and answers from, the same log.

Puts the parts together: the Follower reads the stream into the History, the Writer adds to it, and blocks are read from either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_follower import Follower
from pillion_common.nats_link import NatsLink, NatsPlace
from pillion_common.nats_stream import MESSAGE_ID, Message, StreamGone
from pillion_common.tasks import Supervisor
from pillion_log.entries import Run
from pillion_log.store.base import Block, Done, Listeners, MemoryBlock, StoreStats, Wanted
from pillion_log.store.files import FileOptions
from pillion_log.store.nats_history import History
from pillion_log.store.nats_reading import StreamBlock, Unreadable, read_checkpoints
from pillion_log.store.nats_stream import LogStream
from pillion_log.store.nats_wire import LEAP_BYTES, PREVIOUS, Broken, start_of, unpack_entries
from pillion_log.store.nats_writer import GIVE_UP_S, RETRY_AFTER_S, STOPPING, Attempt, Writer
from pillion_log.store.sources import Sources

MAX_WAITING_BYTES = 32 * 1024 * 1024
LOOK_EVERY_S = 2.0  # at what retention has removed
RETRY_S = 1.0
CLOSE_S = 5.0
FETCH_S = 10.0  # for the messages of one chunk

T = TypeVar("T")

_log = EventLog("store")


class NatsStore:
    """Keeps entries in a stream.

    Args:
        place: the cluster.
        options: how much is kept, and whether it is packed; the rest is of no use here.
        token_file: for the cluster.
        give_up_s: how long an append waits for JetStream.
    """

    def __init__(self, place: NatsPlace, options: FileOptions, token_file: str = "", give_up_s: float = GIVE_UP_S) -> None:
        self._link = NatsLink(place, "pillion-log", token_file)
        self._stream = LogStream(self._link, options.max_bytes, options.max_age_s)
        self._history = History(options.max_bytes)
        self._sources = Sources()
        self._follower = Follower(self._link, self._stream.name, lambda seq: self._stream.message(seq + 1), self._take)
        self._writer = Writer(
            self._stream, self._history, self._sources, self._landed, self._follower.advance, packs=options.packs, give_up_s=give_up_s
        )
        self._listeners = Listeners(lambda exc: _log.fault("listener_failed", f"who followed the store is told no more: {exc}", exc))
        self._tasks = Supervisor()
        self._opening: str | None = "the log's stream has not been read yet"
        self._placed = False  # whether some message has told its position
        self._bytes = 0  # of all that waits or is being written
        self._taking = False
        self._closing = False  # looked at by all loops: a cancellation may be lost in nats-py
        self._gone = asyncio.Event()

    async def load(self) -> None:
        """Begin to connect, and to read what there is. Until that is done `fault` tells of it."""
        self._loop = asyncio.get_running_loop()
        self._tasks.spawn("log-open", self._open())

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries; tells `done` when their group is in the stream."""
        size = sum([len(run.lines) for run in runs])
        if self._opening is not None or not self._taking:
            done(Unavailable(self.fault() or "the log service is stopping", code="store_failed", retry_after_s=RETRY_AFTER_S))
        elif self._writer.failure is not None:
            done(self._writer.failure)
        elif self._bytes + size > MAX_WAITING_BYTES and self._bytes:
            done(Unavailable("the log's store has too much waiting; try again soon", code="store_busy"))
        else:
            self._bytes += size

            def settled(outcome: object) -> None:
                self._bytes -= size
                done(outcome)  # type: ignore[arg-type]

            self._writer.waiting.append((runs, settled))
            self._writer.ring()

    @contextmanager
    def blocks(self, after: int = 0, newest_first: bool = True, wanted: Wanted | None = None) -> Iterator[Iterator[Block]]:
        """Return the entries in blocks; older ones are asked for when they are read."""
        if (fault := self._link.fault() or self._opening) is not None:
            raise Unreadable(fault)
        found = self._history.blocks(after, newest_first, wanted)
        yield (one if isinstance(one, MemoryBlock) else StreamBlock(one, self._history, self._fetch) for one in found)

    def follow(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Call the listener with each group, whichever log service took it in."""
        return self._listeners.add(listener)

    def stats(self) -> StoreStats:
        """Return what there is."""
        return self._history.stats()

    def fault(self) -> str | None:
        """Return why nothing can be kept now."""
        if (fault := self._link.fault()) is not None:
            return fault
        return self._opening or (self._writer.failure.message if self._writer.failure else None)

    async def lost(self) -> str:
        """Return why nothing but a new start helps, as soon as that is so."""
        gone = asyncio.ensure_future(self._gone.wait())
        refused = asyncio.ensure_future(self._link.lost_for_good())
        try:
            await asyncio.wait((gone, refused), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            refused.cancel()
        if self._gone.is_set():
            return self._opening or ""
        return f"{self._link.fault()}; NATS has refused this log service for good: see --store-token-file"

    async def close(self) -> None:
        """Write what waits, then let go."""
        taking, self._taking = self._taking, False
        self._closing = True
        if taking:
            self._writer.stop()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._writing, CLOSE_S)
        self._follower.stop()
        await self._tasks.stop()
        self._writer.refuse(STOPPING)
        await asyncio.wait({asyncio.create_task(self._link.close(), name="nats-close")}, timeout=CLOSE_S)

    async def _open(self) -> None:
        """Connect, learn what there is, and follow from there on."""
        await self._link.open()
        last = await self._patiently(self._restore)
        self._keep("log-follower", self._follower.run(self._history.applied))
        while self._history.applied < last:
            self._opening = f"the log's stream is being read: {self._history.applied} of {last} messages"
            self._writer.news.clear()
            await self._writer.news.wait()
        if last and not self._placed:
            self._history.skip(last, last * LEAP_BYTES)
            await self._patiently(self._place)
        self._opening = None
        self._taking = True
        self._writing = self._keep("log-writer", self._writer.run())
        self._keep("log-keeper", self._watch())
        _log.info("store_open", f"the stream {self._stream.name} is read; it ends at message {self._history.applied}")

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what the work returns, as soon as NATS lets it."""
        while not self._closing:
            try:
                return await work()
            except Unavailable as exc:
                self._opening = exc.message
                _log.warn_seldom("not_open", f"{exc.message}; trying again")
            await asyncio.sleep(RETRY_S)
        raise asyncio.CancelledError

    async def _restore(self) -> int:
        """Begin with the last checkpoint, or before the first message; returns the number of the last message."""
        state = await self._stream.ensure()
        found = await read_checkpoints(self._stream, state.first)
        if found is not None:
            self._sources.keep(found.marks)
            self._history.restore(found.chunks, found.seq, found.position)
            self._writer.noted(found.seq, found.position)
            self._placed = True
        else:
            self._history.restore([], max(0, state.first - 1), 0)
        return state.last

    async def _place(self) -> None:
        """Write down the position at which the log goes on where nothing that is left tells it, so that nobody takes another."""
        if not self._placed and (failure := await self._writer.write_checkpoint()) is not None:
            raise failure

    async def _watch(self) -> None:
        """Take note of what retention removes."""
        known = 0
        while not self._closing:
            with suppress(Unavailable):  # who writes or reads is told
                state = await self._stream.state()
                if state.last < known:
                    raise StreamGone(f"the stream {self._stream.name} has lost messages: it ends at {state.last}, where it had {known}")
                self._history.drop(state.first)
                self._history.disk_bytes = state.size
                known = self._history.applied
            await asyncio.sleep(LOOK_EVERY_S)

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task without which the store is lost."""

        async def guarded() -> None:
            try:
                await work
            except StreamGone as exc:
                self._lose(str(exc))
            except Exception as exc:  # nobody expected it; a new start does better than half a store
                _log.fault("task_failed", f"{name} failed: {type(exc).__name__}: {exc}", exc)
                self._lose(f"{name} failed: {type(exc).__name__}")

        return self._tasks.spawn(name, guarded())

    def _lose(self, why: str) -> None:
        self._opening = why
        self._writer.refuse(Unavailable(why, code="store_failed", retry_after_s=RETRY_AFTER_S))
        self._gone.set()

    def _take(self, message: Message) -> None:
        """Take note of a message that the stream gives."""
        history, writer = self._history, self._writer
        if message.seq <= history.applied:
            return
        attempt = writer.attempt
        if attempt is not None and not attempt.landed and message.headers.get(MESSAGE_ID) == attempt.name:
            attempt.landed = True
            self._landed(message.seq, attempt)
            return
        try:
            start = start_of(message.headers)
            if PREVIOUS in message.headers:
                history.skip(message.seq, start)
                writer.noted(message.seq, start)
            else:
                writer.others_at = time.monotonic()
                lines = unpack_entries(message.headers, message.payload)
                self._sources.learn(lines)
                history.add(message.seq, start, lines)
                self._listeners.tell(MemoryBlock(start, lines))
            self._placed = True
        except Broken as exc:
            history.skip(message.seq)
            history.damaged += 1
            _log.error("damaged_message", f"message {message.seq} of the stream {self._stream.name} is passed over: {exc}")
        writer.news.set()

    def _landed(self, seq: int, attempt: Attempt) -> None:
        """Take note of a message of our own."""
        if attempt.lines:
            self._sources.keep(attempt.staged)
            self._history.add(seq, attempt.start, attempt.lines, attempt.runs)
            self._listeners.tell(MemoryBlock(attempt.start, attempt.lines))
        else:
            self._history.skip(seq, attempt.start)
            self._writer.noted(seq, attempt.start)
            self._placed = True
        self._writer.news.set()

    def _fetch(self, first: int, last: int) -> list[Message]:
        """Return messages. Blocks: in a thread."""
        waiting = asyncio.run_coroutine_threadsafe(self._stream.messages(first, last), self._loop)
        try:
            return waiting.result(FETCH_S)
        except (Unavailable, TimeoutError) as exc:
            waiting.cancel()
            raise Unreadable(str(exc) or "NATS did not answer in time") from exc
