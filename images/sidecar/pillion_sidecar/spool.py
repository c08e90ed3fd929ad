"""Log lines on their way: a bounded queue on disk that survives the sidecar.

Lines lie in segment files `<first seq>.ndjson`, one JSON entry a line, each with this spool's `Source` and a rising `Seq`, by which the log
service knows a repeat. `acked` holds the highest Seq the log service has stored. A line is in the kernel's hands when `append` returns,
so it survives kill -9; it is not fsynced, so it may not survive a power cut before it was forwarded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections import deque
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from pillion_common.errors import ConfigError, StorageFull, Unavailable
from pillion_common.logs import EventLog

_log = EventLog("spool")

SEGMENT_BYTES = 1024 * 1024


class Segment(NamedTuple):
    """One file of the spool: its first Seq, how many lines it holds, its size in bytes."""

    first: int
    lines: int
    size: int


class Spool:
    """A queue of log entries in a folder.

    Args:
        folder: made if it is not there; one spool at a time may use it.
        max_bytes: when the files grow beyond it the oldest segment is dropped, and an entry tells how many lines that were.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self._segments: deque[Segment] = deque()
        self._file: FileIO | None = None  # the last segment, open for appending
        self._next_seq = 1
        self.dropped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.source = self._read_source()
            self.acked = self._read_acked()
            self._recover()
        except BlockingIOError as exc:
            raise ConfigError([f"--state-dir {folder.parent}: another sidecar uses it; give each its own"]) from exc
        except OSError as exc:
            raise ConfigError([f"--state-dir {folder.parent}: cannot be used: {exc}; choose a folder this user can write"]) from exc

    @property
    def waiting(self) -> int:
        """Return how many lines are not acknowledged."""
        return self._next_seq - 1 - self.acked

    @property
    def size(self) -> int:
        """Return the size of all files."""
        return sum(segment.size for segment in self._segments)

    def append(self, entry: Mapping[str, object]) -> int:
        """Keep one entry.

        Returns:
            Its Seq.

        Raises:
            StorageFull, Unavailable: the disk does not take it; nothing was kept.
        """
        seq = self._write(entry)
        if self.size > self._max_bytes and len(self._segments) > 1:
            self._drop_oldest()
        return seq

    def peek(self, max_lines: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return the oldest lines that are not acknowledged, as (Seq, JSON line), at least one if there is any."""
        while self._segments and self._segments[0].first + self._segments[0].lines - 1 <= self.acked and len(self._segments) > 1:
            self._unlink(self._segments.popleft())
        found: list[tuple[int, bytes]] = []
        size = 0
        for segment in self._segments:
            with self._path(segment.first).open("rb") as file:
                for offset, line in enumerate(file):
                    seq = segment.first + offset
                    if seq <= self.acked:
                        continue
                    size += len(line)
                    if found and (len(found) >= max_lines or size > max_bytes):
                        return found
                    found.append((seq, line))
        return found

    def ack(self, seq: int) -> None:
        """Note that the log service has stored everything up to seq."""
        self.acked = max(self.acked, seq)
        draft = self._folder / "acked.new"
        try:
            draft.write_text(str(self.acked))
            draft.replace(self._folder / "acked")
        except OSError as exc:
            # Only costs a repeat after a restart, which the log service recognises.
            _log.warn_seldom("spool_ack_failed", f"the spool's mark was not written: {exc}")

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        self._lock.close()

    def _write(self, entry: Mapping[str, object]) -> int:
        seq = self._next_seq
        line = json.dumps({**entry, "Source": self.source, "Seq": seq}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            if self._segments[-1].size >= self._segment_bytes:
                self._open_segment(seq)
            assert self._file is not None
            _write_whole(self._file.fileno(), line, self._segments[-1].size)
        except OSError as exc:
            what = f"the log line was not kept: {exc.strerror}; the sidecar's disk ({self._folder})"
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{what} is full", retry_after_s=5) from exc
            raise Unavailable(f"{what} failed", code="spool_failed", retry_after_s=5) from exc
        last = self._segments[-1]
        self._segments[-1] = last._replace(lines=last.lines + 1, size=last.size + len(line))
        self._next_seq = seq + 1
        return seq

    def _drop_oldest(self) -> None:
        oldest = self._segments.popleft()
        last = oldest.first + oldest.lines - 1
        lost = max(0, last - max(self.acked, oldest.first - 1))
        self._unlink(oldest)
        self.ack(last)
        if lost:
            self.dropped += lost
            _log.warn_seldom("spool_full", f"the spool is full: its oldest {lost} lines were dropped; is a LogService there?", lines=lost)
            self._write({"Level": "warning", "Message": f"{lost} lines were dropped here: the sidecar's spool was full", "Dropped": lost})

    def _recover(self) -> None:
        for path in sorted(self._folder.glob("*.ndjson")):
            whole, lines = _cut_torn_tail(path)
            self._segments.append(Segment(int(path.stem), lines, whole))
        last = self._segments[-1] if self._segments else Segment(self.acked + 1, 0, 0)
        self._next_seq = max(last.first + last.lines, self.acked + 1)
        if self._segments and self._segments[-1].first + self._segments[-1].lines == self._next_seq:
            self._file = self._path(self._segments[-1].first).open("ab", buffering=0)
        else:
            self._open_segment(self._next_seq)

    def _open_segment(self, first: int) -> None:
        file = self._path(first).open("ab", buffering=0)
        if self._file is not None:
            self._file.close()
        self._file = file
        self._segments.append(Segment(first, 0, 0))

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}.ndjson"

    def _unlink(self, segment: Segment) -> None:
        self._path(segment.first).unlink(missing_ok=True)

    def _read_source(self) -> str:
        path = self._folder / "source"
        if not path.exists():
            path.write_text(secrets.token_hex(8))
        return path.read_text().strip()

    def _read_acked(self) -> int:
        try:
            return int((self._folder / "acked").read_text())
        except (FileNotFoundError, ValueError):
            return 0


def _write_whole(descriptor: int, line: bytes, size: int) -> None:
    """Write a line, or leave the file as it was."""
    written = os.write(descriptor, line)
    if written != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_torn_tail(path: Path) -> tuple[int, int]:
    """Cut a last line that a crash left unfinished; return the bytes and lines that are whole."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
        _log.warning("spool_torn", f"cut {len(data) - whole} bytes of an unfinished line off {path.name}")
    return whole, data.count(b"\n", 0, whole)
