"""soak: 2,000 instances that are all well, while a busy loop steals a third of the registry's core; then the registry is paused for 20 s.

Counted is who was withdrawn: 0 is expected. Fails when it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from crowd import Crowd, register, settle
from figures import Row, Scale
from machine import on_server_cpu, scheduled_s
from ours import registry

INSTANCES = 2_000
SERVICES = 20
PAUSE_S = 20.0
AFTERWARDS_S = 15.0
THIEF = """
import time
while True:
    until = time.perf_counter() + 0.1
    while time.perf_counter() < until:
        pass
    time.sleep(0.2)
"""


async def pillion(scale: Scale) -> list[Row]:
    minutes = min(scale.minutes, 0.25) if scale.quick else scale.minutes
    pause_s = PAUSE_S / 4 if scale.quick else PAUSE_S
    with registry() as server:
        async with Crowd() as crowd:
            names = [f"Soak{number}" for number in range(SERVICES)]
            # Each instance requires its neighbours' service, so that every withdrawal is told to a hundred.
            bodies = (crowd.registration(index, names[index % SERVICES], [names[(index + 1) % SERVICES]]) for index in range(INSTANCES))
            await register(server.url, bodies)
            await settle(crowd, INSTANCES)
            await asyncio.sleep(3)
            crowd.removals.clear()
            pid = server.process.pid
            with _thief():
                used_s = scheduled_s(pid)
                await asyncio.sleep(60 * minutes)
                used_s = scheduled_s(pid) - used_s
            robbed = len(crowd.removals)
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(pause_s)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(AFTERWARDS_S)
            paused = len(crowd.removals) - robbed
        downs = Counter(f"{line['time'][:19]} {line['message'].rpartition(' is down: ')[2]}" for line in server.events("instance_down"))
    if robbed or paused:
        said = "; ".join(f"{count} x {what}" for what, count in downs.most_common(5))
        raise RuntimeError(f"wrongly withdrawn: {robbed} while a third of the core was stolen, {paused} after a pause ({said})")
    return [
        ("soak, a third stolen", "wrongly withdrawn", "instances", float(robbed)),
        ("soak, a third stolen", "minutes", "min", minutes),
        ("soak, a third stolen", "cpu", "% of a core", 100 * used_s / (60 * minutes)),
        ("soak, registry paused", "wrongly withdrawn", "instances", float(paused)),
        ("soak, registry paused", "pause", "s", pause_s),
    ]


@contextlib.contextmanager
def _thief() -> Iterator[None]:
    """Keep the servers' CPU busy for a third of the time, at a better priority than the registry where that is allowed."""
    with on_server_cpu():
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", THIEF], stdin=subprocess.DEVNULL)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, process.pid, -10)
    try:
        yield
    finally:
        process.kill()
        process.wait()


PEERS = {"pillion": pillion}
