"""What the tests of the spool share: lines in, lines out, and a kill."""

from __future__ import annotations

import json
from typing import Any

from pillion_sidecar.logs.spool import Spool

MAX = 1024 * 1024


def keep(spool: Spool, *messages: str) -> list[int]:
    return [spool.append({"Message": message}) for message in messages]


def waiting(spool: Spool, max_lines: int = 100_000, max_bytes: int = 1 << 30) -> list[dict[str, Any]]:
    found = spool.peek(max_lines, max_bytes)
    entries = [json.loads(line) for _, line in found]
    assert [entry["Seq"] for entry in entries] == [seq for seq, _ in found]
    return entries


def no_boot() -> str:
    return ""


def killed(spool: Spool) -> None:
    """Let go of a spool as kill -9 does: nothing more is written."""
    for file in (spool._file, spool._lock):
        if file is not None:
            file.close()


def messages(spool: Spool) -> list[str]:
    return [entry["Message"] for entry in waiting(spool)]
