"""The segments of a folder: which there are, who reads them, and what is in them.

    /data/00000000000000000000.log   {"Time":"2026-01-31T12:00:00.123Z","Received":"…","Service":"GradingService","Level":"info",…}
    /data/00000000000067108864.log   the newest one grows; one that does not any more is packed, see packed.py
    /data/sources.json               see snapshot.py
    /data/lock                       held while a log service writes here

Each segment is named by the position of its first byte. What was there at start does not grow any more: the first append begins a new one.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.base import Block, StoreStats, Summary, Wanted
from pillion_log.store.packed import open_packed
from pillion_log.store.recovery import Recovered
from pillion_log.store.segments import PlainSegment, Segment
from pillion_log.store.snapshot import Snapshot, read_snapshot, write_snapshot
from pillion_log.store.sources import Sources
from pillion_log.store.summaries import merge
from pillion_log.store.takeover import take_over

LEAP_BYTES = 1 << 30  # no position that a crash took back is used again

_NAME = re.compile(r"([0-9]{20})(\.lines|\.log|\.log\.zst)")

_log = EventLog("store")


class Folder:
    """A folder of segments. Any thread may read; one thread at a time does all else.

    Args:
        path: made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._segments: list[Segment] = []  # oldest first; the last one may be growing
        self._growing: PlainSegment | None = None
        self._lock = threading.Lock()  # held while they, or what is in the growing one, change or are listed
        self._lock_file: int | None = None
        self._next = 0
        self._closed_summary: Summary | None = None  # of all that does not grow
        self._removed = self._removed_bytes = self.damaged = 0

    @property
    def end(self) -> int:
        """The position of what comes next."""
        return self._growing.end if self._growing else self._next

    def open(self, sources: Sources) -> None:
        """Open the folder for writing and learn what it holds.

        Args:
            sources: taught what the entries tell of them.

        Raises:
            BlockingIOError: another log service writes here. OSError: it cannot be read or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for draft in self.path.glob("*.tmp"):
            draft.unlink()
        snapshot = read_snapshot(self.path)
        take_over(self.path, snapshot.position if snapshot else 0)
        sources.keep(snapshot.sources if snapshot else {})
        self._recover(sources, snapshot.position if snapshot else 0)
        last = self._segments[-1].end if self._segments else 0
        if snapshot and snapshot.clean and snapshot.position >= last:
            self._next = snapshot.position
        elif snapshot or last:
            self._next = max(last, snapshot.position if snapshot else 0) + LEAP_BYTES
        with self._lock:
            self._count_closed()

    def begin(self, path: Path) -> None:
        """Let a new segment grow from `end` on. Its file is there."""
        with self._lock:
            self._growing = PlainSegment(path, self.end)
            self._segments.append(self._growing)

    def grow(self, length: int, runs: Iterable[Run]) -> None:
        """Take note of a group that has become durable."""
        assert self._growing is not None
        with self._lock:
            self._growing.grow(length, runs)

    def seal(self, lost: bool = False) -> None:
        """Let the growing segment grow no more; where its file is lost, forget it."""
        if self._growing is None:
            return
        with self._lock:
            self._next = self._growing.end
            if lost or self._growing.end == self._growing.start:
                self._segments.pop()
            self._growing = None
            self._count_closed()

    def remember(self, sources: Sources, clean: bool = False) -> None:
        """Write down what the sources have sent up to `end`.

        Raises:
            OSError: the next start reads more.
        """
        write_snapshot(self.path, Snapshot(self.end, clean, sources.copy()))

    @contextmanager
    def blocks(self, after: int = 0, newest_first: bool = True, wanted: Wanted | None = None) -> Iterator[Iterator[Block]]:
        """Return the blocks that reach beyond a position; readable until the context ends, whatever becomes of the segments meanwhile."""
        with self._lock:
            held = [segment for segment in self._segments if segment.end > after and _may_hold(segment.summary, wanted)]
            growing = list(self._growing.blocks(newest_first)) if self._growing else []
            last = self._growing
            for segment in held:
                segment.file.hold()
        try:
            order = held[::-1] if newest_first else held
            yield (
                block
                for segment in order
                for block in (growing if segment is last else segment.blocks(newest_first))
                if block.end > after and _may_hold(block.summary, wanted)
            )
        finally:
            for segment in held:
                segment.file.release()

    def stats(self) -> StoreStats:
        """Return what there is."""
        with self._lock:
            total = merge([self._closed_summary, self._growing.summary if self._growing else None])
            return StoreStats(
                services=total.services if total else {},
                disk_bytes=sum(segment.disk_bytes for segment in self._segments),
                oldest=self._segments[0].start if self._segments else self._next,
                end=self.end,
                removed_segments=self._removed,
                removed_bytes=self._removed_bytes,
                damaged=self.damaged,
            )

    def closed(self) -> list[Segment]:
        """Return the segments that do not grow, oldest first."""
        with self._lock:
            return [segment for segment in self._segments if segment is not self._growing]

    def remove(self, segment: Segment) -> None:
        """Remove a segment; whoever reads it may go on."""
        with self._lock:
            self._segments.remove(segment)
            self._removed += 1
            self._removed_bytes += segment.end - segment.start
            self._count_closed()
        segment.file.remove()

    def replace(self, old: Segment, new: Segment) -> None:
        """Put a segment in the place of one with the same entries; whoever reads that may go on."""
        with self._lock:
            if old in self._segments:
                self._segments[self._segments.index(old)] = new
        old.file.remove()

    def damage(self, what: str) -> None:
        """Count a damaged place, and tell of it. From any thread."""
        with self._lock:
            self.damaged += 1
        _log.error("damaged_segment", what)

    def close(self) -> None:
        """Let another have the folder. Safe to call twice."""
        if self._lock_file is not None:
            os.close(self._lock_file)
        self._lock_file = None

    def _recover(self, sources: Sources, known: int) -> None:
        """Open what is there, and teach the sources what was written from position `known` on."""
        paths = self._files()
        starts = list(paths)
        for start, limit in zip(starts, [*starts[1:], None], strict=False):
            path = paths[start]
            segment: Segment
            if path.suffix == ".zst":
                segment = open_packed(path, start, self.damage)
                if segment.end > known:
                    self._teach(sources, segment)
            else:
                found = Recovered(path, start, limit, sources.learn)
                segment = found.segment
                self.damaged += found.damaged
            if segment.end > start:
                self._segments.append(segment)
            elif path.stat().st_size == 0:
                path.unlink()  # nothing was ever there, and its position is the next one's

    def _files(self) -> dict[int, Path]:
        """Return the files of the segments by their positions. A packed one beside its plain one is only half made: it goes."""
        paths: dict[int, Path] = {}
        for name in sorted(os.listdir(self.path)):
            if match := _NAME.fullmatch(name):
                path = self.path / name
                if int(match[1]) in paths:
                    path.unlink()
                else:
                    paths[int(match[1])] = path
        return paths

    def _teach(self, sources: Sources, segment: Segment) -> None:
        segment.file.hold()
        try:
            for block in segment.blocks(newest_first=False):
                sources.learn(block.read())
        finally:
            segment.file.release()

    def _count_closed(self) -> None:
        self._closed_summary = merge(segment.summary for segment in self._segments if segment is not self._growing)


def _may_hold(summary: Summary | None, wanted: Wanted | None) -> bool:
    return wanted is None or summary is None or wanted(summary)
