"""rolling: five providers are restarted one after another under 200 requests/s, each request one look-up and one call, without a retry.

First by SIGTERM to `pillion run`, then by kill -9 of app and sidecar. What fails is counted; after SIGTERM nothing may.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from figures import OURS, Row, Scale
from rolling_fleet import Fleet

INSTANCES = 5
PER_SECOND = 200
RUNS = 5


def _all_runs(runs: int) -> list[Row]:
    rows: list[Row] = []
    for workload, ending in (("rolling, SIGTERM", Fleet.restart_all), ("rolling, kill -9", Fleet.kill_all)):
        asked = failed = 0
        with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), INSTANCES) as fleet:
            for _ in range(runs):
                outcome = fleet.under_load(PER_SECOND, lambda ending=ending: ending(fleet))  # type: ignore[misc]
                asked += outcome.requests
                failed += len(outcome.failures)
                for failure in outcome.failures[:3]:
                    print(f"  {workload}: {failure}")
        rows += [(workload, "requests", "in all", asked), (workload, "failed", "in all", failed), (workload, "runs", "of 5 restarts", runs)]
        if failed and ending is Fleet.restart_all:
            raise RuntimeError(f"{failed} of {asked} requests failed in a rolling restart; expected 0")
    return rows


async def pillion(scale: Scale) -> list[Row]:
    return await asyncio.to_thread(_all_runs, 1 if scale.quick else RUNS)


PEERS = {OURS: pillion}
