"""`scripts/faults NAME [--quick]`: runs the fault suites and prints their figures."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "process"))
sys.path.insert(0, str(Path(__file__).parent))

import failing
import guarded
import history
import million
import nats_lab
import powercut
import registry_replicas
import replicas
import syscalls
from loop_disk import cannot_mount
from report import Report
from tracer import can_trace
from wire import cannot_wire

Suite = Callable[[Path], Report]

FAILING_CALLS = ("fdatasync", "fsync", "openat", "rename", "unlink", "ftruncate")
SPOOL_SYNC = {"PILLION_SPOOL_SYNC": "always"}
OS_SYNC = {"PILLION_LOG_SYNC": "os"}


def suites(name: str, quick: bool, lines: int) -> Iterator[Suite]:
    """Return the runs of one name, each to be given a folder."""
    rare, few = (8, 15) if quick else (1, 300)
    cuts = 3 if quick else 50
    if name == "million":
        yield lambda folder: million.run(million.QUICK if quick else million.Plan(lines=lines), folder)
    if name == "syscalls":
        yield lambda folder: syscalls.run(syscalls.Plan("log", points=few, every=rare), folder)
        yield lambda folder: syscalls.run(
            syscalls.Plan("log", points=5 if quick else 100, every=rare, error="EIO", calls=FAILING_CALLS), folder
        )
        yield lambda folder: syscalls.run(syscalls.Plan("crowded log", points=10 if quick else 100, every=2 * rare), folder)
        for mode in ("interval", "os"):  # what is written survives the program, whether it is on the disk or not
            plan = syscalls.Plan("log", points=5 if quick else 40, every=4 * rare, env={"PILLION_LOG_SYNC": mode})
            yield partial(syscalls.run, plan)
        yield lambda folder: syscalls.run(syscalls.Plan("registry", points=10 if quick else 100, every=rare), folder)
        yield lambda folder: syscalls.run(syscalls.Plan("sidecar", points=10 if quick else 80, every=rare), folder)
        yield lambda folder: syscalls.run(syscalls.Plan("cut off sidecar", points=5 if quick else 40, every=2 * rare), folder)
    if name == "failing":
        yield lambda folder: failing.run(folder)
    if name == "nats":
        for plan in (replicas.QUICK,) if quick else (replicas.ONE_KILL, replicas.Plan()):
            yield partial(replicas.run, plan)
    if name in ("replicas", "history"):
        yield from registries(name, quick)
    if name == "powercut":
        yield lambda folder: powercut.run(powercut.Plan("log", runs=cuts), folder)
        yield lambda folder: powercut.run(powercut.Plan("registry", runs=cuts), folder)
        yield lambda folder: powercut.run(powercut.Plan("cut off sidecar", runs=3 if quick else 20, env=SPOOL_SYNC), folder)
    if name == "guard":
        for plan in guarded.QUICK if quick else guarded.PLANS:
            yield partial(guarded.run, plan)


def registries(name: str, quick: bool) -> Iterator[Suite]:
    """Return the runs with three registries."""
    if name == "history":
        for one in (history.QUICK,) if quick else (history.Plan(), history.CROWDED):
            yield partial(history.run, one)
        return
    for plan in (registry_replicas.QUICK,) if quick else registry_replicas.PLANS:
        yield partial(registry_replicas.run, plan)


def teeth() -> Iterator[Suite]:
    """Return the runs that must be broken, for the program is."""
    yield lambda folder: million.run(million.QUICK_WITHOUT_DEDUPE, folder)
    yield lambda folder: syscalls.run(syscalls.Plan("log", points=0, every=6, sabotage="early-ack"), folder)
    yield lambda folder: syscalls.run(syscalls.Plan("log", points=0, every=6, sabotage="no-dedupe"), folder)
    yield lambda folder: syscalls.run(syscalls.Plan("registry", points=0, every=3, sabotage="registry-early-ack"), folder)
    yield lambda folder: failing.run(folder, "deaf-to-errors")
    yield lambda folder: replicas.run(replicas.EARLY_ACK, folder)
    yield lambda folder: history.run(history.EARLY_ACK, folder)
    yield lambda folder: registry_replicas.run(registry_replicas.FORGETFUL, folder)
    yield lambda folder: powercut.run(powercut.Plan("log", runs=3, env=OS_SYNC), folder)
    yield lambda folder: powercut.run(powercut.Plan("registry", runs=3, sabotage="registry-no-sync"), folder)
    for plan in guarded.TEETH:
        yield partial(guarded.run, plan)


NAMES = ("million", "syscalls", "failing", "powercut", "guard", "nats", "replicas", "history")


def lacking(name: str, quick: bool = False) -> str:
    """Return why a suite cannot run here, and how to get what it lacks; empty if it can."""
    if name in ("syscalls", "failing", "teeth", "all") and (why := can_trace()):
        return f"{why} (Debian: apt-get install strace)"
    if name in ("nats", "replicas", "history", "teeth", "all") and not nats_lab.PROGRAM:
        return "there is no nats-server beside this Python (scripts/venv installs it)"
    if name in ("powercut", "teeth", "all"):
        with tempfile.TemporaryDirectory(prefix="pillion-faults-") as scratch:
            if why := cannot_mount(Path(scratch)):
                return why
    if (name in ("guard", "teeth", "all") or (name == "replicas" and not quick)) and (why := cannot_wire()):
        return why
    # Only the clock that jumps needs it, which neither the short version nor the teeth have.
    if name in ("guard", "all") and not quick and not guarded.FAKETIME.exists():
        return f"libfaketime is not installed: there is no {guarded.FAKETIME} (Debian: apt-get install libfaketime, or run .ci/packages)"
    return ""


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/faults")
    parser.add_argument("name", choices=(*NAMES, "teeth", "all"))
    parser.add_argument("--quick", action="store_true", help="a short version, of seconds")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of million")
    asked = parser.parse_args()
    if why := lacking(asked.name, asked.quick):
        print(f"scripts/faults: {asked.name} cannot run here: {why}", file=sys.stderr)
        return 1
    good = True
    guards: list[Report] = []
    for name in NAMES if asked.name == "all" else (asked.name,) if asked.name != "teeth" else ():
        for suite in suites(name, asked.quick, asked.lines):
            report = _one(suite)
            good = report.good and good
            guards += [report] if name == "guard" else []
    for suite in teeth() if asked.name in ("teeth", "all") else ():
        if _one(suite).good:
            print("  fault: that was sabotaged, and nothing was noticed", flush=True)
            good = False
    if guards:
        print(guarded.table(guards), flush=True)
    return 0 if good else 1


def _one(suite: Suite) -> Report:
    folder = Path(tempfile.mkdtemp(prefix="pillion-faults-"))
    report = suite(folder)
    print(report, flush=True)
    if report.good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"  what was left behind: {folder}", flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
