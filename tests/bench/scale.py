"""scale: what N sidecars cost one registry, at three sizes, and the straight lines through that. docs/scale.md says what follows from them.

Ten instances are of one service, each requires three others: so a service has 30 dependents. Some services more are required by the first
100, by the first 1,000, by all, and by one instance of each service: one provider of each comes and goes again. Dependents that require the
same are told the same, which is planned and encoded once: ten share it, but none do where one of each service is told ("unlike").

With replicas the same fleet registers at all of them in turn. CPU and memory are then those of all replicas together, with each one's share
beside it; what the NATS servers use is told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from crowd import Crowd, register, settle
from figures import OURS, Row, Scale, percentile
from load import Caller, call, request
from machine import disk_folder, scheduled_s, usage
from ours import Fleet, registry, replicas
from steady import INTERVAL_S, watch

SIZES, QUICK_SIZES = (1_000, 5_000, 10_000), (500, 1_000, 2_000)
OF_A_SERVICE = 10
REQUIRED = 3
FEW, MANY = 100, 1_000  # dependents of a service that changes
PROVIDER = 1_000_000  # its number in the crowd
PAUSE_S = 0.5
LIMIT_S = 20.0
CONNECTIONS = 32
OWNED = re.compile(rb"^pillion_registry_owned (\S+)", re.MULTILINE)


class Told(NamedTuple):
    """A service that changes, and the instances that require it."""

    what: str
    who: range

    @property
    def name(self) -> str:
        """The service's name."""
        return "".join(word.capitalize() for word in self.what.replace(",", "").split())


class Point(NamedTuple):
    """One measurement: y was seen at x."""

    x: float
    y: float


class Line(NamedTuple):
    """A straight line through some points: what is there at 0, what each one adds, and the share by which it misses a point at most."""

    base: float
    each: float
    off: float


class Costs(NamedTuple):
    """What the sizes have cost so far."""

    cpu: list[Point]  # percent of a core at so many instances
    resident: list[Point]  # bytes at so many instances
    change: list[Point]  # CPU seconds of a change told to so many dependents


def fit(points: Iterable[Point]) -> Line:
    """Return the line whose errors are least as shares of what was seen (weighted least squares)."""
    given = [(x, y, 1 / y**2) for x, y in points]
    weight = sum(w for _, _, w in given)
    mean_x, mean_y = (sum(w * one[axis] for one, w in ((one, one[2]) for one in given)) / weight for axis in (0, 1))
    spread = sum(w * (x - mean_x) ** 2 for x, _, w in given)
    each = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in given) / spread
    base = mean_y - each * mean_x
    return Line(base, each, max(abs(base + each * x - y) / y for x, y, _ in given))


async def pillion(scale: Scale) -> list[Row]:
    costs = Costs([], [], [])
    rows: list[Row] = []
    for count in QUICK_SIZES if scale.quick else SIZES:
        rows += await _at(count, scale, costs)
    for metric, unit, factor, points in (
        ("cpu", "% of a core", 1.0, costs.cpu),
        ("resident", "MB", 1e-6, costs.resident),
        ("cpu of a change", "ms", 1e3, costs.change),
    ):
        line = fit(points)
        rows += [
            ("scale, lines", f"{metric} at 0", unit, factor * line.base),
            ("scale, lines", f"{metric}, 1,000 more", unit, factor * 1000 * line.each),
            ("scale, lines", f"{metric}, off by", "%", 100 * line.off),
        ]
    return rows


async def _at(count: int, scale: Scale, costs: Costs) -> list[Row]:
    """Measure one size, and note what it cost."""
    workload = f"scale {count:,}"
    with disk_folder() as folder, _registries(folder, scale.replicas) as fleet:
        async with Crowd() as crowd:
            used_s, began = scheduled_s(*fleet.pids), time.perf_counter()
            await _come_in(fleet, crowd, count)
            rows: list[Row] = [(workload, "time to come in", "s", time.perf_counter() - began)]
            await settle(crowd, count)
            await _quiet(crowd)
            used_s = scheduled_s(*fleet.pids) - used_s
            rows.append((workload, "cpu to come in", "us each", 1e6 * used_s / count))
            beats, read, sent = crowd.beats, crowd.read, crowd.sent
            each = {pid: scheduled_s(pid) for pid in (*fleet.pids, *fleet.nats_pids)}
            began = time.perf_counter()
            steady = await watch(workload, fleet.pids, crowd, count, scale)
            seconds = time.perf_counter() - began
            each = {pid: 100 * (scheduled_s(pid) - before_s) / seconds for pid, before_s in each.items()}
            beats = crowd.beats - beats
            asked, answered = (crowd.read - read) / beats, (crowd.sent - sent) / beats
            figures = {metric: value for _, metric, _, value in steady}
            costs.cpu.append(Point(count, figures["cpu"]))
            costs.resident.append(Point(count, usage(*fleet.pids).resident))
            rows += await _shares(workload, fleet, each) if fleet.nats_pids else []
            rows += [
                *steady,
                (workload, "bytes per check", "B", asked + answered),
                (workload, "bytes of checks", "kB/s", figures["checks"] * (asked + answered) / 1e3),
            ]
            for told in _told(count):
                change = await _change(fleet, crowd, told, figures["cpu"] / 100, asked, scale)
                if told.who.step == 1:
                    costs.change.append(Point(len(told.who), change[0][3] / 1e3))
                rows += change
            return [*rows, *await _list(workload, fleet)]


@contextlib.contextmanager
def _registries(folder: Path, count: int) -> Iterator[Fleet]:
    """Run one registry on SQLite, or so many replicas on NATS."""
    words = ("--heartbeat-interval", f"{INTERVAL_S:g}s")
    if count:
        with replicas(folder, count, *words) as fleet:
            yield fleet
    else:
        with registry(*words, store=f"sqlite:{folder}/registry.db") as server:
            yield Fleet([server], [])


async def _come_in(fleet: Fleet, crowd: Crowd, count: int) -> None:
    """Register all, in turn at each registry."""
    bodies = list(_registrations(crowd, count))
    parts = [islice(bodies, at, None, len(fleet.registries)) for at in range(len(fleet.registries))]
    connections = CONNECTIONS // len(parts)
    await asyncio.gather(*(register(one.url, part, connections) for one, part in zip(fleet.registries, parts, strict=True)))


async def _shares(workload: str, fleet: Fleet, cpu: dict[int, float]) -> list[Row]:
    """Return what each replica does of the whole, and what the NATS servers use.

    Args:
        cpu: percent of a core, by pid.
    """
    rows: list[Row] = []
    for number, (one, pid) in enumerate(zip(fleet.registries, fleet.pids, strict=True), 1):
        owned = OWNED.search(await call("GET", f"{one.url}/metrics"))
        rows += [
            (workload, f"replica {number}, cpu", "% of a core", cpu[pid]),
            (workload, f"replica {number}, resident", "MB", usage(pid).resident / 1e6),
            *([(workload, f"replica {number}, checks", "instances", float(owned[1]))] if owned else []),
        ]
    return [
        *rows,
        (workload, "NATS, cpu", "% of a core", sum(cpu[pid] for pid in fleet.nats_pids)),
        (workload, "NATS, resident", "MB", usage(*fleet.nats_pids).resident / 1e6),
    ]


def _told(count: int) -> list[Told]:
    """Return the services that change, in a fleet of so many."""
    sizes = sorted({FEW, min(MANY, count), count})
    unlike = range(0, count, OF_A_SERVICE)
    return [*(Told(f"told to {size:,}", range(size)) for size in sizes), Told(f"told to {len(unlike):,} unlike", unlike)]


def _registrations(crowd: Crowd, count: int) -> Iterator[bytes]:
    services = count // OF_A_SERVICE
    targets = _told(count)
    for index in range(count):
        service = index // OF_A_SERVICE
        required = [f"Service{(service * 7 + step * 11 + 1) % services}" for step in range(REQUIRED)]
        required += [told.name for told in targets if index in told.who]
        yield crowd.registration(index, f"Service{service}", required, Zone=f"zone-{index % 3}", Version="1.4.2")


async def _quiet(crowd: Crowd) -> None:
    """Wait until the crowd is told nothing new.

    Raises:
        TimeoutError: that takes too long.
    """
    async with asyncio.timeout(LIMIT_S):
        patches = -1
        while patches != crowd.patches:
            patches = crowd.patches
            await asyncio.sleep(PAUSE_S)


async def _change(fleet: Fleet, crowd: Crowd, told: Told, share: float, asked: float, scale: Scale) -> list[Row]:
    """Let a provider come and go, and see what that costs above what the checks cost meanwhile.

    Args:
        share: of a core that the checks take.
        asked: bytes of a check's request.
    """
    caller = await Caller.connect(fleet.url)
    url, dependents = crowd.url(PROVIDER), len(told.who)
    come = request("POST", f"{fleet.url}/services", crowd.registration(PROVIDER, told.name))
    go = request("DELETE", f"{fleet.url}/services", url.encode(), "text/plain")
    took: list[float] = []
    repeats = 3 if scale.quick else 10
    used_s, began = scheduled_s(*fleet.pids), time.perf_counter()
    patches, read, beats = crowd.patches, crowd.read, crowd.beats
    for _ in range(repeats):
        for said, added, removed in ((come, url, None), (go, None, url)):
            expected = crowd.expect(told.who, added, removed)
            started = time.perf_counter()
            status, answer = await caller.send(said)
            if status != 200:
                raise RuntimeError(f"the provider's request was answered {status}: {answer[:300]!r}")
            took.append(await expected.wait(LIMIT_S) - started)
            crowd.forget(expected)
            await asyncio.sleep(PAUSE_S)
    seconds = time.perf_counter() - began
    each_s = max(0.0, scheduled_s(*fleet.pids) - used_s - share * seconds) / (2 * repeats)
    patches, read, beats = crowd.patches - patches, crowd.read - read, crowd.beats - beats
    caller.close()
    if patches < 2 * repeats * dependents:
        raise RuntimeError(f"{told.what}: {patches} patches came where {2 * repeats * dependents} were due")
    return [
        (told.what, "cpu of a change", "ms", 1e3 * each_s),
        (told.what, "cpu per patch", "us each", 1e6 * each_s / dependents),
        (told.what, "last knows, p50", "ms", 1e3 * percentile(took, 0.5)),
        (told.what, "last knows, max", "ms", 1e3 * max(took)),
        (told.what, "bytes per patch", "B", (read - beats * asked) / patches),
    ]


async def _list(workload: str, fleet: Fleet) -> list[Row]:
    """Measure what one reads who wants to see everybody."""
    began = time.perf_counter()
    body = await call("GET", f"{fleet.url}/services")
    return [(workload, "list of all", "MB", len(body) / 1e6), (workload, "list of all, time", "ms", 1e3 * (time.perf_counter() - began))]


PEERS = {OURS: pillion}
