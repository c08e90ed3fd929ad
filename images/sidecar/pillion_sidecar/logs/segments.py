"""The spool's files: names, what stands in them, and how each is written so that a crash or a full disk leaves nothing half done.

A segment holds one JSON entry a line. A line that begins with `#` is a *mark*, `#{"Positions":{…},"Lines":2}`: the next two lines and these
positions of their sources are kept together or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping
from io import FileIO
from typing import NamedTuple

from pillion_common.logs import EventLog

_log = EventLog("spool")

BOOT_ID = "/proc/sys/kernel/random/boot_id"
MARK = b"#"

_SOURCE = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"(?:(\d{4})-)?(\d{20})\.ndjson")


class Segment(NamedTuple):
    """One file of the spool: its generation, its first Seq, how many entries it holds, its size in bytes."""

    generation: int
    first: int
    lines: int
    size: int

    @property
    def last(self) -> int:
        """Return the Seq of its last entry; below `first` if it is empty."""
        return self.first + self.lines - 1

    @property
    def end(self) -> tuple[int, int]:
        """Return where it ends: generation and last Seq."""
        return self.generation, self.last

    @property
    def name(self) -> str:
        """Return its file name."""
        return segment_name(self.generation, self.first)


def segment_name(generation: int, first: int) -> str:
    """Return a segment's file name, e.g. 00000000000000000017.ndjson."""
    return f"{generation:04d}-{first:020d}.ndjson" if generation else f"{first:020d}.ndjson"


def find_segments(folder: str) -> list[tuple[int, int]]:
    """Return generation and first Seq of all segments, in order."""
    return sorted((int(match[1] or 0), int(match[2])) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)))


def recover(folder: str, generation: int, first: int) -> tuple[Segment, dict[str, str]]:
    """Cut off what a crash left unfinished: a last line without its end, and lines whose mark promises more of them than there are.

    Returns:
        The segment as it is now, and the positions in it.
    """
    name = segment_name(generation, first)
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        data = file.read()
    whole, lines = data.rfind(b"\n") + 1, 0
    positions: dict[str, str] = {}
    at, owed, before = 0, 0, (0, 0, positions)  # `before`: how it was before the last mark
    while at < whole:
        end = data.index(b"\n", at) + 1
        if data.startswith(MARK, at):
            before = (at, lines, positions)
            positions, owed = _read_mark(data[at + 1 : end], positions)
        else:
            lines += 1
            owed = max(0, owed - 1)
        at = end
    if owed:
        whole, lines, positions = before
    if whole != len(data):
        os.truncate(path, whole)
        _log.warning("spool_torn", f"cut {len(data) - whole} bytes that a crash left unfinished off {name}")
    return Segment(generation, first, lines, whole), positions


def mark_line(positions: Mapping[str, str | None], lines: int) -> bytes:
    """Return the mark that goes before so many lines; a position of None is forgotten."""
    return MARK + json.dumps({"Positions": positions, "Lines": lines}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def merge_positions(known: Mapping[str, str], changed: Mapping[str, str | None]) -> dict[str, str]:
    """Return what is known after a change; None forgets."""
    return {key: place for key, place in {**known, **changed}.items() if place is not None}


def _read_mark(text: bytes, known: dict[str, str]) -> tuple[dict[str, str], int]:
    try:
        mark = json.loads(text)
        return merge_positions(known, mark["Positions"]), int(mark["Lines"])
    except (ValueError, KeyError, TypeError):
        return known, 0  # damaged: its sources are read again from where they were known to be


def lock(path: str) -> FileIO:
    """Hold a file against other processes.

    Raises:
        BlockingIOError: another holds it.
    """
    file = FileIO(path, "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def read_text(path: str) -> str:
    """Return a small file's text; nothing if it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def read_source(path: str) -> str:
    """Return the Source that a file names; one that names none is given a new one."""
    if not _SOURCE.fullmatch(read_text(path)):
        replace_text(path, os.urandom(8).hex())
    return read_text(path)


def replace_text(path: str, text: str, durable: bool = False) -> None:
    """Write a small file in one step.

    Args:
        durable: whether it is on the disk when this returns.
    """
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    if durable:
        sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def write_whole(descriptor: int, data: bytes, size: int) -> None:
    """Write, or leave the file as it was."""
    written = os.write(descriptor, data)
    if written != len(data):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def boot_id() -> str:
    """Return what the kernel calls this boot of the machine; empty if it does not say."""
    try:
        return read_text(BOOT_ID)
    except OSError:
        return ""
