"""The thread that looks after segments which do not grow any more: packs them, and removes the oldest when they are too many or too old.

It steps back behind everything else: its priority is low, and it gives the interpreter away while it packs. What it cannot do now it tries
again a minute later; nothing waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pillion_common.logs import EventLog
from pillion_log.entries import stamp
from pillion_log.store.folder import Folder
from pillion_log.store.packed import pack
from pillion_log.store.segments import PlainSegment

EVERY_S = 60.0
NICENESS = 10
DISK_SHARE = 0.8  # of the file system, where that is less than the bytes that may be kept

_log = EventLog("store")


class Retention:
    """How much of a folder is kept.

    Args:
        max_bytes: on the disk, in all.
        max_age_s: since an entry was received.
    """

    def __init__(self, folder: Folder, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self.reserve_bytes = 0  # what the growing segment may come to

    def limit(self) -> int:
        """Return how many bytes may be kept on this disk.

        Raises:
            OSError: the disk does not say how large it is.
        """
        disk = os.statvfs(self._folder.path)
        return min(self._max_bytes, int(disk.f_blocks * disk.f_frsize * DISK_SHARE))

    def apply(self) -> None:
        """Remove what is too much or too old, whole segments, the oldest first; never the one that grows.

        Raises:
            OSError: it cannot be removed.
        """
        oldest = stamp(max(0.0, self._clock() - self._max_age_s))[:-1]
        closed = self._folder.closed()
        size = sum(segment.disk_bytes for segment in closed) + self.reserve_bytes
        limit = self.limit()
        for segment in closed:
            too_old = segment.summary is not None and segment.summary.last_received[:-1] < oldest
            if size <= limit and not too_old:
                return
            size -= segment.disk_bytes
            self._folder.remove(segment)
            _log.info(
                "segment_removed",
                f"the oldest segment, {segment.file.path.name}, was removed: {'it is too old' if too_old else 'the log is too large'}",
                bytes=segment.end - segment.start,
            )


class Keeper:
    """The thread.

    Args:
        folder: whose segments it looks after.
        retention: how much of it is kept.
        packs: whether it packs.
    """

    def __init__(self, folder: Folder, retention: Retention, packs: bool = True) -> None:
        self._folder = folder
        self._retention = retention
        self._packs = packs
        self._bell = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._bell.set()
        self._thread.start()

    def wake(self) -> None:
        """Tell it that a segment has ended. From any thread."""
        self._bell.set()

    def stop(self) -> None:
        """End soon; what is half packed is given up. Blocks. Safe to call twice, and before it began."""
        self._stopping = True
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join()

    def look_after(self) -> None:
        """Remove and pack what is due, once."""
        try:
            self._retention.apply()
            for segment in self._folder.closed() if self._packs else []:
                if isinstance(segment, PlainSegment) and not self._stopping:
                    self._pack(segment)
                    self._retention.apply()
        except OSError as exc:
            _log.warn_seldom("keeping_failed", f"a closed segment of {self._folder.path} could not be packed or removed: {exc}")

    def _pack(self, segment: PlainSegment) -> None:
        segment.file.hold()
        try:
            packed = pack(segment, self._folder.path, lambda: not self._stopping, self._folder.damage)
        finally:
            segment.file.release()
        if packed is not None:
            self._folder.replace(segment, packed)

    def _run(self) -> None:
        with suppress(OSError):  # some sandboxes do not allow it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stopping:
            self._bell.wait(EVERY_S)
            self._bell.clear()
            if not self._stopping:
                self.look_after()
