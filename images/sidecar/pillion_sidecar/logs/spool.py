"""Log lines on their way: a bounded queue on disk that survives the sidecar. Does without pathlib, which would bring urllib and ipaddress.

Lines lie in segment files `<first seq>.ndjson`, one JSON entry a line, each with this spool's `Source` and a rising `Seq`, by which the log
service knows a repeat. `acked` holds the highest Seq the log service has stored. A line is in the kernel's hands when `append` returns,
so it survives kill -9; it is not fsynced, so it may not survive a power cut before it was forwarded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections import deque
from collections.abc import Mapping
from io import FileIO
from typing import NamedTuple

from pillion_common.errors import ConfigError, StorageFull, TooLarge, Unavailable
from pillion_common.logs import EventLog

_log = EventLog("spool")

SEGMENT_BYTES = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024  # what the log service takes

_SEGMENT = re.compile(r"(\d{20})\.ndjson")
_SOURCE = re.compile(r"[0-9a-f]{16}")


class Segment(NamedTuple):
    """One file of the spool: its first Seq, how many lines it holds, its size in bytes."""

    first: int
    lines: int
    size: int

    @property
    def last(self) -> int:
        """Return the Seq of its last line; below `first` if it is empty."""
        return self.first + self.lines - 1


class Spool:
    """A queue of log entries in a folder.

    Args:
        folder: made if it is not there; one spool at a time may use it.
        max_bytes: when the files grow beyond it the oldest segment is dropped, and an entry tells how many lines that were.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = os.fspath(folder)
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self._segments: deque[Segment] = deque()
        self._file: FileIO | None = None  # the last segment, open for appending
        self._untold = 0  # lines dropped that no entry tells of yet
        self._next_seq = 1
        self.dropped = 0
        try:
            os.makedirs(self._folder, exist_ok=True)
            self._lock = _lock(self._named("lock"))
            self.source = self._read_source()
            self.acked = self._read_acked()
            self._recover()
        except BlockingIOError as exc:
            raise ConfigError([f"--state-dir {os.path.dirname(self._folder)}: another sidecar uses it; give each its own"]) from exc
        except OSError as exc:
            raise ConfigError(
                [f"--state-dir {os.path.dirname(self._folder)}: cannot be used: {exc}; choose a folder this user can write"]
            ) from exc

    @property
    def waiting(self) -> int:
        """Return how many lines are not acknowledged."""
        return sum(max(0, segment.last - max(self.acked, segment.first - 1)) for segment in self._segments)

    @property
    def size(self) -> int:
        """Return the size of all files in bytes."""
        return sum(segment.size for segment in self._segments)

    def append(self, entry: Mapping[str, object]) -> int:
        """Keep one entry.

        Returns:
            Its Seq.

        Raises:
            TooLarge: no log service would take it. StorageFull, Unavailable: the disk does not take it. Nothing was kept.
        """
        line = self._encode(entry)
        if len(line) > MAX_LINE_BYTES:
            raise TooLarge(f"the line is {len(line)} bytes as JSON, over {MAX_LINE_BYTES}; send it in pieces")
        try:
            seq = self._write(line)
        except OSError as exc:
            what = f"the log line was not kept: {exc.strerror}; the sidecar's disk ({self._folder})"
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{what} is full", retry_after_s=5) from exc
            raise Unavailable(f"{what} failed", code="spool_failed", retry_after_s=5) from exc
        if self.size > self._max_bytes and len(self._segments) > 1:
            self._drop_oldest()
        if self._untold:
            self._tell_dropped(entry)
        return seq

    def peek(self, max_lines: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return the oldest lines that are not acknowledged, as (Seq, JSON line), at least one if there is any."""
        while len(self._segments) > 1 and self._segments[0].last <= self.acked:
            _unlink(self._path(self._segments.popleft().first))
        found: list[tuple[int, bytes]] = []
        size = 0
        for segment in list(self._segments):
            for seq, line in self._lines(segment):
                size += len(line)
                if found and (len(found) >= max_lines or size > max_bytes):
                    return found
                found.append((seq, line))
        return found

    def ack(self, seq: int) -> None:
        """Note that the log service has stored everything up to seq."""
        self.acked = max(self.acked, seq)
        try:
            _replace(self._named("acked"), str(self.acked))
        except OSError as exc:
            # Only costs a repeat after a restart, which the log service recognises.
            _log.warn_seldom("spool_ack_failed", f"the spool's mark was not written: {exc}")

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        self._lock.close()

    def _encode(self, entry: Mapping[str, object]) -> bytes:
        return json.dumps({**entry, "Source": self.source, "Seq": self._next_seq}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    def _write(self, line: bytes) -> int:
        seq = self._next_seq
        if self._file is None or self._segments[-1].size >= self._segment_bytes:
            self._open_segment(seq)
        assert self._file is not None
        last = self._segments[-1]
        _write_whole(self._file.fileno(), line, last.size)
        self._segments[-1] = last._replace(lines=last.lines + 1, size=last.size + len(line))
        self._next_seq = seq + 1
        return seq

    def _lines(self, segment: Segment) -> list[tuple[int, bytes]]:
        """Return a segment's lines that are not acknowledged; fewer if somebody shortened the file or took it away."""
        try:
            with open(self._path(segment.first), "rb") as file:
                lines = [(seq, line) for seq, line in enumerate(file, segment.first) if seq <= segment.last and line.endswith(b"\n")]
        except OSError as exc:
            self._lose(segment, 0, exc.strerror or str(exc))
            return []
        if len(lines) < segment.lines:
            self._lose(segment, len(lines), "somebody shortened it")
        return [(seq, line) for seq, line in lines if seq > self.acked]

    def _lose(self, segment: Segment, left: int, why: str) -> None:
        """Take note that a segment holds no more than its first `left` lines."""
        lost = max(0, segment.last - max(self.acked, segment.first + left - 1))
        _log.error("spool_damaged", f"{lost} log lines are lost: {self._path(segment.first)}: {why}", lines=lost)
        if segment == self._segments[-1] and self._file is not None:
            self._file.close()
            self._file = None
        self._segments[self._segments.index(segment)] = segment._replace(lines=left)
        self.dropped += lost
        self._untold += lost

    def _drop_oldest(self) -> None:
        oldest = self._segments[0]
        # An entry about an earlier drop that goes now leaves its count to the next one.
        lost = sum(_lines_meant(line) for _, line in self._lines(oldest))
        self._segments.popleft()
        _unlink(self._path(oldest.first))
        self.ack(oldest.last)
        self.dropped += lost
        self._untold += lost
        if lost:
            _log.warn_seldom("spool_full", f"the spool is full: its oldest {lost} lines were dropped; is a LogService there?", lines=lost)

    def _tell_dropped(self, entry: Mapping[str, object]) -> None:
        message = f"{self._untold} lines were dropped here: the sidecar's spool was full"
        about = {key: entry[key] for key in ("Time", "Service", "Instance") if key in entry}
        try:
            self._write(self._encode({**about, "Level": "warning", "Message": message, "Dropped": self._untold}))
        except OSError:
            return  # told with the next line that can be written
        self._untold = 0

    def _recover(self) -> None:
        for name in sorted(os.listdir(self._folder)):
            if match := _SEGMENT.fullmatch(name):
                size, lines = _cut_torn_tail(self._named(name))
                self._segments.append(Segment(int(match[1]), lines, size))
        last = self._segments[-1] if self._segments else None
        self._next_seq = max(self.acked, last.last if last else 0) + 1
        if last is not None and last.last + 1 == self._next_seq:
            self._file = FileIO(self._path(last.first), "ab")
        else:
            self._open_segment(self._next_seq)

    def _open_segment(self, first: int) -> None:
        file = FileIO(self._path(first), "ab")
        if self._file is not None:
            self._file.close()
        self._file = file
        self._segments.append(Segment(first, 0, 0))

    def _named(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _path(self, first: int) -> str:
        return self._named(f"{first:020d}.ndjson")

    def _read_source(self) -> str:
        path = self._named("source")
        if not _SOURCE.fullmatch(_read(path)):
            _replace(path, os.urandom(8).hex())
        return _read(path)

    def _read_acked(self) -> int:
        try:
            return int(_read(self._named("acked")))
        except ValueError:
            return 0


def _lock(path: str) -> FileIO:
    file = FileIO(path, "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _read(path: str) -> str:
    """Return a small file's text; nothing if it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _replace(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _lines_meant(line: bytes) -> int:
    """Return how many of the app's lines a line stands for: itself, or those it tells were dropped."""
    return int(json.loads(line)["Dropped"]) if b'"Dropped": ' in line else 1


def _write_whole(descriptor: int, line: bytes, size: int) -> None:
    """Write a line, or leave the file as it was."""
    written = os.write(descriptor, line)
    if written != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_torn_tail(path: str) -> tuple[int, int]:
    """Cut a last line that a crash left unfinished; return the bytes and lines that are whole."""
    with open(path, "rb") as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
        _log.warning("spool_torn", f"cut {len(data) - whole} bytes of an unfinished line off {os.path.basename(path)}")
    return whole, data.count(b"\n", 0, whole)
