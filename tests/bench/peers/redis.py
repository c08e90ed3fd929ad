"""Redis with its append-only file, synced on every write; loaded by redis-benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from figures import Row
from machine import free_port, usage

from peers.process import find, server

NAME = "redis"
TRIAL = 2_000


class Redis(NamedTuple):
    """A running server: its port and its process."""

    port: int
    process: subprocess.Popen[bytes]

    async def measure(self, workload: str, connections: int, *command: str, seconds: float) -> list[Row]:
        """Load it by redis-benchmark, which counts requests: about as many as fit the seconds.

        Raises:
            RuntimeError: a command was answered with an error.
        """
        count = max(TRIAL, int(seconds * (await self._run(connections, TRIAL, command))["rps"]))
        before = usage(self.process.pid)
        said = await self._run(connections, count, command)
        after = usage(self.process.pid)
        return [
            (workload, "rate", "1/s", said["rps"]),
            (workload, "p50", "ms", said["p50_latency_ms"]),
            (workload, "p99", "ms", said["p99_latency_ms"]),
            (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / count),
            (workload, "resident", "MB", after.resident / 1e6),
        ]

    async def _run(self, connections: int, count: int, command: tuple[str, ...]) -> dict[str, float]:
        words = ["-p", str(self.port), "-c", str(connections), "-n", str(count), "-r", "256", "--csv", *command]
        process = await asyncio.create_subprocess_exec(
            str(find("redis-benchmark")), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, faults = await asyncio.wait_for(process.communicate(), 120)
        lines = [line for line in output.decode().splitlines() if line.startswith('"')]
        if process.returncode or len(lines) < 2 or b"rror" in faults:
            raise RuntimeError(f"redis-benchmark failed: {faults.decode()}{output.decode()}")
        return {name: float(value) for name, value in next(csv.DictReader(lines)).items() if name != "test"}


def installed() -> bool:
    return find("redis-server") is not None and find("redis-benchmark") is not None


@contextlib.asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Redis]:
    """Run a server."""
    port = free_port()
    words = [str(find("redis-server")), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    words += ["--appendonly", "yes", "--appendfsync", "always"]

    async def ready() -> bool:
        return await command(port, "PING") == b"+PONG\r\n"

    async with server(words, folder, ready) as process:
        yield Redis(port, process)


async def command(port: int, *words: str) -> bytes:
    """Send one command and return the first piece of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write((" ".join(words) + "\r\n").encode())
        return await reader.read(1024)
    finally:
        writer.close()
