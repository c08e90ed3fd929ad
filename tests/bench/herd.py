"""herd: a registry with 5,000 providers and 2,000 dependents is killed and started again; all of them register anew at once.

Measured is the time until it is ready, and until everybody is up again and each dependent was told all it requires; and the most memory it
took. Fails when that takes too long, when somebody healthy was withdrawn, or when a limit of 1,024 descriptors is not told at start.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from crowd import Crowd, register, settle
from figures import OURS, Row, Scale
from load import Caller
from machine import disk_folder, free_port
from ours import registry
from programs import Program, begin_words

PROVIDERS, DEPENDENTS, SERVICES, REQUIRED = 5000, 2000, 100, 3
READY_S, CONVERGED_S, RESIDENT_MB = 5.0, 15.0, 256
PATIENCE_S = 120.0


async def pillion(scale: Scale) -> list[Row]:
    providers, dependents = (500, 200) if scale.quick else (PROVIDERS, DEPENDENTS)
    with disk_folder() as folder:
        words = ("--listen", f"127.0.0.1:{free_port()}")
        store = f"sqlite:{folder}/registry.db"
        async with Crowd(tables=True) as crowd:
            bodies = _bodies(crowd, providers, dependents)
            with registry(*words, store=store) as first:
                await register(first.url, bodies)
                await settle(crowd, len(bodies))
                await _until(lambda: _told(crowd, providers, dependents), "dependents told before")
                await asyncio.sleep(1.0)
                first.kill()
            crowd.clear_tables()
            started = time.perf_counter()
            with registry(*words, store=store) as again:
                await asyncio.to_thread(lambda: again.url)
                ready_s = await _ready(again.url) - started
                herd = asyncio.create_task(register(again.url, bodies))
                await _until(lambda: _told(crowd, providers, dependents), "dependents told after")
                await herd
                await _all_up(again.url, len(bodies))
                converged_s = time.perf_counter() - started
                resident_mb = _most_resident(again.process.pid)
                withdrawn = len(again.events("instance_down")) + sum(crowd.removals.values())
        told = await asyncio.to_thread(_shortage, folder)
    rows = [
        ("herd", "instances", "", float(len(bodies))),
        ("herd", "ready", "s", ready_s),
        ("herd", "converged", "s", converged_s),
        ("herd", "most resident", "MB", resident_mb),
        ("herd", "withdrawn", "in all", float(withdrawn)),
    ]
    if ready_s > READY_S or converged_s > CONVERGED_S or resident_mb > RESIDENT_MB or withdrawn or not told:
        raise RuntimeError(
            f"expected ready within {READY_S:g} s, converged within {CONVERGED_S:g} s, at most {RESIDENT_MB} MB: {rows}, {told=}"
        )
    return rows


def _bodies(crowd: Crowd, providers: int, dependents: int) -> list[bytes]:
    """Return the registrations: providers come first, each dependent requires three services."""
    names = [f"S{number}" for number in range(SERVICES)]
    offers = [crowd.registration(number, names[number % SERVICES]) for number in range(providers)]
    needs = [[names[(3 * number + step) % SERVICES] for step in range(REQUIRED)] for number in range(dependents)]
    return offers + [crowd.registration(providers + number, "Dependent", some) for number, some in enumerate(needs)]


def _told(crowd: Crowd, providers: int, dependents: int) -> bool:
    """Return whether each dependent was told all providers of what it requires."""
    known = sum(len(crowd.knowing(crowd.url(number))) for number in range(providers))
    return known >= dependents * REQUIRED * providers // SERVICES


async def _until(true: Callable[[], bool], what: str) -> None:
    for _ in range(int(PATIENCE_S / 0.1)):
        if true():
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{what}: not within {PATIENCE_S:g} s")


async def _ready(url: str) -> float:
    """Wait until the registry says it is ready; return when."""
    for _ in range(int(PATIENCE_S / 0.02)):
        caller = await Caller.connect(url)
        status, _ = await caller.call("GET", f"{url}/readyz")
        caller.close()
        if status == 200:
            return time.perf_counter()
        await asyncio.sleep(0.02)
    raise RuntimeError(f"not ready within {PATIENCE_S:g} s")


async def _all_up(url: str, count: int) -> None:
    caller = await Caller.connect(url)
    for _ in range(int(PATIENCE_S / 0.5)):
        _, body = await caller.call("GET", f"{url}/services?state=up")
        if len(json.loads(body)["Services"]) == count:
            caller.close()
            return
        await asyncio.sleep(0.5)
    raise RuntimeError(f"not all {count} are up within {PATIENCE_S:g} s")


def _most_resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _shortage(folder: Path) -> bool:
    """Return whether a registry with 1,024 descriptors says at its start how many it needs."""
    begin = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", *begin_words())
    running = Program(("registry", "--listen", "127.0.0.1:0", "--store", f"sqlite:{folder}/other.db"), {}, begin)
    try:
        return bool(running.addresses) and len(running.events("few_descriptors")) == 1
    finally:
        running.stop()


PEERS = {OURS: pillion}
