"""What is read of the stream besides following it: checkpoints at a start, and old chunks when somebody looks for something."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pillion_common.logs import EventLog
from pillion_common.nats_stream import Message
from pillion_log.store.base import Summary
from pillion_log.store.nats_history import History
from pillion_log.store.nats_stream import LogStream
from pillion_log.store.nats_wire import CHECKPOINT, Broken, Chunk, start_of, unpack_checkpoint, unpack_entries
from pillion_log.store.sources import Mark

Fetch = Callable[[int, int], Sequence[Message]]

_log = EventLog("store")


class Unreadable(OSError):
    """The stream cannot be read now."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EHOSTUNREACH, why)

    def __str__(self) -> str:
        return self.strerror or ""


class Known(NamedTuple):
    """What the checkpoints of a stream tell."""

    seq: int  # of the last one
    position: int
    marks: dict[str, Mark]
    chunks: list[Chunk]


async def read_checkpoints(stream: LogStream, first: int) -> Known | None:
    """Return what the checkpoints of a stream tell, or None if there is none.

    Args:
        first: the number of its first message.

    Raises:
        Unavailable: nobody answers.
    """
    message = await stream.last_of(f"{stream.prefix}.{CHECKPOINT}")
    last = None
    chunks: list[list[Chunk]] = []
    while message is not None:
        try:
            checkpoint, previous = unpack_checkpoint(message.headers, message.payload)
            position = start_of(message.headers)
        except Broken as exc:
            _log.error("damaged_message", f"the checkpoint {message.seq} of the stream {stream.name} is damaged: {exc}")
            break
        last = last or Known(message.seq, position, checkpoint.marks, [])
        chunks.append([chunk for chunk in checkpoint.chunks if chunk.first >= first])
        message = await stream.message(previous) if previous >= first else None
    if last is None:
        return None
    return last._replace(chunks=[chunk for part in reversed(chunks) for chunk in part])


class StreamBlock:
    """A chunk whose entries are in the stream, or here since a short time."""

    __slots__ = ("_chunk", "_fetch", "_history")

    def __init__(self, chunk: Chunk, history: History, fetch: Fetch) -> None:
        self._chunk = chunk
        self._history = history
        self._fetch = fetch

    @property
    def start(self) -> int:
        """The position of its first byte."""
        return self._chunk.start

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self._chunk.end

    @property
    def summary(self) -> Summary | None:
        """What is in it."""
        return self._chunk.summary

    def read(self) -> bytes:
        """Return the lines; nothing where retention has removed some of them meanwhile.

        Raises:
            Unreadable: nobody answers.
        """
        return self._history.lines(self._chunk, self._get)

    def _get(self, chunk: Chunk) -> bytes:
        pieces = []
        end = chunk.start
        for message in self._fetch(chunk.first, chunk.last):
            try:
                start, lines = start_of(message.headers), unpack_entries(message.headers, message.payload)
            except Broken:
                continue  # one that is none of ours
            if start != end:
                return b""
            pieces.append(lines)
            end += len(lines)
        return b"".join(pieces) if end == chunk.end else b""
