"""Writes groups to the end of the newest segment. Owns what makes an append all or nothing, and when a new segment begins.

A write that fails half way is cut back. After a failed sync the system may have dropped what it could not write, and would report success
the next time: so that file is never written, synced or trusted again. Its durable part stays readable; the same group, if it is sent again,
is written anew to a new file and synced there before anybody is told that it is kept. Used by one thread.

A file that grows ends in zeros, over which small groups are written: a sync that lengthens no file costs little more than half.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pillion_common.logs import EventLog
from pillion_log.entries import Run
from pillion_log.store.checks import check_line
from pillion_log.store.folder import Folder
from pillion_log.store.segments import segment_path
from pillion_log.store.snapshot import sync_folder

PROBE_BYTES = 64 * 1024
RESERVE_BYTES = 256 * 1024  # of zeros at most; a group of over a quarter of that is written without
LOOK_EVERY_S = 0.25

_log = EventLog("store")


class Appender:
    """Appends to a folder.

    Args:
        folder: whose newest segment grows.
        rotate_s: a new segment begins when one is that old. It begins, too, before one grows beyond `rotate_bytes`.
        rotated: called when a segment has ended.
        sync: `always`: a group is on the disk when append returns; `interval`: when `sync` returns; `os`: when the system sees fit.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        folder: Folder,
        rotate_s: float,
        rotated: Callable[[], None],
        sync: str = "always",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rotate_bytes = 64 << 20
        self._folder = folder
        self.rotate_s = rotate_s
        self._rotated = rotated
        self._mode = sync
        self._clock = clock
        self._file: int | None = None
        self._path = Path()
        self._left: Path | None = None  # a file that could not be removed
        self._inode = 0
        self._length = self._size = 0  # of what counts, and of the file: between them are zeros
        self._born = self._looked = 0.0
        self._unsynced = False

    @property
    def place(self) -> Path:
        """The folder."""
        return self._folder.path

    def append(self, runs: Sequence[Run]) -> tuple[int, bytes]:
        """Append a group: all of it durable when this returns, or none kept.

        Returns:
            Its position, and its lines.

        Raises:
            OSError: none was kept. The next call tries again.
        """
        lines = b"".join([run.lines for run in runs])
        if self._file is not None and (self._length + len(lines) > self.rotate_bytes or self.is_old()):
            self.rotate()
        start = self._folder.end
        data = lines + check_line(lines)
        self._write(self._trusted_file(), data)
        self._length += len(data)
        self._folder.grow(len(data), runs)
        return start, lines

    def is_old(self) -> bool:
        """Return whether it is time for a new segment."""
        return self._file is not None and self._clock() - self._born >= self.rotate_s

    def rotate(self) -> None:
        """End the segment.

        Raises:
            OSError: what was not synced yet may not be on the disk.
        """
        self.sync()
        self._end()

    def sync(self) -> None:
        """Make durable what is not.

        Raises:
            OSError: it may not be. The segment has ended.
        """
        if self._file is not None and self._unsynced:
            self._unsynced = False
            try:
                os.fdatasync(self._file)
            except OSError:
                self._end()
                raise

    def probe(self) -> None:
        """Find out whether an append would succeed.

        Raises:
            OSError: it would not.
        """
        self._trusted_file()
        path = self._folder.path / "probe.tmp"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            _write_all(file, b" " * PROBE_BYTES, 0)
            os.fdatasync(file)
        finally:
            os.close(file)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the segment, whatever is wrong with it. Safe to call twice."""
        try:
            self.sync()
        finally:
            self._end()

    def _write(self, file: int, data: bytes) -> None:
        try:
            self._reserve(file, len(data))
            _write_all(file, data, self._length)
            self._size = max(self._size, self._length + len(data))
        except OSError:
            self._cut_back(file)
            raise
        if self._mode != "always":
            self._unsynced = self._mode == "interval"
            return
        try:
            os.fdatasync(file)
        except OSError:
            self._cut_back(file)
            self._end()
            raise

    def _reserve(self, file: int, length: int) -> None:
        """Make room for a small group, and for those after it."""
        if self._mode == "always" and self._length + length > self._size and length <= RESERVE_BYTES // 4:
            end = min(self._length + RESERVE_BYTES, self.rotate_bytes)
            try:
                _write_all(file, bytes(max(0, end - self._size)), self._size)
                self._size = max(self._size, end)
            except OSError:
                self._size = os.fstat(file).st_size  # then it is written without

    def _trusted_file(self) -> int:
        now = self._clock()
        if self._file is not None and now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._look()
        if self._file is None:
            self._begin(now)
        assert self._file is not None
        return self._file

    def _look(self) -> None:
        """End the segment if its file is not what was written any more."""
        try:
            status = self._path.stat()
            lost = status.st_ino != self._inode
        except FileNotFoundError:
            lost = True
        if lost or status.st_size != self._size:
            _log.warning("file_changed", f"{self._path} was {'removed' if lost else 'changed'} by somebody else; a new one begins")
            self._size = self._length  # what is there is theirs
            self._end(lost)

    def _begin(self, now: float) -> None:
        """Begin a segment; its name is durable then."""
        path = segment_path(self._folder.path, self._folder.end)
        if path == self._left:
            path.unlink(missing_ok=True)
        self._left = None
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            sync_folder(self._folder.path)
            self._inode = os.fstat(file).st_ino
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._path, self._length, self._size = file, path, 0, 0
        self._born = self._looked = now
        self._folder.begin(path)

    def _cut_back(self, file: int) -> None:
        try:
            os.ftruncate(file, self._length)
            self._size = self._length
        except OSError:
            self._end()  # what lies beyond is never shown: the next segment begins before it

    def _end(self, lost: bool = False) -> None:
        if self._file is None:
            return
        if self._size > self._length:
            with suppress(OSError):  # who finds the zeros there takes no notice of them
                os.ftruncate(self._file, self._length)
        os.close(self._file)
        self._file = None
        self._unsynced = False
        try:
            if self._length == 0 and not lost:
                self._left = self._path  # what is in it was never acknowledged, and its position is the next one's
                self._path.unlink(missing_ok=True)
        except OSError as exc:
            _log.warn_seldom("left_behind", f"{self._path} holds nothing that counts and cannot be removed now: {exc}")
        finally:
            self._folder.seal(lost)
            self._rotated()


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
