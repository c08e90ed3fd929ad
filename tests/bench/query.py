"""Finding lines in 2 GB of log: by index, by text, by regular expression; and what memory that takes.

The lines go through the file store, spread over a day and eight services. Then the real program opens the folder.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from urllib.parse import urlencode

import programs
import requests
from figures import OURS, Row, Scale, percentile
from machine import disk_folder, on_server_cpu, usage
from programs import Program, program

from pillion_log.entries import Run, stamp
from pillion_log.store.base import Appended
from pillion_log.store.files import FileOptions, FileStore

BYTES, QUICK_BYTES = 2 << 30, 256 << 20
GROUP_LINES = 4_000  # about 1 MB
RUN_LINES = 50  # neighbours of one service
BEGAN_S = 1769817600.0  # 2026-01-31T00:00:00Z
SERVICES = [f"{name}{kind}" for name in ("Grading", "Library", "Teacher", "Portal") for kind in ("Service", "Worker")]
PATHS = ["/students", "/students/17/grades", "/healthz", "/grades/average", "/login", "/static/app.css"]
RARE = "RareService"
NEEDLE = "connection to db-7 lost after 31 retries"
REPEATS = 5
TIMEOUT_S = 60
KEPT_S = 36500 * 86400.0  # the lines are of a day long past


class Texts:
    """Makes lines as services write them: mostly requests, some with a trace of a failure."""

    def __init__(self) -> None:
        self._random = random.Random(20260131)
        pick = self._random.choice
        self._bodies = [
            f"{pick(('GET', 'POST', 'PUT'))} {pick(PATHS)} {pick((200, 200, 200, 201, 304, 404, 500))} {self._random.randint(1, 900)}ms "
            f"user={self._random.randint(1, 9999)} agent=Mozilla/5.0"
            for _ in range(2_000)
        ]

    def group(self, number: int, total: int) -> list[Run]:
        """Return the runs of one group; its entries are of one moment of the day."""
        at = stamp(BEGAN_S + 86400 * number / total)
        return [self._run(at, number, first) for first in range(0, GROUP_LINES, RUN_LINES)]

    def _run(self, at: str, number: int, first: int) -> Run:
        index = self._random.randrange(len(SERVICES))
        service, instance = SERVICES[index], f"{SERVICES[index].lower()}-{first % 3}"
        lines = [
            f'{{"Time":"{at}","Received":"{at}","Service":"{service}","Level":"{"error" if n % 37 == 0 else "info"}",'
            f'"Message":"{self._bodies[(number * 7 + n) % 2_000]} request={number:08x}{n:08x}","Instance":"{instance}"}}\n'
            for n in range(first, first + RUN_LINES)
        ]
        return Run("".join(lines).encode(), RUN_LINES, service=service, received=at)


def needle(at: str) -> Run:
    """Return the one line that is looked for."""
    fields = {"Time": at, "Received": at, "Service": RARE, "Level": "error", "Message": NEEDLE}
    return Run(json.dumps(fields, separators=(",", ":")).encode() + b"\n", service=RARE, received=at)


async def fill(folder: Path, size: int) -> str:
    """Write so many bytes of log; returns the time of the needle, which lies at two fifths."""
    store = FileStore(folder, FileOptions(max_age_s=KEPT_S))
    await store.load()
    texts = Texts()
    written = number = 0
    total = size // (GROUP_LINES * 230)
    hidden = ""
    while written < size:
        runs = texts.group(number, total)
        if not hidden and written > size * 2 // 5:
            hidden = runs[0].received
            runs.append(needle(hidden))
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        store.append(runs, done.set_result)
        assert isinstance(await done, Appended)
        written += sum(len(run.lines) for run in runs)
        number += 1
    await store.close()
    return hidden


def find(log: Program, expected: int, **parameters: str) -> float:
    """Ask for all pages of a query; returns the seconds until the last one was read."""
    found, cursor, began = 0, "", time.perf_counter()
    while True:
        words = urlencode({**parameters, **({"cursor": cursor} if cursor else {})})
        answer = requests.get(f"{log.url}/logs?{words}", timeout=TIMEOUT_S)
        answer.raise_for_status()
        found += sum(b'"Message"' in line and b'"Error"' not in line for line in answer.content.splitlines())
        cursor = answer.headers.get("X-Pillion-Cursor", "")
        if not cursor:
            assert found == expected, f"{parameters}: {found} lines were found instead of {expected}"
            return time.perf_counter() - began


def high_water(log: Program) -> float:
    """Return the most memory the program has ever used."""
    status = Path(f"/proc/{log.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def look_up(log: Program, hidden: str) -> list[Row]:
    """Return how long it takes to find the needle where an index helps."""
    rows: list[Row] = []
    for name, parameters in (
        ("by time", {"since": hidden, "until": hidden, "level": "error", "q": NEEDLE}),
        ("by service", {"service": RARE}),
        ("by service, last of many", {"service": SERVICES[0], "limit": "100"}),
    ):
        many = int(parameters.get("limit", "1"))
        if many > 1:
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                requests.get(f"{log.url}/logs?{urlencode(parameters)}", timeout=TIMEOUT_S).raise_for_status()
                times.append(time.perf_counter() - began)
        else:
            times = [find(log, 1, **parameters) for _ in range(REPEATS)]
        rows += [("needle", name, "ms", 1000 * percentile(times, 0.5)), ("needle", f"{name}, max", "ms", 1000 * max(times))]
    return rows


def scan(log: Program, size: int) -> list[Row]:
    """Return how fast everything is searched where no index helps."""
    rows: list[Row] = []
    for name, expected, parameters in (
        ("text", 1, {"q": NEEDLE}),
        ("text, not there", 0, {"q": "no such words"}),
        ("text, any case", 1, {"q": NEEDLE.upper(), "i": "1"}),
        ("re with a prefix", 1, {"re": r"connection to db-\d+ lost"}),
        ("re without", 1, {"re": r"\d+ retries$"}),
        ("re like each line's time", 0, {"re": r"\d\d:\d\d:\d\d"}),
    ):
        before = usage(log.process.pid)
        took_s = min(find(log, expected, **parameters) for _ in range(2))
        cpu_s = (usage(log.process.pid).cpu_s - before.cpu_s) / 2
        rows += [("scan", name, "MB/s", size / took_s / 1e6), ("scan", f"{name}, of a core", "MB/s", size / cpu_s / 1e6)]
    return rows


async def _ours(scale: Scale) -> list[Row]:
    size = QUICK_BYTES if scale.quick else BYTES
    with disk_folder() as folder:
        began = time.perf_counter()
        hidden = await fill(folder, size)
        took_s = time.perf_counter() - began
        programs.START_S = 300.0  # it may have to read all of it
        began = time.perf_counter()
        with on_server_cpu():
            running = program("log", "--store", f"files:{folder}", "--log-max-age", f"{KEPT_S:.0f}s")
            log = running.__enter__()
        opened_s = time.perf_counter() - began
        try:
            size = requests.get(f"{log.url}/stats", timeout=TIMEOUT_S).json()["Total"]["Bytes"]
            rows: list[Row] = [("fill", "rate", "MB/s", size / took_s / 1e6), ("fill", "size", "MB", size / 1e6)]
            rows.append(("open", "time", "s", opened_s))
            rows.append(("memory", "before", "MB", high_water(log)))
            rows += await asyncio.to_thread(look_up, log, hidden)
            rows += await asyncio.to_thread(scan, log, size)
            rows.append(("memory", "most", "MB", high_water(log)))
        finally:
            running.__exit__(None, None, None)
    return rows


PEERS = {OURS: _ours}
