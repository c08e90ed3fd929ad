"""wiped: a registry with 200 real sidecars is killed and started again without its memory.

Measured is the time until it knows all of them as up again; all the while providers are looked up through several sidecars, and no answer
may be empty. Fails when one was.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import requests
from figures import OURS, Row, Scale
from machine import free_port
from programs import Program, eventually, program
from sidecar_bench import words_for

SIDECARS = 200
SERVICES = 10
LOOKERS = 5
PAUSE_S = 0.005
START_S = 120.0


def _up(registry: str) -> int:
    shown = requests.get(f"{registry}/services?state=up", timeout=5).json()["Services"]
    return len(shown)


def _words(number: int, registry: str, folder: Path) -> tuple[str, ...]:
    more = ("--requires", f"S{(number + 1) % SERVICES}", "--check", "none", "--log-to", "", "--listen", "127.0.0.1:0")
    return ("sidecar", *words_for(f"S{number % SERVICES}", 10_000 + number, registry, folder / str(number), *more))


def _look(local: str, service: str, done: threading.Event, counts: Counter[str]) -> None:
    connection = HTTPConnection(urlsplit(local).hostname or "", urlsplit(local).port, timeout=5)
    while not done.is_set():
        connection.request("GET", f"/providers/{service}?all=1&format=text")
        found = connection.getresponse().read().split()
        counts["asked"] += 1
        counts["empty"] += not found
        counts["least"] = min(counts["least"] or SIDECARS, len(found))
        time.sleep(PAUSE_S)
    connection.close()


def _once(count: int) -> list[Row]:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry_words = ("registry", "--listen", f"127.0.0.1:{free_port()}", "--store", "memory:")
        registry = stack.enter_context(program(*registry_words))
        sidecars = []
        for number in range(count):
            sidecars.append(Program(_words(number, registry.url, folder), {}))
            stack.callback(sidecars[-1].process.kill)
        eventually(lambda: _up(registry.url) == count, START_S)
        done, counts = threading.Event(), [Counter[str]() for _ in range(LOOKERS)]
        lookers = []
        for number in range(LOOKERS):
            words = (sidecars[number].addresses[1], f"S{(number + 1) % SERVICES}", done, counts[number])
            lookers.append(threading.Thread(target=_look, args=words))
            lookers[-1].start()
        time.sleep(1)
        registry.kill()
        again = stack.enter_context(program(*registry_words))
        started_at = time.monotonic()
        eventually(lambda: _up(again.url) == count, 30.0)
        known_s = time.monotonic() - started_at
        time.sleep(3)
        done.set()
        for looker in lookers:
            looker.join()
    empty, asked = (sum(count[key] for count in counts) for key in ("empty", "asked"))
    if empty:
        raise RuntimeError(f"{empty} of {asked} look-ups were empty; expected 0")
    return [
        ("wiped", "sidecars", "", count),
        ("wiped", "all up again", "s", known_s),
        ("wiped", "look-ups", "in all", asked),
        ("wiped", "empty", "in all", empty),
        ("wiped", "fewest providers", f"of {count // SERVICES}", min(one["least"] for one in counts)),
    ]


async def pillion(scale: Scale) -> list[Row]:
    return await asyncio.to_thread(_once, 40 if scale.quick else SIDECARS)


PEERS = {OURS: pillion}
