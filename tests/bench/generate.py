"""Load on an HTTP server: by wrk where it is installed, else by load.py's own connections (which cost the harness more, so that it may
be the limit).

The request is given as a template; each `@@@@@@@@` in it becomes a running number of eight digits.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from figures import Row
from load import drive
from machine import usage

NUMBER = b"@@@@@@@@"
SCRIPT = Path(__file__).parent / "wrk" / "cycle.lua"


class Outcome(NamedTuple):
    """What a load brought; times in seconds."""

    answers: int
    per_second: float
    p50_s: float
    p99_s: float
    not_200: int
    broken: int


async def generate(url: str, template: bytes, connections: int, seconds: float, count: int = 0) -> Outcome:
    """Send requests over persistent connections for some seconds.

    Args:
        url: the server's; only its host and port count.
        template: the whole request.
        count: numbers before they begin again; 0: no end.
    """
    if shutil.which("wrk"):
        return await _by_wrk(url, template, connections, seconds, count)
    print("wrk is not installed: the load is load.py's, whose own limit is lower", file=sys.stderr)
    result = await drive(url, _numbered(template, count), connections, seconds)
    return Outcome(len(result.latencies), result.per_second, result.percentile(0.5), result.percentile(0.99), result.failures, 0)


async def measure(
    workload: str, pids: Sequence[int], url: str, template: bytes, connections: int, seconds: float, *, count: int = 0
) -> tuple[list[Row], Outcome]:
    """Load a server and return the usual figures: rate, p50, p99, CPU per request, resident memory.

    Args:
        pids: whose CPU and memory that is, together: the server's, and those of all that serve with it.

    Raises:
        RuntimeError: an answer was not 200, or a connection broke.
    """
    before = usage(*pids)
    outcome = await generate(url, template, connections, seconds, count)
    after = usage(*pids)
    if outcome.not_200 or outcome.broken or not outcome.answers:
        raise RuntimeError(f"{workload}: of {outcome.answers} answers {outcome.not_200} were not 200, {outcome.broken} broke")
    return (
        [
            (workload, "rate", "1/s", outcome.per_second),
            (workload, "p50", "ms", 1000 * outcome.p50_s),
            (workload, "p99", "ms", 1000 * outcome.p99_s),
            (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / outcome.answers),
            (workload, "resident", "MB", after.resident / 1e6),
        ],
        outcome,
    )


async def _by_wrk(url: str, template: bytes, connections: int, seconds: float, count: int) -> Outcome:
    with tempfile.NamedTemporaryFile() as file:
        file.write(template)
        file.flush()
        words = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(SCRIPT), url, "--", file.name)
        process = await asyncio.create_subprocess_exec("wrk", *words, str(count), stdout=asyncio.subprocess.PIPE)
        said = (await asyncio.wait_for(process.communicate(), seconds + 60))[0].decode()
    line = next((line for line in said.splitlines() if line.startswith("BENCH ")), None)
    if line is None:
        raise RuntimeError(f"wrk failed:\n{said}")
    requests, duration_us, p50_us, p99_us, not_200, broken = map(int, line.split()[1:])
    return Outcome(requests, requests / duration_us * 1e6, p50_us / 1e6, p99_us / 1e6, not_200, broken)


def _numbered(template: bytes, count: int) -> Iterator[bytes]:
    numbers = itertools.cycle(range(count)) if count else itertools.count()
    return (template.replace(NUMBER, b"%08d" % number) for number in numbers)
