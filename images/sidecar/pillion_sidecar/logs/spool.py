"""Log lines on their way: a bounded queue on disk that survives the sidecar. Does without pathlib, which would bring urllib and ipaddress.

Entries lie in segments (segments.py), each with this spool's Source and a Seq that rises by one from 1, by which the log service knows a
repeat. `acked` holds the highest Seq the log service has stored. What is between that and the first Seq on disk was dropped: so its number
is known from the disk alone, whenever the sidecar was killed, and `peek` makes the gap entry that tells of it.

A line is in the kernel's hands when `append` returns, so it survives kill -9. Whether it survives a power cut is the matter of sync.py;
after one, Seqs may have been lost that the log service has seen. They are not given twice: a new *generation* begins, with a Source of its
own.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO

from pillion_common.errors import ConfigError, StorageFull, TooLarge, Unavailable
from pillion_common.logs import EventLog
from pillion_sidecar.logs import segments as files
from pillion_sidecar.logs.acked import Acked, read_acked
from pillion_sidecar.logs.entry import MAX_LINE_BYTES, encode, make_gap, time_of
from pillion_sidecar.logs.segments import Segment

_log = EventLog("spool")

SEGMENT_BYTES = 1024 * 1024
CLEAN = "clean"


class Spool:
    """A queue of log entries in a folder.

    Args:
        folder: made if it is not there; one spool at a time may use it.
        max_bytes: when the files grow beyond it the oldest segment is dropped, and an entry tells how many lines that were.
        durable: whether lines are brought to the disk itself before anybody relies on them (sync.py).
        clock: seconds since 1970.
        boot: what the kernel calls this boot; empty takes no notice of power cuts.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        *,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
        boot: Callable[[], str] = files.boot_id,
    ) -> None:
        self._folder = os.fspath(folder)
        self.max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self._durable = durable
        self.sync_fault: OSError | None = None  # why a segment was not brought to the disk
        self._segments: deque[Segment] = deque()
        self._file: FileIO | None = None  # the last segment, open for appending
        self._generation, self._next_seq = 0, 1
        self._cursor = (0, 0, 0, 0)  # where the entry stands that was read last: generation and first Seq of its segment, Seq, offset
        self._gaps: list[tuple[tuple[int, int], int]] = []  # of the last peek: where each ends, how many entries are missing
        self._reading = 0  # the generation of the last peek
        self._told = 0
        self.size = 0
        self.positions: Mapping[str, str] = {}
        try:
            os.makedirs(self._folder, exist_ok=True)
            self._lock = files.lock(self._named("lock"))
            self._base = files.read_source(self._named("source"))
            self._acked = read_acked(self._named("acked"), clock)
            self._boot = boot()
            self._recover(self._boot)
        except BlockingIOError as exc:
            raise ConfigError([f"--state-dir {os.path.dirname(self._folder)}: another sidecar uses it; give each its own"]) from exc
        except OSError as exc:
            raise ConfigError(
                [f"--state-dir {os.path.dirname(self._folder)}: cannot be used: {exc}; choose a folder this user can write"]
            ) from exc

    @property
    def source(self) -> str:
        """Return the Source of what is appended now."""
        return self._source_of(self._generation)

    @property
    def acked(self) -> int:
        """Return the highest Seq that the log service has stored."""
        return self._acked.seq

    @property
    def next_seq(self) -> int:
        """Return the Seq of the entry that comes next."""
        return self._next_seq

    @property
    def waiting(self) -> int:
        """Return how many entries are not acknowledged."""
        return sum(max(0, segment.last - max(self._acked_in(segment), segment.first - 1)) for segment in self._segments)

    @property
    def dropped(self) -> int:
        """Return how many entries were dropped: those that were told of since the start, and those that are still to be told of."""
        return self._told + sum(missing for _, missing in self._holes())

    @property
    def unsent(self) -> bool:
        """Return whether there is something to send: entries, or the word about some that are missing."""
        return self.waiting > 0 or next(self._holes(), None) is not None

    @property
    def crowded(self) -> bool:
        """Return whether it is half full of what is not acknowledged: who has its lines elsewhere as well had better wait."""
        return sum(segment.size for segment in self._segments if segment.end > self._acked[:2]) > self.max_bytes // 2

    def append(self, entry: Mapping[str, object]) -> int:
        """Keep one entry; see append_all.

        Returns:
            Its Seq.
        """
        self.append_all((entry,))
        return self._next_seq - 1

    def append_all(self, entries: Sequence[Mapping[str, object]], positions: Mapping[str, str | None] | None = None) -> None:
        """Keep entries, and with them how far their sources were read: all of it or nothing, also if this process is killed meanwhile.

        Args:
            positions: what changed; any text by any key. They are in `positions` again after a restart. None forgets a key.

        Raises:
            TooLarge: no log service would take one of them. StorageFull, Unavailable: the disk does not take it. Nothing was kept.
        """
        lines = []
        for seq, entry in enumerate(entries, self._next_seq):
            line = encode(entry, self.source, seq)
            if line is None:
                raise TooLarge(f"the line is over {MAX_LINE_BYTES} bytes as JSON; send it in pieces")
            lines.append(line)
        mark = files.mark_line(positions, len(lines)) if positions else b""
        try:
            self._write(mark + b"".join(lines), len(lines))
        except OSError as exc:
            what = f"the log line was not kept: {exc.strerror}; the sidecar's disk ({self._folder})"
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{what} is full", retry_after_s=5) from exc
            raise Unavailable(f"{what} failed", code="spool_failed", retry_after_s=5) from exc
        if positions:
            self.positions = files.merge_positions(self.positions, positions)
        while self.size > self.max_bytes and len(self._segments) > 1 and self._drop_oldest():
            pass

    def lose(self, count: int) -> None:
        """Take note of entries that could not be kept and will not come again: a gap entry tells of them once there is room."""
        self._next_seq += count
        if self._file is not None:
            self._file.close()
            self._file = None
        # Even a full disk mostly has room for a name: an empty segment's says how far the Seqs came.
        mark = Segment(self._generation, self._next_seq, 0, 0)
        try:
            FileIO(self._named(mark.name), "ab").close()
        except OSError:
            return
        if self._segments and self._segments[-1].size == 0 and self._segments[-1].generation == self._generation:
            files.unlink(self._named(self._segments.pop().name))
        self._segments.append(mark)

    def peek(self, max_lines: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return the oldest entries that are not acknowledged, as (Seq, JSON line), at least one if there is any.

        Where entries are missing a gap entry stands, with the Seq of the last of them. All are of one Source.
        """
        while len(self._segments) > 1 and self._segments[0].end <= self._acked[:2]:
            self._remove(0)
        found: list[tuple[int, bytes]] = []
        self._gaps = []
        size = 0
        for segment in list(self._segments):
            if found and segment.generation != self._reading:
                break
            self._reading = segment.generation
            before = found[-1][0] if found else self._acked_in(segment)
            lines = self._lines(segment, max(before, segment.first - 1))
            first = next(lines, None)
            if segment.first - 1 > before and (first or segment.generation != self._after(segment)):
                missing = segment.first - 1 - before
                since = time_of(found[-1][1]) if found else self._acked.time
                gap = make_gap(self._source_of(segment.generation), segment.first - 1, missing, since, first[1] if first else b"")
                self._gaps.append(((segment.generation, segment.first - 1), missing))
                found.append((segment.first - 1, gap))
            while first is not None:
                size += len(first[1])
                if found and (len(found) >= max_lines or size > max_bytes):
                    return found
                found.append(first)
                first = next(lines, None)
        return found

    def ack(self, seq: int, reached_time: str = "") -> None:
        """Note that the log service has stored everything of the last peek up to seq.

        Args:
            reached_time: of that entry, for the gap entry that may follow it.
        """
        reached = max(self._acked[:2], (self._reading, seq))
        self._told += sum(missing for end, missing in self._gaps if self._acked[:2] < end <= reached)
        self._acked = Acked(*reached, reached_time or self._acked.time)
        try:
            files.replace_text(self._named("acked"), f"{self._acked.seq} {self._acked.generation} {self._acked.time}")
        except OSError as exc:
            # Only costs a repeat after a restart, which the log service recognises.
            _log.warn_seldom("spool_ack_failed", f"the spool's mark was not written: {exc}")

    def descriptor(self) -> int | None:
        """Return a descriptor of the segment that is written to, for fdatasync and to be closed; None if nothing was written."""
        return None if self._file is None else os.dup(self._file.fileno())

    def close(self) -> None:
        """Bring all of it to the disk and close the files."""
        try:
            if self._boot:
                if self._file is not None:
                    os.fdatasync(self._file.fileno())
                files.replace_text(self._named("boot"), CLEAN, durable=True)
        except OSError as exc:
            _log.warn_seldom("spool_not_synced", f"the spool was not brought to the disk: {exc}")
        if self._file is not None:
            self._file.close()
        self._lock.close()

    # Writing.

    def _write(self, data: bytes, lines: int) -> None:
        last = self._segments[-1] if self._segments else None
        # Within a segment Seqs rise by one: where some were lost, the next one begins.
        if self._file is None or last is None or last.size >= self._segment_bytes or last.last + 1 != self._next_seq:
            last = self._open_segment()
        assert self._file is not None
        files.write_whole(self._file.fileno(), data, last.size)
        self._segments[-1] = last._replace(lines=last.lines + lines, size=last.size + len(data))
        self.size += len(data)
        self._next_seq += lines

    def _sync_segment(self, file: FileIO) -> None:
        """Bring a segment to the disk; once that has failed it fails for ever, for the kernel tells of it only once."""
        if self.sync_fault is not None:
            raise self.sync_fault
        try:
            os.fdatasync(file.fileno())
        except OSError as exc:
            self.sync_fault = exc
            raise

    def _open_segment(self) -> Segment:
        """Begin a segment; all positions stand at its head, so that those before it can go."""
        if self._durable and self._file is not None:
            self._sync_segment(self._file)  # the new one's name says that all before it came: it must not be on the disk first
        path = self._named(files.segment_name(self._generation, self._next_seq))
        file = FileIO(path, "ab")
        head = files.mark_line(self.positions, 0) if self.positions else b""
        try:
            os.ftruncate(file.fileno(), 0)  # what a failed try before left
            files.write_whole(file.fileno(), head, 0)
            if self._durable:
                files.sync_folder(self._folder)
        except OSError:
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        if self._segments and (self._segments[-1].generation, self._segments[-1].first) == (self._generation, self._next_seq):
            self.size -= self._segments.pop().size
        self._file = file
        self._segments.append(Segment(self._generation, self._next_seq, 0, len(head)))
        self.size += len(head)
        return self._segments[-1]

    def _drop_oldest(self) -> bool:
        """Drop the oldest segment; False if that is not possible now."""
        # An empty segment takes no room, and its name tells of what is missing before it.
        at = next((at for at, segment in enumerate(self._segments) if segment.size), 0)
        if at + 1 >= len(self._segments):
            return False
        oldest, after = self._segments[at], self._segments[at + 1]
        lost = max(0, oldest.last - max(self._acked_in(oldest), oldest.first - 1))
        if lost and after.generation != oldest.generation:
            # The next Seq on disk is of another Source: the name of an empty segment says how far this one came.
            end = Segment(oldest.generation, oldest.last + 1, 0, 0)
            try:
                FileIO(self._named(end.name), "wb").close()
            except OSError:
                return False
            self._segments.insert(at + 1, end)
        self._remove(at)
        if lost:
            _log.warn_seldom("spool_full", f"the spool is full: its oldest {lost} lines were dropped; is a LogService there?", lines=lost)
        return True

    def _remove(self, at: int) -> None:
        gone = self._segments[at]
        del self._segments[at]
        self.size -= gone.size
        files.unlink(self._named(gone.name))

    # Reading.

    def _acked_in(self, segment: Segment) -> int:
        """Return the highest Seq of a segment's generation that is acknowledged."""
        if segment.generation == self._acked.generation:
            return self._acked.seq
        return segment.last if segment.generation < self._acked.generation else 0

    def _holes(self) -> Iterator[tuple[Segment, int]]:
        """Return the segments before which entries are missing, and how many."""
        generation, seq = self._acked[:2]
        for segment in self._segments:
            if segment.generation != generation:
                generation, seq = segment.generation, self._acked_in(segment)
            if segment.first - 1 > seq:
                yield segment, segment.first - 1 - seq
            seq = max(seq, segment.last)

    def _after(self, segment: Segment) -> int | None:
        """Return the generation of the segment after this one; None if there is none."""
        at = next((at for at, one in enumerate(self._segments) if one[:2] == segment[:2]), len(self._segments))
        return self._segments[at + 1].generation if at + 1 < len(self._segments) else None

    def _lines(self, segment: Segment, after: int) -> Iterator[tuple[int, bytes]]:
        """Return a segment's entries behind a Seq; fewer if somebody shortened the file or took it away."""
        seq, offset = segment.first, 0
        if self._cursor[:2] == segment[:2] and self._cursor[2] <= after + 1:
            seq, offset = self._cursor[2:]
        if after >= segment.last:
            return
        try:
            with open(self._named(segment.name), "rb") as file:
                file.seek(offset)
                for line in file:
                    if line.endswith(b"\n") and not line.startswith(files.MARK):
                        if seq > after:
                            self._cursor = (*segment[:2], seq, offset)
                            yield seq, line
                        seq += 1
                        if seq > segment.last:
                            return
                    offset += len(line)
        except OSError as exc:
            self._lose(segment, seq, exc.strerror or str(exc))
            return
        self._lose(segment, seq, "somebody shortened it")

    def _lose(self, segment: Segment, next_seq: int, why: str) -> None:
        """Take note that a segment holds nothing from a Seq on."""
        lost = max(0, segment.last - max(self._acked_in(segment), next_seq - 1))
        _log.error("spool_damaged", f"{lost} log lines are lost: {self._named(segment.name)}: {why}", lines=lost)
        if segment == self._segments[-1] and self._file is not None:
            self._file.close()
            self._file = None
        self._segments[self._segments.index(segment)] = segment._replace(lines=next_seq - segment.first)

    # The start.

    def _recover(self, boot: str) -> None:
        for generation, first in files.find_segments(self._folder):
            segment, self.positions = files.recover(self._folder, generation, first)
            self._segments.append(segment)
            self.size += segment.size
        self._reading = self._acked.generation
        reached = max((self._segments[-1].end if self._segments else (0, 0)), self._acked[:2])
        self._generation, self._next_seq = reached[0], reached[1] + 1
        before = files.read_text(self._named("boot"))
        if boot and before not in ("", CLEAN, boot) and not self._durable:
            _log.warning("spool_power_cut", "the machine was restarted while this spool was in use: what it had not written is lost")
            self._generation, self._next_seq = self._generation + 1, 1
        self.ack(self._acked.seq)  # with the time from which on it counts what is missing
        if boot and before != boot:
            files.replace_text(self._named("boot"), boot, durable=True)
        if self._segments and self._segments[-1].end == (self._generation, self._next_seq - 1):
            self._file = FileIO(self._named(self._segments[-1].name), "ab")
        else:
            self._open_segment()

    def _named(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _source_of(self, generation: int) -> str:
        return f"{self._base}.{generation}" if generation else self._base
