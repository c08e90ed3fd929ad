"""`current.log`: what comes in, as a classic log service wrote it, for those who `tail -f` a file. Written on request only.

    2026-01-31T12:00:00.123Z [GradingService] - one message

It is a courtesy: nothing is read from it, it is not synced, and when it cannot be written nobody's entry fails for it. It begins anew with
each segment; the one before it is current.1.log.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pillion_common.logs import EventLog
from pillion_log.escapes import escape_text

_log = EventLog("store")


class _Shown(msgspec.Struct, rename="pascal", gc=False):
    time: str = ""
    service: str = ""
    message: str = ""


_decode_lines = msgspec.json.Decoder(_Shown).decode_lines


class CurrentLog:
    """The file. Used by one thread.

    Args:
        folder: where it stands.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "current.log"
        self._former = folder / "current.1.log"

    def write(self, lines: bytes) -> None:
        """Add entries, as they are stored."""
        text = "".join([escape_text(f"{shown.time} [{shown.service}] - {shown.message}") + "\n" for shown in _decode_lines(lines)])
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError as exc:
            _log.warn_seldom("current_failed", f"{self._path} cannot be written: {exc}; entries are kept all the same")

    def rotate(self) -> None:
        """Begin anew."""
        try:
            os.replace(self._path, self._former)
        except FileNotFoundError:
            pass
        except OSError as exc:
            _log.warn_seldom("current_failed", f"{self._path} cannot be put aside: {exc}")
