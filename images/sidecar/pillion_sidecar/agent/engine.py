"""The engine's API: two reads, the stream of events and, if switched on, containers' logs, all by GET. A proxy that lets nothing else
through is enough.

Each read has a connection of its own. Errors are PeerError's subclasses; their messages say what to do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httptools

from pillion_common.errors import PeerBroken, PeerClosed, PeerError, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_common.http.answers import Answer, AnswerReader
from pillion_common.logs import EventLog
from pillion_sidecar.agent.settings import EngineAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = EventLog("engine")

READ_S = 10.0
OPEN_S = 3.0
# The stream is opened anew that often: one whose other end is gone without a word is not waited for longer.
STREAM_S = 300.0
PIECE_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # thousands of containers
MAX_EVENT_BYTES = 512 * 1024
ACTIONS = ("start", "die", "kill", "pause", "unpause", "health_status", "destroy", "connect", "disconnect")
FILTERS = json.dumps({"type": ["container", "network"], "event": list(ACTIONS)}, separators=(",", ":"))

OnEvent = Callable[[dict[str, Any]], None]


class Engine:
    """Asks one engine."""

    def __init__(self, where: EngineAddress) -> None:
        self._where = where

    async def list(self) -> Any:
        """Return all running containers (a paused one runs), as the engine lists them.

        Raises:
            PeerError: it cannot be asked.
        """
        return _decode(await self._get("/containers/json"), "/containers/json")

    async def inspect(self, container_id: str) -> Any:
        """Return all about one container; None if there is none of that id.

        Raises:
            PeerError: it cannot be asked.
        """
        target = f"/containers/{quote(container_id, safe='')}/json"
        answer = await self._get(target)
        return None if answer.status == 404 else _decode(answer, target)

    async def follow(self, on_open: Callable[[], None], on_event: OnEvent) -> None:
        """Tell the engine's events as they come, until the stream ends, at the latest after STREAM_S.

        Args:
            on_open: called once they come.
            on_event: given each event, e.g. {"Type":"container","Action":"die","Actor":{"ID":"3f2a…","Attributes":{…}}}; an empty one
                stands for what could not be read.

        Raises:
            PeerError: it cannot be asked.
        """
        target = f"/events?filters={quote(FILTERS)}"
        events = EventReader(on_open, on_event, target)
        async with self._connected() as (reader, writer):
            writer.write(_request(target))
            try:
                async with asyncio.timeout(STREAM_S):
                    while piece := await _piece(reader):
                        events.feed(piece)
            except TimeoutError:
                pass
            if not events.open:
                raise PeerClosed(f"the engine at {self._where} did not answer to {target.partition('?')[0]}")

    async def logs(self, container_id: str, since: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Tell a container's log from a time on, and what is written to it, until the container or the engine ends.

        Args:
            since: seconds since 1970, with a fraction.
            take: given the bytes, with what is before each text (log_records.py); while it waits the engine waits as well.

        Raises:
            PeerError: it cannot be asked, or broke off.
        """
        target = f"/containers/{quote(container_id, safe='')}/logs"
        body = BodyReader(target)
        async with self._connected() as (reader, writer):
            writer.write(_request(f"{target}?follow=1&stdout=1&stderr=1&timestamps=1&since={since}"))
            while piece := await _piece(reader):
                for data in body.feed(piece):
                    await take(data)
            if not body.open:
                raise PeerClosed(f"the engine at {self._where} did not answer to {target}")

    async def _get(self, target: str) -> Answer:
        answers = AnswerReader(MAX_ANSWER_BYTES)
        try:
            async with asyncio.timeout(READ_S), self._connected() as (reader, writer):
                writer.write(_request(target))
                answer = None
                while answer is None:
                    piece = await _piece(reader)
                    answer = answers.feed(piece) if piece else answers.end()
                    if answer is None and not piece:
                        raise PeerClosed(f"the engine at {self._where} closed the connection before its answer to {target} was whole")
                return answer
        except TimeoutError as exc:
            raise PeerTimedOut(f"the engine at {self._where} did not answer to {target} within {READ_S:g} s") from exc

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        where = self._where
        try:
            async with asyncio.timeout(OPEN_S):
                if where.path:
                    reader, writer = await asyncio.open_unix_connection(where.path)
                else:
                    reader, writer = await asyncio.open_connection(where.host, where.port)
        except OSError as exc:
            raise _unreachable(where, exc) from exc
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


class EventReader:
    """Turns the bytes of the stream into events, each bounded. Does no I/O."""

    def __init__(self, on_open: Callable[[], None], on_event: OnEvent, target: str) -> None:
        self._on_open = on_open
        self._on_event = on_event
        self._target = target
        self._parser = httptools.HttpResponseParser(self)
        self._line = b""
        self._error: PeerError | None = None
        self.open = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the answer.

        Raises:
            PeerBroken: this is not HTTP, not 200, or an event is over its bound.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise self._error or PeerBroken(f"the engine's events are not valid HTTP: {exc}") from exc

    # From the parser.

    def on_headers_complete(self) -> None:  # noqa: D102
        status = self._parser.get_status_code()
        if status != 200:
            self._error = _refused(status, b"", self._target)
            raise self._error
        self.open = True
        self._on_open()

    def on_body(self, piece: bytes) -> None:  # noqa: D102
        *lines, self._line = (self._line + piece).split(b"\n")
        for line in lines:
            if line.strip():
                self._on_event(_event(line))
        if len(self._line) > MAX_EVENT_BYTES:
            self._error = PeerBroken(f"an event of the engine is over {MAX_EVENT_BYTES} bytes")
            raise self._error


class BodyReader:
    """Turns the bytes of an answer without end into those of its body. Does no I/O."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._error: PeerError | None = None
        self.open = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the answer; return those of the body.

        Raises:
            PeerBroken: this is not HTTP, or not 200.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise self._error or PeerBroken(f"the engine's answer is not valid HTTP: {exc}") from exc
        pieces, self._pieces = self._pieces, []
        return pieces

    # From the parser.

    def on_headers_complete(self) -> None:  # noqa: D102
        status = self._parser.get_status_code()
        if status != 200:
            self._error = _refused(status, b"", self._target)
            raise self._error
        self.open = True

    def on_body(self, piece: bytes) -> None:  # noqa: D102
        self._pieces.append(piece)


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        _log.warn_seldom("event_unreadable", f"an event of the engine is not a JSON object: {line[:100]!r}")
        return {}
    return event


def _request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode()


async def _piece(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(PIECE_BYTES)
    except OSError as exc:
        raise PeerClosed(f"the engine closed the connection: {exc}") from exc


def _decode(answer: Answer, target: str) -> Any:
    if answer.status != 200:
        raise _refused(answer.status, answer.body, target)
    if len(answer.body) >= MAX_ANSWER_BYTES:
        raise PeerBroken(f"the engine's answer to {target} is over {MAX_ANSWER_BYTES >> 20} MB")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as exc:
        raise PeerBroken(f"the engine's answer to {target} is not JSON: {exc}") from exc


def _refused(status: int, body: bytes, target: str) -> PeerBroken:
    path = target.partition("?")[0]
    if status == 403:
        return PeerBroken(f"GET {path} is forbidden; the proxy before the engine has to allow /containers and /events")
    said = body.decode("utf-8", "replace").strip()[:200]
    return PeerBroken(f"the engine answered {status} to GET {path}" + (f": {said}" if said else ""))


def _unreachable(where: EngineAddress, exc: OSError) -> PeerError:
    if isinstance(exc, PermissionError):
        return PeerUnreachable(f"{where} may not be opened: run the agent in the group that owns it (group_add in compose)")
    if isinstance(exc, ConnectionRefusedError):
        return PeerRefused(f"nobody listens at {where}: is the engine running?")
    if isinstance(exc, FileNotFoundError):
        return PeerUnreachable(f"{where} is not there: mount it, or name the engine's socket or proxy with PILLION_DOCKER")
    if isinstance(exc, TimeoutError):
        return PeerTimedOut(f"{where} took no connection within {OPEN_S:g} s")
    return PeerUnreachable(f"{where} cannot be reached: {exc}")
