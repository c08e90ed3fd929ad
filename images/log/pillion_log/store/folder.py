"""The entry files in a folder: entries.log, which grows, and entries.1.log (the newest) to entries.N.log, which do not change any more.

    /data/entries.log     {"Time":"2026-01-31T12:00:00.123Z","Received":"…","Service":"GradingService","Level":"info","Message":"…"}
    /data/entries.1.log   …
    /data/lock            held while a log service writes here

Owns what makes an append all or nothing. One thread appends; any thread may read.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pillion_common.logs import EventLog
from pillion_log.store.blocks import FileBlock, blocks_of

PROBE_BYTES = 64 * 1024

_OLD = re.compile(r"entries\.([1-9][0-9]{0,5})\.log")

_log = EventLog("store")


class Folder:
    """A folder of entry files.

    Args:
        path: made if it is not there.
        rotate_bytes: entries.log is put aside before it grows beyond that.
        keep: how many files are kept, entries.log among them.
    """

    def __init__(self, path: Path, rotate_bytes: int, keep: int) -> None:
        self._path = path
        self._current = path / "entries.log"
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._file: int | None = None
        self._inode = 0
        self._lock_file: int | None = None
        self._length = 0  # of entries.log as far as it is durable; whatever lies beyond was never acknowledged
        self._distrusted = False  # entries.log must not be written any more, only put aside
        self._names = threading.Lock()  # held while files get other names

    def open(self) -> None:
        """Open the folder for writing and cut off what a crash left half written.

        Raises:
            BlockingIOError: another log service writes here. OSError: it cannot be written.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for number, path in self._old().items():
            if number >= self._keep:
                path.unlink()
        self._open_current()
        assert self._file is not None
        size = os.fstat(self._file).st_size
        self._length = _whole_lines(self._current, size)
        if self._length < size:
            _log.warning(
                "torn_tail",
                f"{self._current} ended in the middle of an entry that was never acknowledged; its {size - self._length} bytes are cut off",
                bytes=size - self._length,
            )
            os.ftruncate(self._file, self._length)
        # What was written before a crash may not be on the disk yet, but is known from now on.
        os.fdatasync(self._file)

    def append(self, data: bytes) -> None:
        """Append whole lines: all of them durable when this returns, or none kept.

        Raises:
            OSError: none was kept. The next call tries again.
        """
        if self._length and self._length + len(data) > self._rotate_bytes:
            self._distrust()
        self._write(data)
        self._length += len(data)

    def probe(self) -> None:
        """Find out whether an append would succeed, and leave nothing behind.

        Raises:
            OSError: it would not.
        """
        self._write(b" " * PROBE_BYTES)  # without a newline: after a crash it is a torn tail
        self._cut_back()

    @contextmanager
    def blocks(self) -> Iterator[Iterator[FileBlock]]:
        """Return the durable entries in blocks, newest first; readable until the context ends, whatever is rotated meanwhile."""
        files: list[tuple[int, int]] = []
        try:
            with self._names:
                for number, path in sorted({0: self._current, **self._old()}.items()):
                    self._open_for_reading(path, self._length if number == 0 else None, files)
            yield (block for file, length in files for block in blocks_of(file, length))
        finally:
            for file, _ in files:
                os.close(file)

    def close(self) -> None:
        """Close. Safe to call twice."""
        for file in (self._file, self._lock_file):
            if file is not None:
                os.close(file)
        self._file = self._lock_file = None

    def _write(self, data: bytes) -> None:
        file = self._trusted_file()
        try:
            _write_all(file, data)
        except OSError:
            self._cut_back()
            raise
        try:
            os.fdatasync(file)
        except OSError:
            # The system may have dropped what it could not write, and would report success the next time: this file is not written again.
            self._cut_back()
            self._distrust()
            raise

    def _trusted_file(self) -> int:
        if self._file is not None and not self._unchanged():
            _log.warning("file_changed", f"{self._current} was changed by somebody else; a new one begins")
            self._distrust()
        if self._file is None:
            with self._names:
                if self._distrusted:
                    self._put_aside()
                self._open_current()
        assert self._file is not None
        return self._file

    def _unchanged(self) -> bool:
        try:
            status = self._current.stat()
        except FileNotFoundError:
            return False
        return status.st_ino == self._inode and status.st_size == self._length

    def _open_current(self) -> None:
        """Open entries.log, or make it; its name is durable then."""
        file = os.open(self._current, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._inode = os.fstat(file).st_ino
        except OSError:
            os.close(file)
            raise
        self._file = file

    def _cut_back(self) -> None:
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._length)
            except OSError:
                self._distrust()

    def _distrust(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._distrusted = True

    def _put_aside(self) -> None:
        if self._current.is_file():
            if self._current.stat().st_size == 0:
                # Nothing to keep; so a disk that fails again and again does not push good files out.
                self._current.unlink()
            else:
                old = self._old()
                for number in range(self._keep - 2, 0, -1):
                    if number in old:
                        old[number].replace(self._numbered(number + 1))
                self._current.replace(self._numbered(1))
        self._length = 0
        self._distrusted = False

    def _numbered(self, number: int) -> Path:
        return self._path / f"entries.{number}.log"

    def _old(self) -> dict[int, Path]:
        names = os.listdir(self._path)
        return {int(match[1]): self._path / name for name in names if (match := _OLD.fullmatch(name))}

    @staticmethod
    def _open_for_reading(path: Path, length: int | None, files: list[tuple[int, int]]) -> None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        size = os.fstat(file).st_size
        files.append((file, size if length is None else min(size, length)))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _whole_lines(path: Path, size: int) -> int:
    """Return how many bytes of the file end with its last newline."""
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - PROBE_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
