"""What the benches need of the machine: who runs on which CPU, what a process has used, how many files may be open, a folder on a disk.

Servers run on the first CPU, load and everything else of the harness on the second; with one CPU nothing is pinned.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OPEN_FILES = 60_000
TICKS = os.sysconf("SC_CLK_TCK")

_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = _CPUS[0], _CPUS[min(1, len(_CPUS) - 1)]


class Usage(NamedTuple):
    """What a process has used so far: CPU seconds, and bytes now. `shared_out` is its resident set with shared pages divided (Pss)."""

    cpu_s: float
    resident: int
    shared_out: int


def usage(*pids: int) -> Usage:
    """Read the CPU time and memory of a process, or of several together, from /proc."""
    return Usage(*map(sum, zip(*map(_usage, pids), strict=True)))


def _usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    sizes = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name: int(size.split()[0]) for name, size in sizes.items()}
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, 1024 * kilobytes["Rss"], 1024 * kilobytes["Pss"])


def scheduled_s(*pids: int) -> float:
    """Return the CPU seconds of the present threads of processes, exact to the nanosecond where `usage` counts ticks."""
    threads = (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


def pin_harness() -> None:
    """Keep this process, and what it starts from now on, off the servers' CPU."""
    os.sched_setaffinity(0, {LOAD_CPU})


@contextlib.contextmanager
def on_server_cpu() -> Iterator[None]:
    """Let what is started in this block run on the servers' CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_files() -> int:
    """Raise the limit of open files as far as it goes, for children too; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(OPEN_FILES, hard) if hard != resource.RLIM_INFINITY else OPEN_FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """Return a TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def disk_folder() -> Iterator[Path]:
    """Make a folder on a real disk: what is durable in memory only is no measurement. PILLION_BENCH_DIR names another place.

    Raises:
        RuntimeError: the place is in memory.
    """
    place = os.environ.get("PILLION_BENCH_DIR", "/var/tmp")
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    kind = max((len(point), kind) for point, kind in mounts if Path(place).resolve().is_relative_to(point))[1]
    if kind in ("tmpfs", "ramfs"):
        raise RuntimeError(f"{place} is a {kind}: set PILLION_BENCH_DIR to a folder on a disk")
    with tempfile.TemporaryDirectory(dir=place, prefix="pillion-bench-") as folder:
        yield Path(folder)
