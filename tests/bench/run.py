"""`scripts/bench NAME`: runs a benchmark's rounds, prints medians with minimum and maximum, writes them as JSON if asked.

JSON: a list of {"workload","peer","metric","unit","median","min","max","rounds"}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "process")]

import smoke  # noqa: E402

ROUNDS = 3


class Figure(NamedTuple):
    """One measured number of one round."""

    workload: str
    metric: str
    unit: str
    value: float


# name: function of the seconds per measurement, which gives one round's figures as (workload, metric, unit, value)
BENCHMARKS: dict[str, Callable[[float], Iterable[tuple[str, str, str, float]]]] = {"smoke": smoke.one_round}


def summarise(figures: list[Figure]) -> list[dict[str, object]]:
    """Return one row per workload and metric."""
    groups: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for figure in figures:
        groups[figure[:3]].append(figure.value)
    return [
        {
            "workload": workload,
            "peer": "pillion",
            "metric": metric,
            "unit": unit,
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
            "rounds": len(values),
        }
        for (workload, metric, unit), values in groups.items()
    ]


def main() -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="shorter rounds: under a minute in all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    words = parser.parse_args()
    figures: list[Figure] = []
    for number in range(1, ROUNDS + 1):
        print(f"round {number} of {ROUNDS} ...", file=sys.stderr)
        figures += [Figure(*row) for row in BENCHMARKS[words.name](1.0 if words.quick else 4.0)]
    rows = summarise(figures)
    print(f"{'workload':<22}{'metric':<18}{'median':>12}{'min':>12}{'max':>12}  unit")
    for row in rows:
        print(f"{row['workload']:<22}{row['metric']:<18}{row['median']:>12,.1f}{row['min']:>12,.1f}{row['max']:>12,.1f}  {row['unit']}")
    if words.json:
        words.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
