"""log: lines of 200 bytes taken in durably, one a request on 64 connections, and in batches of 500 on 4.

Afterwards what was acknowledged is counted in the service's folder: a line less fails the bench.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from figures import Row, Scale
from generate import NUMBER, measure
from load import drive, request
from machine import disk_folder, usage
from ours import log_service
from peers import classic

LINE = b"[Bench] - " + b"x" * 190
BATCH = 500
BATCH_CONNECTIONS = 4
BLOCK = 1 << 20


async def pillion(scale: Scale) -> list[Row]:
    with disk_folder() as folder, log_service(folder / "log") as server:
        url = f"{server.url}/log"
        rows, outcome = await measure("log c=64", server.process.pid, url, request("POST", url, LINE, "text/plain"), 64, scale.seconds)
        _check("log c=64", _lines(folder / "log"), outcome.answers)
    with disk_folder() as folder, log_service(folder / "log") as server:
        return rows + await _batches(server.url, server.process.pid, folder / "log", scale)


async def on_classic(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        target = folder / "lines"
        target.mkdir()
        async with classic.classic("log", folder, str(target / "distributed.log")) as server:
            url = f"{server.url}/log"
            rows, outcome = await measure("log c=64", server.process.pid, url, request("POST", url, LINE, "text/plain"), 64, scale.seconds)
        _check("log c=64", _lines(target), outcome.answers)
        return rows


async def _batches(server: str, pid: int, folder: Path, scale: Scale) -> list[Row]:
    workload = f"log batches of {BATCH} c={BATCH_CONNECTIONS}"
    url = f"{server}/logs"
    before = usage(pid)
    result = await drive(url, _numbered(_template(url)), BATCH_CONNECTIONS, scale.seconds)
    after = usage(pid)
    if result.failures:
        raise RuntimeError(f"{workload}: {result.failures} answers were not 200")
    lines = len(result.latencies) * BATCH
    _check(workload, _lines(folder), lines)
    return [
        (workload, "rate", "lines/s", result.per_second * BATCH),
        (workload, "p50", "ms", 1000 * result.percentile(0.50)),
        (workload, "p99", "ms", 1000 * result.percentile(0.99)),
        (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / lines),
        (workload, "resident", "MB", after.resident / 1e6),
    ]


def _template(url: str) -> bytes:
    """Return the request of a batch; with its number put in, its source is one never seen."""
    source = "s" + NUMBER.decode()
    lines = (json.dumps({"Service": "Bench", "Message": "x" * 200, "Source": source, "Seq": number}) for number in range(1, BATCH + 1))
    return request("POST", url, "\n".join(lines).encode() + b"\n", "application/x-ndjson")


def _numbered(template: bytes) -> Iterator[bytes]:
    return (template.replace(NUMBER, b"%08d" % number) for number in itertools.count())


def _lines(folder: Path) -> int:
    """Count the line ends in a folder's files."""
    count = 0
    for path in folder.rglob("*.log"):
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                count += block.count(b"\n")
    return count


def _check(workload: str, found: int, acknowledged: int) -> None:
    if found < acknowledged:
        raise RuntimeError(f"{workload}: {acknowledged} lines were acknowledged, {found} are there")


PEERS = {"pillion": pillion, classic.NAME: on_classic}
