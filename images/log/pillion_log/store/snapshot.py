"""The file `sources.json`: what the store must remember that its segments do not tell quickly, or not any more. Replaced in one step.

    {"Position":67108864,"Clean":false,"Sources":{"grading-1/8f2c":[7,"2026-01-31T12:00:00.123Z"]}}
    {"Check":"8c736521","Bytes":103}

Sources are those that had written up to Position, the one that was silent longest first. Clean: nothing was written after it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pillion_log.store.checks import check_line, find_groups
from pillion_log.store.sources import Mark

NAME = "sources.json"


class Snapshot(msgspec.Struct, rename="pascal", frozen=True):
    """What is remembered."""

    position: int = 0
    clean: bool = False
    sources: dict[str, Mark] = {}


def read_snapshot(folder: Path) -> Snapshot | None:
    """Return what was remembered, or None if there is nothing that can be trusted.

    Raises:
        OSError: it cannot be read.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    groups = find_groups(data)
    if groups.damaged or groups.whole != len(data):
        return None
    try:
        return msgspec.json.decode(data.split(b"\n", 1)[0], type=Snapshot)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Remember.

    Raises:
        OSError: what was remembered before stays.
    """
    line = msgspec.json.encode(snapshot) + b"\n"
    write_whole(folder / NAME, line + check_line(line))


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in its place in one step, durably.

    Raises:
        OSError: whatever stood there before stands there still.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names in a folder durable.

    Raises:
        OSError: they may not be.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
