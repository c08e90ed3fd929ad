"""Takes over what earlier versions left: entries.log and entries.N.log, the highest N the oldest. Their names change, nothing else.

They have no checksums: as segments they are called `<position>.lines`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pillion_common.logs import EventLog
from pillion_log.store.segments import NAME_DIGITS, segment_path
from pillion_log.store.snapshot import sync_folder

_OLD = re.compile(r"entries(?:\.([1-9][0-9]{0,5}))?\.log")
_CHUNK = 64 * 1024

LEAP_BYTES = 1 << 40  # no segment is that large

_log = EventLog("store")


def take_over(folder: Path, position: int) -> None:
    """Make segments of an earlier version's files; after a crash in the midst of it, the next call goes on.

    Args:
        position: none before that may be used.

    Raises:
        OSError: not all of them could be taken over; no entry is lost.
    """
    old = {int(match[1] or 0): folder / name for name in os.listdir(folder) if (match := _OLD.fullmatch(name))}
    if not old:
        return
    for path in folder.glob("*.lines"):
        position = max(position, int(path.stem) + path.stat().st_size)
    if newer := [int(path.name[:NAME_DIGITS]) for path in folder.glob("*.log*") if path.name[:NAME_DIGITS].isdecimal()]:
        position = max(position, *newer) + LEAP_BYTES  # an earlier version ran again meanwhile
    for _, path in sorted(old.items(), reverse=True):
        size = path.stat().st_size
        whole = _whole_lines(path, size)
        if whole < size:
            _log.warning(
                "torn_tail",
                f"{path} ended in the middle of an entry that was never acknowledged; its {size - whole} bytes are cut off",
                bytes=size - whole,
                entries=1,
            )
            os.truncate(path, whole)
        if whole:
            path.rename(segment_path(folder, position, ".lines"))
            position += whole
        else:
            path.unlink()
    sync_folder(folder)
    _log.info("taken_over", f"{len(old)} files of an earlier version in {folder} became segments", files=len(old))


def _whole_lines(path: Path, size: int) -> int:
    """Return how many bytes of the file end with its last newline."""
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - _CHUNK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
