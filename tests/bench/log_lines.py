"""log: lines of 200 bytes taken in durably, one a request on 64 connections, and in batches of 500 on 4.

Afterwards what was acknowledged is counted in the service's folder: a line less fails the bench.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard
from figures import Row, Scale
from generate import NUMBER, measure
from load import drive, request
from machine import disk_folder, usage
from ours import log_service
from peers import classic

LINE = b"[Bench] - " + b"x" * 190
BATCH = 500
BATCH_CONNECTIONS = 4
BATCHES = f"log batches of {BATCH} c={BATCH_CONNECTIONS}"
BLOCK = 1 << 20
CHECK = b'{"Check":'  # begins the log service's checksum lines


async def pillion(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        with log_service(folder / "log") as server:
            url = f"{server.url}/log"
            rows, outcome = await measure(
                "log c=64", [server.process.pid], url, request("POST", url, LINE, "text/plain"), 64, scale.seconds
            )
        _check("log c=64", _lines(folder / "log"), outcome.answers)  # when nothing is being packed any more
    with disk_folder() as folder:
        with log_service(folder / "log") as server:
            more, lines = await _batches(server.url, server.process.pid, scale)
        _check(BATCHES, _lines(folder / "log"), lines)
    return rows + more


async def on_classic(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        target = folder / "lines"
        target.mkdir()
        async with classic.classic("log", folder, str(target / "distributed.log")) as server:
            url = f"{server.url}/log"
            rows, outcome = await measure(
                "log c=64", [server.process.pid], url, request("POST", url, LINE, "text/plain"), 64, scale.seconds
            )
        _check("log c=64", _lines(target), outcome.answers)
        return rows


async def _batches(server: str, pid: int, scale: Scale) -> tuple[list[Row], int]:
    """Return what was measured, and how many lines were acknowledged."""
    workload = BATCHES
    url = f"{server}/logs"
    before = usage(pid)
    result = await drive(url, _numbered(_template(url)), BATCH_CONNECTIONS, scale.seconds)
    after = usage(pid)
    if result.failures:
        raise RuntimeError(f"{workload}: {result.failures} answers were not 200")
    lines = len(result.latencies) * BATCH
    rows: list[Row] = [
        (workload, "rate", "lines/s", result.per_second * BATCH),
        (workload, "p50", "ms", 1000 * result.percentile(0.50)),
        (workload, "p99", "ms", 1000 * result.percentile(0.99)),
        (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / lines),
        (workload, "resident", "MB", after.resident / 1e6),
    ]
    return rows, lines


def _template(url: str) -> bytes:
    """Return the request of a batch; with its number put in, its source is one never seen."""
    source = "s" + NUMBER.decode()
    lines = (json.dumps({"Service": "Bench", "Message": "x" * 200, "Source": source, "Seq": number}) for number in range(1, BATCH + 1))
    return request("POST", url, "\n".join(lines).encode() + b"\n", "application/x-ndjson")


def _numbered(template: bytes) -> Iterator[bytes]:
    return (template.replace(NUMBER, b"%08d" % number) for number in itertools.count())


def _lines(folder: Path) -> int:
    """Count the entries in a folder's files, packed ones too."""
    count = 0
    for path in [*folder.rglob("*.log"), *folder.rglob("*.log.zst")]:
        with path.open("rb") as file:
            lines = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) if path.suffix == ".zst" else file
            rest = b""
            while block := lines.read(BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                count += (whole + newline).count(b"\n") - (b"\n" + whole).count(b"\n" + CHECK)
    return count


def _check(workload: str, found: int, acknowledged: int) -> None:
    if found < acknowledged:
        raise RuntimeError(f"{workload}: {acknowledged} lines were acknowledged, {found} are there")


PEERS = {"pillion": pillion, classic.NAME: on_classic}
