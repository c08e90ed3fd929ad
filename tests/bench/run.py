"""`scripts/bench NAME`: runs a benchmark's rounds, ours and each peer in turn, and prints medians with minimum and maximum.

Names: lookup register propagate steady death log footprint; all (these seven); query tails scale; smoke; soak; rolling outage wiped herd.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

# Programs start from compiled bytecode, as they do in their images, also where this environment says that none is to be written.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / "pillion-bench-bytecode"))

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "process")]

import uvloop  # noqa: E402
from figures import OURS, Figure, Row, Scale, markdown, summarise, table  # noqa: E402
from machine import allow_files, pin_harness  # noqa: E402
from peers import classic, consul, etcd, nats, redis, zookeeper  # noqa: E402

ROUNDS = 3
ALL = ("lookup", "register", "propagate", "steady", "death", "log", "footprint")
MODULES = {"log": "log_lines"}
ONCE = {("death", classic.NAME)}  # takes five minutes
NAMES = (*ALL, "all", "query", "tails", "scale", "smoke", "soak", "rolling", "outage", "wiped", "herd")
SINGLE = ("query", "tails", "scale", "soak", "rolling", "outage", "wiped", "herd")  # one round says enough
INSTALLED: dict[str, Callable[[], bool]] = {
    **{peer.NAME: peer.installed for peer in (nats, classic, consul, etcd, redis, zookeeper)},
    **{peer.THREE: peer.installed for peer in (nats, consul, etcd)},
    nats.UNSYNCED: nats.installed,
}

Measure = Callable[[Scale], Awaitable[list[Row]]]


class Bench:
    """The figures of all rounds, and what went wrong on the way."""

    def __init__(self, scale: Scale, peers: list[str], rounds: int) -> None:
        self._scale = scale
        self._peers = peers
        self._rounds = rounds
        self.figures: list[Figure] = []
        self.faults: list[str] = []

    def run(self, name: str) -> None:
        """Run one benchmark: a round is ours and then each peer."""
        measures = _measures(name)
        for number in range(1, self._rounds + 1):
            for peer in [OURS, *(peer for peer in self._peers if peer in measures)]:
                if number > 1 and (name, peer) in ONCE:
                    continue
                _say(f"{name}: round {number} of {self._rounds}, {peer}")
                self._measure(name, peer, measures[peer], number)

    def _measure(self, name: str, peer: str, measure: Measure, number: int) -> None:
        started = time.monotonic()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows = runner.run(_one(measure, self._scale))
        except (AssertionError, OSError, RuntimeError, TimeoutError, asyncio.CancelledError) as exc:
            self.faults.append(f"{name}, {peer}, round {number}: {exc!r}")
            traceback.print_exc()
        else:
            self.figures += [Figure(workload, peer, metric, unit, value) for workload, metric, unit, value in rows]
            _say(f"  took {time.monotonic() - started:.1f} s")


async def _one(measure: Measure, scale: Scale) -> list[Row]:
    """Run one measurement; an error in a callback of the loop's fails it, for what it counted is then wrong."""
    faults: list[str] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), ConnectionError):
            faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    asyncio.get_running_loop().set_exception_handler(note)
    rows = await measure(scale)
    await asyncio.sleep(0.01)  # connections let go are closed
    if faults:
        raise RuntimeError(f"{len(faults)} errors on the way, the first: {faults[0]}")
    return rows


def _measures(name: str) -> dict[str, Measure]:
    if name == "smoke":
        import smoke

        async def one_round(scale: Scale) -> list[Row]:
            return await asyncio.to_thread(smoke.one_round, scale.seconds)

        return {OURS: one_round}
    pin_harness()
    allow_files()
    measures: dict[str, Measure] = importlib.import_module(MODULES.get(name, name)).PEERS
    return measures


def _chosen(wanted: str | None) -> list[str]:
    """Return the peers to compare with, and name those that are not installed."""
    asked = list(INSTALLED) if wanted is None else [peer for peer in wanted.split(",") if peer]
    if unknown := set(asked) - set(INSTALLED):
        raise SystemExit(f"scripts/bench: no such peer: {', '.join(sorted(unknown))}; there are {', '.join(INSTALLED)}")
    for peer in asked:
        if not INSTALLED[peer]():
            _say(f"{peer}: not installed (see docs/benchmarks.md)")
    return [peer for peer in asked if INSTALLED[peer]()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(path: Path | None, rows: Iterable[dict[str, object]]) -> None:
    if path:
        path.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Run benchmarks; returns 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="short, and one round only: about a minute for each, less without peers")
    parser.add_argument("--full", action="store_true", help="steady: also 15,000 and 20,000 instances")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds (default {ROUNDS}; with --quick 1)")
    parser.add_argument("--replicas", type=int, default=0, metavar="N", help="scale: so many registries on three NATS servers")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="soak: how long (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/benchmarks.md has it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--peers", metavar="A,B", help=f"compare with these only, of {','.join(INSTALLED)} (default: all installed)")
    which.add_argument("--no-peers", dest="peers", action="store_const", const="", help="ours alone")
    words = parser.parse_args()
    # A failed measurement may leave connections behind; as an error that warning would keep uvloop from closing its loop, for ever.
    warnings.simplefilter("ignore", ResourceWarning)
    gc.disable()  # the harness's own pauses are nobody's latency
    smoke = words.name == "smoke"
    rounds = words.rounds or (1 if words.name in SINGLE or (words.quick and not smoke) else ROUNDS)
    bench = Bench(Scale(words.quick, words.full, words.minutes, words.replicas), [] if smoke else _chosen(words.peers), rounds)
    for name in ALL if words.name == "all" else (words.name,):
        bench.run(name)
        _write(words.json, summarise(bench.figures))
    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    print((markdown if words.markdown else table)(summarise(bench.figures)))
    for fault in bench.faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
