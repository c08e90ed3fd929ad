"""Figures and tables: what one round measured, medians over the rounds, and how they are shown.

JSON: a list of {"workload","peer","metric","unit","median","min","max","rounds"}; ours under peer "pillion".
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

OURS = "pillion"

# One measured number: workload, metric, unit, value.
Row = tuple[str, str, str, float]


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Args:
        quick: all of a bench within a minute.
        full: also the sizes at which it breaks.
        minutes: length of a soak.
        replicas: registries that share a catalogue on NATS; 0 is one on SQLite.
    """

    quick: bool = False
    full: bool = False
    minutes: float = 10.0
    replicas: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of one load."""
        return 1.0 if self.quick else 4.0


class Figure(NamedTuple):
    """One measured number of one round of one peer."""

    workload: str
    peer: str
    metric: str
    unit: str
    value: float


def summarise(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Return one row per workload, peer and metric: ours first within each workload."""
    groups: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for figure in figures:
        groups[figure[:4]].append(figure.value)
    order = {workload: number for number, workload in reversed(list(enumerate(key[0] for key in groups)))}
    keys = sorted(groups, key=lambda key: (order[key[0]], key[1] != OURS))
    return [
        {
            "workload": workload,
            "peer": peer,
            "metric": metric,
            "unit": unit,
            "median": round(statistics.median(groups[workload, peer, metric, unit]), 3),
            "min": round(min(groups[workload, peer, metric, unit]), 3),
            "max": round(max(groups[workload, peer, metric, unit]), 3),
            "rounds": len(groups[workload, peer, metric, unit]),
        }
        for workload, peer, metric, unit in keys
    ]


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return the rows for a terminal."""
    lines = [f"{'workload':<26}{'peer':<16}{'metric':<22}{'median':>12}{'min':>12}{'max':>12}  unit"]
    for row in rows:
        numbers = "".join(f"{_number(row[name]):>12}" for name in ("median", "min", "max"))
        lines.append(f"{row['workload']:<26}{row['peer']:<16}{row['metric']:<22}{numbers}  {row['unit']}")
    return "\n".join(lines)


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Return the rows as docs/benchmarks.md has them."""
    lines = ["| Workload | Peer | Metric | Median | Min | Max | Unit | Rounds |", "| --- | --- | --- | ---: | ---: | ---: | --- | ---: |"]
    for row in rows:
        numbers = " | ".join(_number(row[name]) for name in ("median", "min", "max"))
        lines.append(f"| {row['workload']} | {row['peer']} | {row['metric']} | {numbers} | {row['unit']} | {row['rounds']} |")
    return "\n".join(lines)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which a share of the values lies; the nearest that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.3f}"
