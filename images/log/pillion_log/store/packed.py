"""A packed segment: `<position>.log.zst`, which `zstd -d` unpacks to the plain one, with `<position>.idx` beside it.

Each block is a frame of its own, so that it can be read without the others. Before it stands a skippable frame with its position, its
length and the frame's, so that the index can be made anew, also around a damaged block.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from pillion_common.logs import EventLog
from pillion_log.store.base import Summary
from pillion_log.store.index import Entry, Index, read_index, write_index
from pillion_log.store.segments import PlainSegment, SharedFile, segment_path
from pillion_log.store.snapshot import sync_folder, write_whole
from pillion_log.store.summaries import summarize

SUFFIX = ".log.zst"
INDEX_SUFFIX = ".idx"
LEVEL = 3
MAX_BLOCK_BYTES = 1 << 30  # far more than a group can have

_HEADER = struct.Struct("<IIQQQ")  # magic, length of what follows, position, length of the block, length of its frame
_MAGIC = 0x184D2A50
_MAGIC_BYTES = _MAGIC.to_bytes(4, "little") + (24).to_bytes(4, "little")

_log = EventLog("store")


class PackedBlock:
    """A block of a packed segment."""

    __slots__ = ("_damaged", "_entry", "_file", "start", "summary")

    def __init__(self, file: SharedFile, start: int, entry: Entry, damaged: Callable[[str], None]) -> None:
        self._file = file
        self._entry = entry
        self._damaged = damaged
        self.start = start
        self.summary = entry.summary

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self._entry.end

    def read(self) -> bytes:
        """Return the lines; nothing where they are damaged, and that is told and counted."""
        frame = self._file.read(self._entry.offset, self._entry.length)
        try:
            data = unpack(frame, self.end - self.start)
        except zstandard.ZstdError as exc:
            self._damaged(f"{self._file.path} is damaged from byte {self._entry.offset}: {exc}; its block is passed over")
            return b""
        return data


class PackedSegment:
    """A packed segment. It never changes.

    Args:
        path: the packed file.
        index: what is in it.
        damaged: told of what cannot be unpacked.
    """

    def __init__(self, path: Path, index: Index, damaged: Callable[[str], None]) -> None:
        self._index_path = index_path(path)
        self.file = SharedFile(path, self._index_path)
        self.start = index.start
        self.end = index.end
        self.summary: Summary | None = index.summary
        self.disk_bytes = path.stat().st_size + self._index_path.stat().st_size
        self._damaged = damaged

    def blocks(self, newest_first: bool) -> Iterator[PackedBlock]:
        """Return its blocks. Their index is read for that, and not kept.

        Raises:
            OSError: it cannot be read.
        """
        index = _stored_index(self._index_path)
        if index is None:
            _log.warn_seldom("index_damaged", f"{self._index_path} is damaged or gone; what it told is read from the log itself")
            index = scan_packed(self.file.path, self.start, self._damaged)
        starts = [self.start, *(entry.end for entry in index.blocks[:-1])]
        blocks = [PackedBlock(self.file, start, entry, self._damaged) for start, entry in zip(starts, index.blocks, strict=True)]
        return iter(blocks[::-1] if newest_first else blocks)


def pack(segment: PlainSegment, folder: Path, go_on: Callable[[], bool], damaged: Callable[[str], None]) -> PackedSegment | None:
    """Pack a segment that does not grow any more; it stays as it is. None if `go_on` said no meanwhile.

    Raises:
        OSError: it cannot be read, or what it becomes cannot be written; nothing is left behind.
    """
    path = segment_path(folder, segment.start, SUFFIX)
    draft = path.with_name(path.name + ".tmp")
    try:
        entries = []
        with draft.open("wb") as file:
            for block in segment.blocks(newest_first=False):
                if not go_on():
                    return None
                data = block.read()
                if len(data) != block.end - block.start:
                    raise OSError(errno.EIO, f"{segment.file.path} is shorter than it was")
                frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)
                file.write(_HEADER.pack(_MAGIC, 24, block.start, len(data), len(frame)))
                entries.append(Entry(block.end, file.tell(), len(frame), block.summary or summarize(data)))
                file.write(frame)
            file.flush()
            os.fsync(file.fileno())
        index = Index(segment.start, segment.end, entries)
        write_whole(index_path(path), write_index(index))
        draft.replace(path)
        sync_folder(folder)
    finally:
        draft.unlink(missing_ok=True)
    return PackedSegment(path, index, damaged)


def open_packed(path: Path, start: int, damaged: Callable[[str], None]) -> PackedSegment:
    """Return the packed segment in a file; its index is made anew if it is damaged or not there.

    Raises:
        OSError: it cannot be read, or the index not be written.
    """
    beside = index_path(path)
    index = _stored_index(beside)
    if index is None or index.start != start:
        _log.warning("index_rebuilt", f"{beside} is damaged or not there; it is made anew")
        index = scan_packed(path, start, damaged)
        write_whole(beside, write_index(index))
    return PackedSegment(path, index, damaged)


def scan_packed(path: Path, start: int, damaged: Callable[[str], None]) -> Index:
    """Return the index of a packed file, as the file itself tells it.

    Raises:
        OSError: it cannot be read.
    """
    entries = []
    end = start
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while header := _next_header(file.fileno(), size):
            offset, position, length, frame_length = header
            if position < end:
                file.seek(offset)
                continue
            if position > end:  # what lies between cannot be found: it is one block, which cannot be unpacked
                entries.append(Entry(position, 0, 0, None))
            try:
                summary = summarize(unpack(os.pread(file.fileno(), frame_length, offset), length))
            except zstandard.ZstdError as exc:
                damaged(f"{path} is damaged from byte {offset}: {exc}; its block is passed over")
                summary = None
            end = position + length
            entries.append(Entry(end, offset, frame_length, summary))
            file.seek(offset + frame_length)
    return Index(start, end, entries)


def unpack(frame: bytes, length: int) -> bytes:
    """Return the bytes of a frame, so many.

    Raises:
        zstandard.ZstdError: it is damaged.
    """
    if not 0 < length <= MAX_BLOCK_BYTES:
        raise zstandard.ZstdError("no block has that length")
    data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=length)
    if len(data) != length:
        raise zstandard.ZstdError(f"it has {len(data)} bytes instead of {length}")
    return data


def index_path(path: Path) -> Path:
    """Return the path of the index beside a packed file."""
    return path.with_name(path.name.removesuffix(SUFFIX) + INDEX_SUFFIX)


def _stored_index(path: Path) -> Index | None:
    try:
        return read_index(path.read_bytes())
    except FileNotFoundError:
        return None


def _next_header(file: int, size: int) -> tuple[int, int, int, int] | None:
    """Return the next header from the file's place on: where its frame begins, the block's position and length, and the frame's."""
    at = os.lseek(file, 0, os.SEEK_CUR)
    while at + _HEADER.size <= size:
        chunk = os.pread(file, 1 << 20, at)
        found = chunk.find(_MAGIC_BYTES)
        if found < 0:
            at += max(1, len(chunk) - len(_MAGIC_BYTES))
            continue
        header = os.pread(file, _HEADER.size, at + found)
        if len(header) < _HEADER.size:
            return None
        _, _, position, length, frame_length = _HEADER.unpack(header)
        offset = at + found + _HEADER.size
        if 0 < length <= MAX_BLOCK_BYTES and offset + frame_length <= size:
            return offset, position, length, frame_length
        at += found + 1
    return None
