"""Server-sent events: `GET /watch`. A reader has no queue of its own, only a place in what happened lately: one that falls too far behind
is shown everything anew."""

from __future__ import annotations

from typing import Any

from tornado.iostream import StreamClosedError

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.models import encode
from pillion_registry.events import Change
from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.reads import Filters
from pillion_registry.views import view_of_change
from pillion_registry.wire import ChangeView

MAX_STREAMS = 1_000
MAX_NAMES = 100
KEEP_ALIVE_S = 15.0
MAX_AT_ONCE = 64  # changes in one piece, so that a reader who is far behind costs no more memory than others
EVENT_STREAM = "text/event-stream"


class StreamHandler(RegistryHandler):
    """A handler that goes on writing until its reader goes or the registry stops."""

    async def begin(self) -> None:
        """Write the head, if there is room for one more stream.

        Raises:
            Unavailable: there is not.
        """
        streams = self.registry.streams
        if len(streams) >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} streams are open already; close one", code="too_many_streams", retry_after_s=5)
        streams.add(self)
        self.set_header("Content-Type", EVENT_STREAM)
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        self.set_header("Connection", "close")  # the stream's end is the connection's
        await self.flush()

    def on_finish(self) -> None:
        """Make room for another stream."""
        self.registry.streams.discard(self)

    def on_connection_close(self) -> None:
        """Make room for another stream."""
        super().on_connection_close()
        self.registry.streams.discard(self)

    async def send(self, data: bytes) -> bool:
        """Write, and wait until the reader has taken enough; return whether there is anybody still."""
        self.write(data)
        try:
            await self.flush()
        except StreamClosedError:
            return False
        return self.open

    @property
    def open(self) -> bool:
        """Return whether to go on."""
        return not self.reader.gone and not self.registry.reads.closed

    def last_seen(self) -> int | None:
        """Return the id of the last event the reader has seen."""
        last = self.request.headers.get("Last-Event-ID") or self.text("last_event_id")
        return int(last) if last and last.isascii() and last.isdigit() and len(last) < 20 else None


class WatchHandler(StreamHandler):
    """`GET /watch`: a snapshot, then each change."""

    async def get(self) -> None:
        """Stream what changes about the services of these names, or all."""
        self._names = frozenset(self.get_query_arguments("name"))
        if len(self._names) > MAX_NAMES:
            raise InvalidInput(
                f"{len(self._names)} names are too many; watch {MAX_NAMES} at most, or all", code="invalid_query", field="name"
            )
        seen = self.last_seen()
        await self.begin()
        if self.request.method == "HEAD":
            return
        revision = self.registry.catalog.revision
        if seen is None or seen > revision or self.registry.events.changes_since(seen) is None:
            seen = -1
        while self.open:
            changes = self.registry.events.changes_since(seen) if seen >= 0 else None
            if changes is None:
                seen = self.registry.catalog.revision
                said = self._snapshot(seen)
            else:
                some = changes[:MAX_AT_ONCE]
                said = b"".join([self._told(change) for change in some])
                seen = some[-1][0].revision if some else seen
            if said and not await self.send(said):
                return
            quiet = self.registry.catalog.revision == seen and not await self.registry.events.bell.wait(KEEP_ALIVE_S, self.reader)
            if quiet and not await self.send(b": still here\nid: %d\n\n" % seen):
                return

    def _snapshot(self, revision: int) -> bytes:
        return event("snapshot", revision, self.registry.reads.list(Filters(), names=self._names or None))

    def _told(self, change: Change) -> bytes:
        what, record = change
        if self._names and record.name not in self._names:
            return b""
        shown = ChangeView(what.revision, self.registry.epoch, what.kind, what.state is None, view_of_change(change))
        return event("change", what.revision, encode(shown))


def event(kind: str, number: int, data: bytes) -> bytes:
    """Return one event as its bytes; the data is JSON, which has no line ends."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), number, data)


def wants_stream(headers: Any) -> bool:
    """Return whether a request asks for a stream by its Accept header."""
    return EVENT_STREAM in headers.get("Accept", "")
