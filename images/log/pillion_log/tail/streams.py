"""One tail's stream of server-sent events: first from the disk, then from its ring, without a hole and without a double between them.

An id says: all up to here was seen. A reader that connects again with it (Last-Event-ID) gets what came after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from pillion_common.errors import InvalidInput, MethodNotAllowed, PillionError
from pillion_common.http.interfaces import AnswerStream, StreamingHandler
from pillion_common.http.message import Request, Response, error_response
from pillion_common.logs import EventLog
from pillion_log.query.matching import Matcher
from pillion_log.query.paging import STEP_S, Search
from pillion_log.query.question import MAX_POSITION, Cursor, Question, TailQuestion, parse_tail
from pillion_log.query.shapes import as_event
from pillion_log.store.base import Store
from pillion_log.tail.rings import PIECE_BYTES, Place, Ring, gap_event
from pillion_log.tail.tails import Tails

PATH = b"/logs/tail"
HEARTBEAT_S = 15.0
FAULT_S = 1.0  # how often the store is asked for its fault
HEAD: Mapping[bytes, bytes] = {
    b"Content-Type": b"text/event-stream",
    b"Cache-Control": b"no-store",
    b"X-Accel-Buffering": b"no",
    b"X-Content-Type-Options": b"nosniff",
}

_log = EventLog("tail")


class Caught(NamedTuple):
    """What was found on the disk: events, and where to go on."""

    events: bytes
    position: int


class TailStreams:
    """Serves the tails, and leaves all other paths to another handler.

    Args:
        rest: answers all else.
        clock: seconds since 1970.
    """

    def __init__(self, tails: Tails, rest: StreamingHandler, clock: Callable[[], float] = time.time) -> None:
        self._tails = tails
        self._rest = rest
        self._clock = clock

    async def __call__(self, request: Request, connection: AnswerStream) -> None:
        """Write events until the reader goes or the log service ends."""
        if request.raw_path != PATH:
            await self._rest(request, connection)
            return
        request.keep_alive = False  # the stream's end is the connection's
        try:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(request.method, ("GET", "HEAD"))
            asked = parse_tail(request.query(), self._clock())
            seen = _last_seen(request)
            wanted = asked.filter.ever()
            ring = self._tails.open(wanted)
        except PillionError as error:
            response = error_response(error)
            head = response.head(False, connection.date)
            connection.write(head if request.method == "HEAD" else head + response.body)
            return
        try:
            connection.write(Response(200, headers=HEAD).head(False, connection.date).replace(b"Content-Length: 0\r\n", b""))
            if request.method != "HEAD":
                await _Stream(self._tails, ring, connection).run(asked, seen)
        except ConnectionResetError:
            pass
        except OSError as exc:
            _log.warn_seldom("tail_failed", f"a tail ended: the store cannot be read: {exc}")
            connection.write(store_event(f"the store cannot be read: {exc.strerror}"))  # the reader comes again by itself
        finally:
            self._tails.leave(wanted)


class _Stream:
    """One reader's stream."""

    def __init__(self, tails: Tails, ring: Ring, connection: AnswerStream) -> None:
        self._tails = tails
        self._ring = ring
        self._connection = connection
        self._place: Place = ring.place
        self._seen = 0  # all before this position was sent, or is not wanted
        self._told: str | None = None  # the store's fault, as the reader knows it

    async def run(self, asked: TailQuestion, seen: int | None) -> None:
        """Send what there is and then what comes."""
        self._connection.write(b"retry: 1000\n\n")
        limit = self._ring.reached  # of one moment with self._place
        matcher = await self._tails.threads.run(lambda: Matcher(asked.filter if seen is None else asked.filter.ever()))
        position = await self._begin(asked, seen, limit, matcher)
        while not await self._catch_up(position, limit, matcher):
            position, limit, self._place = limit, self._ring.reached, self._ring.place
        self._seen = limit
        self._connection.write(self._heartbeat())
        await self._follow()

    async def _begin(self, asked: TailQuestion, seen: int | None, limit: int, matcher: Matcher) -> int:
        """Return the position from which on entries are sent."""
        store = self._tails.store
        if seen is not None:
            oldest = await self._tails.threads.run(lambda: store.stats().oldest)
            if seen >= limit:  # it was another log that gave this id
                self._connection.write(gap_event(None, oldest, limit) if seen > limit else b"")
                return limit
            if seen + 1 < oldest:
                self._connection.write(gap_event(None, seen + 1, oldest))
            return seen + 1
        if asked.last is not None:
            last = asked.last
            return await self._tails.threads.run(lambda: find_last(store, matcher, last, limit))
        return 0 if asked.filter.since else limit

    async def _catch_up(self, position: int, limit: int, matcher: Matcher) -> bool:
        """Send what is on the disk up to a limit; returns whether what came meanwhile is in the ring still."""
        while position < limit and not self._tails.closed:
            begin = position
            caught = await self._tails.threads.run(lambda: read_on(self._tails.store, matcher, begin, limit))  # noqa: B023
            position = caught.position
            if caught.events:
                self._connection.write(caught.events)
                await self._connection.drained()
        return self._tails.closed or self._ring.holds(self._place)

    async def _follow(self) -> None:
        """Send what comes."""
        while not self._tails.closed:
            piece = self._ring.next(self._place)
            if piece is None:
                self._seen = max(self._seen, self._ring.reached)
                await self._wait_for_news()
                if self._ring.next(self._place) is None:
                    self._connection.write(self._heartbeat())
                    await self._connection.drained()
                continue
            if piece.turn > self._place.turn:
                missed = piece.number - self._place.number
                first = _first_position(piece.events.text) or piece.events.last
                self._tails.missed += missed
                self._connection.write(gap_event(missed, self._seen, first))
            self._connection.write(piece.events.text)
            self._place = Place(piece.turn + 1, piece.number + piece.events.entries)
            self._seen = piece.events.last + 1
            await self._connection.drained()

    async def _wait_for_news(self) -> None:
        """Wait for news, as long as a heartbeat may; tell meanwhile why there can be none, and when that is over."""
        left_s = HEARTBEAT_S
        while left_s > 0 and not self._tails.closed and self._ring.next(self._place) is None:
            fault = self._tails.store.fault()
            if (fault is None) != (self._told is None):
                self._told = fault
                self._connection.write(store_event(fault))
                await self._connection.drained()
            await self._ring.wait(min(left_s, FAULT_S))
            left_s -= FAULT_S

    def _heartbeat(self) -> bytes:
        """Return what keeps the connection alive and says how far all was seen, also where nothing was wanted."""
        seen = max(self._seen, self._ring.reached if self._ring.next(self._place) is None else 0)
        return b": here\nid: %d\n\n" % (seen - 1) if seen else b": here\n\n"


def store_event(fault: str | None) -> bytes:
    """Return the event that says why nothing can come in now; None: something can again."""
    return b"event: store\ndata: %b\n\n" % msgspec.json.encode({"Fault": fault})


def read_on(store: Store, matcher: Matcher, position: int, limit: int) -> Caught:
    """Return what is wanted from a position on, a bounded part of it at a time.

    Raises:
        OSError: the store cannot be read.
    """
    found: list[bytes] = []
    size, began = 0, time.perf_counter()
    with store.blocks(position, newest_first=False) as blocks:
        for block in blocks:
            if block.start >= limit:
                break
            if matcher.may_match(block.summary):
                for match in matcher.look(block.read(), block.start, block.summary, position, limit):
                    found.append(as_event(match))
                    size += len(found[-1])
                    if size >= PIECE_BYTES:
                        return Caught(b"".join(found), match.position + 1)
            position = max(position, block.end)
            if time.perf_counter() - began >= STEP_S:
                return Caught(b"".join(found), min(position, limit))
    return Caught(b"".join(found), limit)


def find_last(store: Store, matcher: Matcher, count: int, limit: int) -> int:
    """Return the position of the oldest of the newest wanted entries before a limit; what a bounded search does not reach is left out.

    Raises:
        OSError: the store cannot be read.
    """
    oldest = limit
    if not count:
        return limit
    with store.blocks() as blocks:
        search = Search(blocks, Question(limit=count, cursor=Cursor(limit, back=True)), matcher)
        while not search.over:
            if step := search.step():
                oldest = step[1][-1].position
    return oldest


def _last_seen(request: Request) -> int | None:
    text = request.header(b"last-event-id")
    if not text:
        return None
    if not text.isdigit() or len(text) > 19 or int(text) > MAX_POSITION:
        raise InvalidInput("Last-Event-ID is none that this log has given", code="invalid_query", field="Last-Event-ID")
    return int(text)


def _first_position(events: bytes) -> int | None:
    """Return the id of the first event of a piece."""
    line = events[: events.find(b"\n")]
    return int(line[4:]) if line.startswith(b"id: ") else None
