"""Follows files by glob: over rotation by rename and by copytruncate, from where they were read to before, also over a kill.

Each file is known by its inode and its first bytes. Positions are kept in the spool together with the entries, so that neither is ahead of
the other. A file is read only while the spool has room and its disk takes lines: what waits, waits in the file.
"""

from __future__ import annotations

import asyncio
import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator

from pillion_common.logs import EventLog
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.sources.stream import Placed
from pillion_sidecar.logs.sources.tail import Position, Tail, key_of, parse_position, read_head

_log = EventLog("files")

POLL_S = 0.2
LOOK_S = 1.0  # between two looks at which files there are, and at files that are silent
SILENT_S = 10.0  # after which all of them are; waking up five times a second costs more than all else that an idle sidecar does
FLUSH_S = 1.0  # after which a trace is taken as whole
GONE_S = 5.0  # a file that was moved away or removed is read for so long after the last new bytes
PIECES = 8  # of one file at one turn
MAX_FILES = 256
PREFIX = "file:"
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


class FileSource:
    """Follows all files that match.

    Args:
        globs: patterns of paths; `**` is any folders.
        join: names of languages whose traces are joined.
        now: monotonic seconds.
    """

    def __init__(
        self, globs: Iterable[str], join: Iterable[str], maker: EntryMaker, sink: Sink, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._globs = tuple(globs)
        self._join = tuple(join)
        self._maker = maker
        self._sink = sink
        self._now = now
        self._tails: dict[str, Tail] = {}  # by key
        self._gone: dict[str, float] = {}  # since when a file is not at its path any more
        self._waiting: list[tuple[Tail, list[Placed]]] = []  # entries that the disk did not take yet
        self._warned: set[str] = set()
        self._first = True
        self._fresh_at = now()  # when something new was read last, of any file

    async def run(self) -> None:
        """Follow them until cancelled; then what has been written by then is taken in as well."""
        looked_at = float("-inf")
        try:
            while True:
                if self._now() - looked_at >= LOOK_S:
                    looked_at = self._now()
                    self.look()
                for tail in list(self._tails.values()):
                    self.read(tail)
                    await asyncio.sleep(0)
                await asyncio.sleep(POLL_S if self._now() - self._fresh_at < SILENT_S else LOOK_S)
        except asyncio.CancelledError:
            self._read_last()
            raise
        finally:
            self.close()

    def look(self) -> None:
        """Find out which files there are, and which are not where they were."""
        found = dict(self._find())
        if self._first:
            self._first = False
            found |= self._find_moved(found)
        for key, path in found.items():
            if key not in self._tails:
                self._open(key, path)
        for key, tail in list(self._tails.items()):
            if key in found:
                tail.path = found[key]
                self._gone.pop(key, None)
            elif self._is_done(key, tail):
                self._drop(key, tail)

    def read(self, tail: Tail) -> None:
        """Take in what is new in a file, as far as there is room."""
        for _ in range(PIECES):
            if self._sink.crowded or not self._keep_waiting():
                return
            try:
                unread = tail.unread
                placed = tail.read()
            except OSError as exc:
                _log.warn_seldom("file_unreadable", f"{tail.path} cannot be read: {exc.strerror}")
                return
            if placed or unread:
                tail.fresh_at = self._fresh_at = self._now()
            elif tail.holds and self._now() - tail.fresh_at >= FLUSH_S:
                placed = tail.flush()
            self._keep(tail, placed)
            if not unread:
                return

    def close(self) -> None:
        """Let go of all files."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()

    def _read_last(self) -> None:
        """Take in the app's last words, a line without an end too."""
        self.look()
        for tail in self._tails.values():
            self.read(tail)
            if not tail.unread:
                self._keep(tail, tail.end())

    def _keep(self, tail: Tail, placed: list[Placed]) -> None:
        if placed:
            self._waiting.append((tail, placed))
            self._keep_waiting()

    def _keep_waiting(self) -> bool:
        """Keep what was read; False if the disk does not take it."""
        while self._waiting:
            tail, placed = self._waiting[0]
            before = tail.position
            tail.gave(placed[-1].end)
            if not self._sink.keep([one.entry for one in placed], {tail.key: str(tail.position)}):
                tail.gave(before.offset)
                return False
            del self._waiting[0]
        return True

    def _find(self) -> Iterator[tuple[str, str]]:
        for pattern in self._globs:
            for path in sorted(glob.iglob(pattern, recursive=True)):
                if not path.endswith(PACKED):
                    try:
                        stat = os.stat(path)
                    except OSError:
                        continue  # gone meanwhile
                    if os.path.isfile(path):
                        yield key_of(stat), path

    def _find_moved(self, found: dict[str, str]) -> dict[str, str]:
        """Return the files that were moved away since they were read, within their folders; they are read to their end."""
        missing = {key: known for key, known in self._positions() if key not in found}
        moved = {}
        for folder in {os.path.dirname(known.path) for known in missing.values()}:
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            for entry in entries:
                key = key_of(entry.stat()) if entry.is_file() and not entry.name.endswith(PACKED) else ""
                if key in missing and missing[key].fits(read_head(entry.path)):
                    moved[key] = entry.path
        for key in missing.keys() - moved.keys():
            self._sink.keep((), {key: None})
        return moved

    def _positions(self) -> Iterator[tuple[str, Position]]:
        for key, text in list(self._sink.positions.items()):
            if key.startswith(PREFIX) and (known := parse_position(text)):
                yield key, known

    def _open(self, key: str, path: str) -> None:
        if len(self._tails) >= MAX_FILES:
            self._warn_once("too_many_files", f"over {MAX_FILES} files match PILLION_LOG_FILES; {path} and more are left out")
            return
        known = parse_position(self._sink.positions.get(key, ""))
        try:
            tail = Tail(path, known or self._copied_from(path), self._maker, self._join)
        except OSError as exc:
            self._warn_once(path, f"{path} cannot be followed: {exc.strerror}; let this user read it")
            return
        if tail.key != key:
            tail.close()  # another file has come to be there meanwhile; the next look finds it
            return
        tail.fresh_at = self._now()
        self._tails[key] = tail
        _log.info("file_followed", f"following {path} from byte {tail.position.offset}")
        self._sink.keep((), {key: str(tail.position)})

    def _copied_from(self, path: str) -> Position | None:
        """Return how far that file was read of which this one may be copytruncate's copy: its name and more. Tail compares the heads."""
        for _, known in self._positions():
            if path.startswith(known.path) and path != known.path and known.head_bytes:
                return known
        return None

    def _is_done(self, key: str, tail: Tail) -> bool:
        """Return whether a file that is not at its path any more has nothing more to say."""
        since = self._gone.setdefault(key, self._now())
        return not tail.unread and self._now() - max(since, tail.fresh_at) >= GONE_S

    def _drop(self, key: str, tail: Tail) -> None:
        self._keep(tail, tail.end())
        if self._waiting:
            return  # there is no room; at the next look
        self._sink.keep((), {key: None})
        self._gone.pop(key, None)
        self._tails.pop(key).close()
        _log.info("file_left", f"{tail.path} is gone, read to its end")

    def _warn_once(self, about: str, what: str) -> None:
        if about not in self._warned and len(self._warned) < MAX_FILES:
            self._warned.add(about)
            _log.warning("file_left_out", what)
