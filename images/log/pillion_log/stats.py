"""`GET /stats`: what there is per service and in all, as JSON or as a table. Pure.

{"Services":{"GradingService":{"Lines":2,"Bytes":310,"Gaps":0,"First":"…","Last":"…"}},"Total":{…},"DiskBytes":402,…}
"""

from __future__ import annotations

from pillion_common.models import Model
from pillion_log.store.base import OTHERS, ServiceCount, StoreStats

_HEAD = ("SERVICE", "LINES", "BYTES", "MISSING", "FIRST RECEIVED", "LAST RECEIVED")


class Stats(Model, frozen=True, omit_defaults=False):
    """The answer. A service `*` stands for those that are too many to be named."""

    services: dict[str, ServiceCount]
    total: ServiceCount
    disk_bytes: int
    oldest: int
    end: int
    removed_segments: int
    removed_bytes: int
    damaged: int


def summed(stats: StoreStats) -> Stats:
    """Return what a store says, with its sum."""
    counts = stats.services.values()
    total = ServiceCount(
        sum(count.lines for count in counts),
        sum(count.bytes for count in counts),
        sum(count.gaps for count in counts),
        min((count.first for count in counts), key=_without_z, default=""),
        max((count.last for count in counts), key=_without_z, default=""),
    )
    services = dict(sorted(stats.services.items()))
    return Stats(services, total, stats.disk_bytes, stats.oldest, stats.end, stats.removed_segments, stats.removed_bytes, stats.damaged)


def table(stats: Stats) -> str:
    """Return the numbers for the eye."""
    rows = [_HEAD, *(_row("(others)" if name == OTHERS else name, count) for name, count in stats.services.items())]
    rows.append(_row("total", stats.total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
    lines.append(f"{stats.disk_bytes:,} bytes on disk; {stats.removed_bytes:,} bytes removed by retention since the start")
    return "\n".join(lines) + "\n"


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Return a row's cells at their widths, numbers to the right."""
    padded = enumerate(zip(row, widths, strict=True))
    return [cell.rjust(width) if 0 < column < 4 else cell.ljust(width) for column, (cell, width) in padded]


def _row(name: str, count: ServiceCount) -> tuple[str, ...]:
    return (name, f"{count.lines:,}", f"{count.bytes:,}", f"{count.gaps:,}", count.first or "-", count.last or "-")


def _without_z(time: str) -> str:
    return time[:-1]
