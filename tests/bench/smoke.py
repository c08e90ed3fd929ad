"""The base figures: registrations, lookups and log lines a second, each with what the serving process used for it."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager

import requests
import uvloop
from figures import Row
from load import Result, drive, request
from machine import usage
from programs import Program, eventually, program

INSTANCES = 256
PROVIDERS = 5
LINE = b"x" * 200
BATCH = 500


def one_round(seconds: float) -> list[Row]:
    """Start the programs anew, measure each workload for some seconds, and return the figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        program("registry", "--store", f"sqlite:{folder}/registry.db") as registry,
        _sidecar(registry, folder, "Answering") as answering,
    ):
        rows = _register(registry, f"{answering.url}/heartbeat", seconds)
    with tempfile.TemporaryDirectory() as folder, program("log", "--store", f"files:{folder}/log") as log:
        rows += _log_lines(log, seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        program("registry", "--store", "memory:") as registry,
        _sidecar(registry, folder, "Reader") as sidecar,
    ):
        rows += _look_up(registry, sidecar, seconds)
    return rows


def _sidecar(registry: Program, folder: str, name: str) -> AbstractContextManager[Program]:
    words = ("--name", name, "--port", "1", "--check", "none", "--requires", "Provider", "--log-to", "")
    return program("sidecar", *words, "--registry", registry.url, "--local", "127.0.0.1:0", "--state-dir", folder)


def _measure(
    workload: str, server: Program, url: str, load: Iterator[bytes], connections: int, seconds: float, per_request: int = 1
) -> list[Row]:
    before = usage(server.process.pid)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result: Result = runner.run(drive(url, load, connections, seconds))
    after = usage(server.process.pid)
    assert result.failures == 0, f"{workload}: {result.failures} answers were not 200"
    things = len(result.latencies) * per_request
    return [
        (workload, "rate", "1/s", result.per_second * per_request),
        (workload, "p50", "ms", 1000 * result.percentile(0.50)),
        (workload, "p99", "ms", 1000 * result.percentile(0.99)),
        (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / things),
        (workload, "resident", "MB", after.resident / 1e6),
    ]


def _registration(name: str, port: int, heartbeat: str) -> bytes:
    return json.dumps({"ServiceName": name, "ServiceURL": f"http://127.0.0.1:{port}", "HeartbeatURL": heartbeat}).encode()


def _register(registry: Program, heartbeat: str, seconds: float) -> list[Row]:
    """Each registration is followed by a check of what it names: that is part of its cost, and a sidecar answers it."""
    url = f"{registry.url}/services"
    load = itertools.cycle([request("POST", url, _registration("Bench", 10_000 + n, heartbeat)) for n in range(INSTANCES)])
    return _measure("register c=32", registry, url, load, 32, seconds)


def _look_up(registry: Program, sidecar: Program, seconds: float) -> list[Row]:
    local = sidecar.addresses[1]
    for number in range(PROVIDERS):
        body = _registration("Provider", 20_000 + number, f"{sidecar.url}/heartbeat")
        requests.post(f"{registry.url}/services", data=body, timeout=5).raise_for_status()
    eventually(lambda: len(requests.get(f"{local}/providers/Provider?all=1", timeout=5).json()["Providers"]) == PROVIDERS)
    url = f"{local}/providers/Provider"
    return _measure("lookup c=16", sidecar, url, itertools.repeat(request("GET", url)), 16, seconds)


def _log_lines(log: Program, seconds: float) -> list[Row]:
    url = f"{log.url}/log"
    rows = _measure("log c=64", log, url, itertools.repeat(request("POST", url, b"[Bench] - " + LINE, "text/plain")), 64, seconds)
    url = f"{log.url}/logs"
    return rows + _measure("log batches c=4", log, url, _batches(url), 4, seconds, per_request=BATCH)


def _batches(url: str) -> Iterator[bytes]:
    text = LINE.decode()
    for first in itertools.count(1, BATCH):
        lines = (json.dumps({"Service": "Bench", "Message": text, "Source": f"s{first}", "Seq": first + n}) for n in range(BATCH))
        yield request("POST", url, "\n".join(lines).encode() + b"\n", "application/x-ndjson")
