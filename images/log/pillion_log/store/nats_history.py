"""What a log service knows of the stream that its log is in: which entries it has, where they are, and the newest of them themselves.

Every log service follows the stream from its first message, or from a checkpoint, to its last, and so all know the same. Reading and
sending is done elsewhere. The loop's thread changes it, any thread may look; its memory is bounded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from pillion_log.entries import Run
from pillion_log.store.base import MemoryBlock, StoreStats, Summary, Wanted
from pillion_log.store.nats_wire import Chunk
from pillion_log.store.summaries import Tally, merge

CHUNK_BYTES = 1 << 20
CHUNK_MESSAGES = 256
MIN_CHUNKS = 64  # of what the stream may hold: so much at a time is forgotten
RECENT_BYTES = 16 << 20  # newest chunks
FETCHED_BYTES = 8 << 20  # older ones that were read just now


class History:
    """The log's chunks, oldest first; the last one grows.

    Args:
        max_bytes: what the stream may hold.
    """

    def __init__(self, max_bytes: int) -> None:
        self.applied = 0  # the stream's number of the last message that is known
        self.end = 0  # the position of what comes next
        self.disk_bytes = 0
        self.damaged = 0
        self.fresh: list[Chunk] = []  # closed since the last checkpoint
        self._chunk_bytes = max(1, min(CHUNK_BYTES, max_bytes // MIN_CHUNKS))
        self._chunks: list[Chunk] = []
        self._growing = _Growing(0)
        self._total: Summary | None = None
        self._total_is_old = False
        self._removed = self._removed_bytes = 0
        self._recent = _Cache(RECENT_BYTES)
        self._fetched = _Cache(FETCHED_BYTES)
        self._lock = threading.Lock()

    def restore(self, chunks: Sequence[Chunk], applied: int, end: int) -> None:
        """Begin with what checkpoints tell, the last of which is message `applied` at position `end`."""
        with self._lock:
            self._chunks = list(chunks)
            self._total_is_old = True
            self.applied, self.end = applied, end
            self._growing = _Growing(end)

    def add(self, seq: int, start: int, lines: bytes, runs: Iterable[Run] | None = None) -> None:
        """Take note of a message with entries.

        Args:
            runs: what the lines were made of, where that is known.
        """
        with self._lock:
            growing = self._growing
            if start != growing.end or growing.size >= self._chunk_bytes or seq - growing.first >= CHUNK_MESSAGES:
                self._close()
                growing = self._growing = _Growing(start)
            growing.add(seq, lines, runs)
            self.applied, self.end = seq, start + len(lines)

    def skip(self, seq: int, at: int | None = None) -> None:
        """Take note of a message without entries: a checkpoint at a position, or one that is none of ours."""
        with self._lock:
            self.applied = seq
            if at is not None:
                self._close()
                self._growing, self.end = _Growing(at), at
                self.fresh = []

    def close_chunk(self) -> list[Chunk]:
        """Let the last chunk grow no more, and return those since the last checkpoint."""
        with self._lock:
            self._close()
            self._growing = _Growing(self.end)
            return list(self.fresh)

    def drop(self, first: int) -> None:
        """Forget what the stream has removed: all before its message `first`. Of a chunk all goes with its first message."""
        with self._lock:
            gone = 0
            while gone < len(self._chunks) and self._chunks[gone].first < first:
                gone += 1
            self._removed_bytes += sum(chunk.end - chunk.start for chunk in self._chunks[:gone])
            self._removed += gone
            del self._chunks[:gone]
            self._total_is_old |= gone > 0
            if self._growing.size and self._growing.first < first:
                self._removed, self._removed_bytes = self._removed + 1, self._removed_bytes + self._growing.size
                self._growing = _Growing(self.end)

    def blocks(self, after: int, newest_first: bool, wanted: Wanted | None) -> list[Chunk | MemoryBlock]:
        """Return what reaches beyond a position; the newest is a block."""
        with self._lock:
            there: list[Chunk | MemoryBlock] = list(self._chunks)
            if self._growing.size:
                there.append(self._growing.block())
        found = [one for one in there if one.end > after and (wanted is None or one.summary is None or wanted(one.summary))]
        return found[::-1] if newest_first else found

    def lines(self, chunk: Chunk, fetch: Callable[[Chunk], bytes]) -> bytes:
        """Return a chunk's lines; `fetch` gets them where they are not here."""
        with self._lock:
            lines = self._recent.get(chunk.start) or self._fetched.get(chunk.start)
        if lines is None:
            lines = fetch(chunk)
            with self._lock:
                self._fetched.put(chunk.start, lines)
        return lines

    def stats(self) -> StoreStats:
        """Return what there is."""
        with self._lock:
            if self._total_is_old:
                self._total, self._total_is_old = merge([chunk.summary for chunk in self._chunks]), False
            total = merge([self._total, self._growing.tally.summary()])
            return StoreStats(
                services=total.services if total else {},
                disk_bytes=self.disk_bytes,
                oldest=self._chunks[0].start if self._chunks else self._growing.start,
                end=self.end,
                removed_segments=self._removed,
                removed_bytes=self._removed_bytes,
                damaged=self.damaged,
            )

    def _close(self) -> None:
        growing = self._growing
        if not growing.size:
            return
        block = growing.block()
        chunk = Chunk(block.start, block.end, growing.first, growing.last, block.summary)
        self._chunks.append(chunk)
        self.fresh.append(chunk)
        self._recent.put(chunk.start, block.lines)
        if not self._total_is_old:
            self._total = merge([self._total, chunk.summary])


class _Growing:
    """The chunk that grows."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.first = self.last = 0
        self.tally = Tally()
        self._lines: list[bytes] = []

    @property
    def size(self) -> int:
        return self.end - self.start

    def add(self, seq: int, lines: bytes, runs: Iterable[Run] | None) -> None:
        self.first = self.first or seq
        self.last = seq
        self.end += len(lines)
        self._lines.append(lines)
        if runs is None:
            self.tally.add_lines(lines)
        else:
            self.tally.add_runs(runs)

    def block(self) -> MemoryBlock:
        self._lines = [b"".join(self._lines)]
        return MemoryBlock(self.start, self._lines[0], self.tally.summary())


class _Cache:
    """Texts by their position; what was asked for longest ago gives way."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: int) -> bytes | None:
        if (text := self._texts.get(key)) is not None:
            self._texts.move_to_end(key)
        return text

    def put(self, key: int, text: bytes) -> None:
        self._bytes += len(text) - len(self._texts.pop(key, b""))
        self._texts[key] = text
        while self._bytes > self._max_bytes and len(self._texts) > 1:
            self._bytes -= len(self._texts.popitem(last=False)[1])
