"""steady: what it costs to check N instances every 3 s, and how late a check comes at worst."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from crowd import Crowd, register, settle
from figures import Row, Scale, percentile
from machine import allow_files, disk_folder, scheduled_s, usage
from ours import registry
from peers import consul

INTERVAL_S = 3.0
SIZES = (1_000, 5_000, 10_000)
FULL_SIZES = (*SIZES, 15_000, 20_000)
HOLDS_MS = 300.0
CONSUL_CHECKS = 1_000
SPARE_FILES = 200


async def pillion(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    largest = 0
    for count in SIZES[:1] if scale.quick else FULL_SIZES if scale.full else SIZES:
        if count + SPARE_FILES > allow_files():
            print(f"steady {count:,}: skipped, only {allow_files():,} open files are allowed here", file=sys.stderr)
            continue
        measured = await _ours(count, scale)
        rows += measured
        if {metric: value for _, metric, _, value in measured}["latest check"] <= HOLDS_MS:
            largest = max(largest, count)
    return [*rows, ("steady", "largest that holds", "instances", float(largest))]


async def _ours(count: int, scale: Scale) -> list[Row]:
    with registry("--heartbeat-interval", f"{INTERVAL_S:g}s") as server:
        async with Crowd() as crowd:
            await register(server.url, (crowd.registration(index, f"Steady{index % 100}") for index in range(count)))
            await settle(crowd, count)
            return await watch(f"steady {count:,}", [server.process.pid], crowd, count, scale)


async def on_consul(scale: Scale) -> list[Row]:
    """HTTP checks of a server agent; 1,000 of them are what it is asked for here."""
    with disk_folder() as folder:
        async with consul.consul(folder) as agent, Crowd() as crowd:
            for index in range(CONSUL_CHECKS):
                check = {"HTTP": f"http://127.0.0.1:{crowd.port}/h/{index}", "Interval": f"{INTERVAL_S:g}s", "Timeout": "2s"}
                await agent.register(ID=f"steady-{index}", Name=f"Steady{index % 100}", Port=7000, Check=check)
            await settle(crowd, CONSUL_CHECKS)
            return await watch(f"steady {CONSUL_CHECKS:,}", [agent.process.pid], crowd, CONSUL_CHECKS, scale)


async def watch(workload: str, pids: Sequence[int], crowd: Crowd, count: int, scale: Scale) -> list[Row]:
    """Let it settle, then measure over some intervals. CPU and memory are those of all who check.

    Raises:
        RuntimeError: an instance was not checked as often as it should be.
    """
    await asyncio.sleep((1 if scale.quick else 2) * INTERVAL_S)
    intervals = 2 if scale.quick else 5
    crowd.timing = True
    beats, used_s = crowd.beats, scheduled_s(*pids)
    await asyncio.sleep(intervals * INTERVAL_S)
    beats, used_s = crowd.beats - beats, scheduled_s(*pids) - used_s
    crowd.timing = False
    ended = time.perf_counter()
    if beats < 0.8 * count * intervals:
        raise RuntimeError(f"{workload}: only {beats} checks came where {count * intervals} were due")
    seconds = intervals * INTERVAL_S
    late_ms = [1000 * max(0.0, gap - INTERVAL_S) for gap in crowd.gaps]
    return [
        (workload, "cpu", "% of a core", 100 * used_s / seconds),
        (workload, "cpu per check", "us each", 1e6 * used_s / beats),
        (workload, "resident", "MB", usage(*pids).resident / 1e6),
        (workload, "checks", "1/s", beats / seconds),
        (workload, "late, p99.9", "ms", percentile(late_ms, 0.999)),
        (workload, "latest check", "ms", max(late_ms)),
        (workload, "silent the longest", "s", max(ended - at for at in crowd.last.values())),
    ]


PEERS = {"pillion": pillion, consul.NAME: on_consul}
