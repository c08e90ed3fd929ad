"""Follows the log of one container, over restarts of the engine and of this agent, each record once as far as their times allow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.logs import EventLog
from pillion_sidecar.agent.log_records import NOWHERE, Place, Record, RecordReader, entry_time, format_places, parse_places, since
from pillion_sidecar.logs.entry import Entry, EntryMaker, cut_mark
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.sources.lines import Line, LineReader
from pillion_sidecar.logs.sources.traces import Joined, TraceJoiner

_log = EventLog("container_logs")

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 5.0
FLUSH_S = 1.0  # after which a trace is taken as whole
ROOM_S = 0.2  # between two looks for room
PREFIX = "docker:"


class LogReads(Protocol):
    """What is asked of the engine (engine.Engine)."""

    async def logs(self, container_id: str, since: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Tell the log's bytes as they come, until it ends."""


class _Stream:
    """One of a container's two: pieces to lines, lines to traces."""

    def __init__(self, join: tuple[str, ...]) -> None:
        self.lines = LineReader()
        self.joiner: TraceJoiner[tuple[Place, int]] = TraceJoiner(join)

    def feed(self, record: Record) -> list[Joined[tuple[Place, int]]]:
        return [joined for line in self.lines.feed(record.data) for joined in self._take(line, record.place)]

    def end(self, place: Place) -> list[Joined[tuple[Place, int]]]:
        return [joined for line in self.lines.end() for joined in self._take(line, place)] + self.joiner.end()

    def _take(self, line: Line, place: Place) -> list[Joined[tuple[Place, int]]]:
        text = line.data.decode("utf-8", "replace") + (cut_mark(line.missing) if line.missing else "")
        return self.joiner.feed(text, (place, line.missing))


class Follower:
    """Follows one container's log.

    Args:
        begin_s: seconds since 1970 from which on it is read if it was not read before.
        has_terminal: whether the container has one.
        join: names of languages whose traces are joined.
    """

    def __init__(
        self,
        container_id: str,
        engine: LogReads,
        maker: EntryMaker,
        sink: Sink,
        *,
        begin_s: float,
        has_terminal: bool,
        join: Iterable[str],
    ) -> None:
        self._id = container_id
        self._engine = engine
        self._maker = maker
        self._sink = sink
        self._begin_s = begin_s
        self._has_terminal = has_terminal
        self._join = tuple(join)
        self._key = PREFIX + container_id[:12]
        self._places = parse_places(sink.positions.get(self._key, ""))  # how far it was kept
        self._streams: dict[str, _Stream] = {}
        self._reader = RecordReader(has_terminal)
        self._flush: asyncio.TimerHandle | None = None
        self.ending = False  # the container has ended: what is left is read, once

    async def run(self) -> None:
        """Follow it until its container has ended."""
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        while True:
            was_ending = self.ending
            self._streams = {}
            self._reader = RecordReader(self._has_terminal)
            try:
                await self._engine.logs(self._id, since(self._places, self._begin_s), self._take)
                self._end_streams()
                backoff.reset()
            except PeerError as exc:
                _log.warn_seldom("log_lost", f"the log of container {self._id[:12]} cannot be followed: {exc.message}; trying again")
            if was_ending and self.ending:  # it may have been started again meanwhile
                return
            await asyncio.sleep(backoff.next_delay())

    async def _take(self, data: bytes) -> None:
        if self._flush is not None:
            self._flush.cancel()
        entries: list[Entry] = []
        places = dict(self._places)
        for record in self._reader.feed(data):
            if record.place <= self._places.get(record.stream, NOWHERE):
                continue  # seen before
            stream = self._streams.setdefault(record.stream, _Stream(self._join))
            self._add(entries, places, record.stream, stream.feed(record))
        await self._keep(entries, places)
        if any(stream.joiner.holds for stream in self._streams.values()):
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_traces)

    async def _keep(self, entries: list[Entry], places: dict[str, Place]) -> None:
        """Keep entries as soon as there is room: until then the engine is not read on, for it has them as well."""
        while self._sink.crowded or not self._keep_now(entries, places):
            await asyncio.sleep(ROOM_S)

    def _keep_now(self, entries: list[Entry], places: dict[str, Place]) -> bool:
        if entries and not self._sink.keep(entries, {self._key: format_places(places)}):
            return False
        self._places = places
        return True

    def _flush_traces(self) -> None:
        entries: list[Entry] = []
        places = dict(self._places)
        for name, stream in self._streams.items():
            self._add(entries, places, name, stream.joiner.end())
        self._keep_now(entries, places)

    def _end_streams(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
        entries: list[Entry] = []
        places = dict(self._places)
        for name, stream in self._streams.items():
            self._add(entries, places, name, stream.end(places.get(name, NOWHERE)))
        self._keep_now(entries, places)

    def _add(self, entries: list[Entry], places: dict[str, Place], name: str, found: Iterable[Joined[tuple[Place, int]]]) -> None:
        for text, (place, missing), is_trace in found:
            fields: dict[str, object] = {"Stream": name, **({"Cut": missing} if missing else {})}
            entries.append(self._maker.make(text, "error" if is_trace else "info", entry_time(place), fields))
            places[name] = max(place, places.get(name, NOWHERE))
