"""What must withdraw nobody: hangs of many, a registry that is cut off or stands still, a clock that jumps, lost packets.

Some 200 instances of 25 services (one large, four of 15, twenty single ones) and ten dependents are played by this process, in three
crowds: those that stay *well*, those that fall *sick* (hang or refuse), and those that *die* on the way. Counted are withdrawals of who
lives, and how long the registry takes to withdraw who does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from report import Report
from wire import Wire

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from crowd import Crowd, register, settle
from load import call
from programs import START_S, Program, eventually

LAUNCHER = str(Path(__file__).with_name("launch.py"))
FAKETIME = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1")
INTERVAL_S, TIMEOUT_S, MISSES, RETRY_S = 3.0, 2.0, 2, 0.2
DEPENDENTS = 10
LEAST = 4  # instances of a service that the guard looks at
WATCHERS, CLOCK = 100_000, 200_000  # the number of the first dependent, and of what tells the registry's time
GUARD_S = 60.0
AWAKE_S = 0.5  # after a pause, until the others go on
# design.md: two time-outs in a row withdraw; one more where several services fall silent at once.
SILENT_S = INTERVAL_S + (MISSES + 1) * (TIMEOUT_S + RETRY_S)
REFUSED_S = 2.0  # a hundred at once, beside everything else on this machine
LOSSY_S = 12 * (TIMEOUT_S + RETRY_S) + INTERVAL_S  # patience asks for 12 time-outs at most
TABLES_S = 15.0  # a patch is tried again after 10 s at most


@dataclass(frozen=True)
class Plan:
    """One scenario.

    Args:
        what: "hang", "hang for good", "refuse", "cut", "pause", "jump" or "loss".
        share: of the instances that fall sick, or of the packets that are lost.
        seconds: how long it lasts.
        wrong: the share of living instances that may be withdrawn.
        sabotage, words: of the registry, for the teeth.
    """

    what: str
    share: float = 0.0
    seconds: float = 30.0
    instances: int = 200
    wrong: float = 0.0
    sabotage: str = ""
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        share = f"{self.share:.0%} " if self.share else ""
        lasts = f" for {self.seconds:g} s" if self.what in ("hang", "cut", "pause", "loss") else ""
        return " ".join((f"{share}{self.what}{lasts}", *self.words, *([f"({self.sabotage})"] if self.sabotage else [])))


UNGUARDED = ("--guard-share", "0")
UNFORGIVING = (*UNGUARDED, "--heartbeat-misses", "1")  # nothing but the lag meter keeps anybody
PLANS = (
    Plan("hang for good", 0.2),
    Plan("hang", 0.6),
    Plan("hang for good", 0.6),
    Plan("refuse", 0.6),
    Plan("cut"),
    Plan("pause", seconds=20.0),
    Plan("pause", seconds=20.0, words=UNFORGIVING),
    Plan("pause", seconds=300.0),
    Plan("jump"),
    Plan("loss", 0.1, 60.0),
    Plan("loss", 0.3, 60.0, wrong=0.01),
)
QUICK = (Plan("hang", 0.6, 10.0, 40), Plan("refuse", 0.6, instances=40))
TEETH = (
    Plan("hang", 0.6, words=UNGUARDED),
    Plan("cut", words=UNGUARDED),
    Plan("loss", 0.3, 60.0, wrong=0.01, words=UNGUARDED),
    Plan("pause", seconds=20.0, words=UNFORGIVING, sabotage="registry-deaf-to-lag"),
)
QUICK_TEETH = Plan("hang", 0.6, 9.0, 40, words=UNGUARDED)


@dataclass
class _Scene:
    """The registry and the crowds."""

    plan: Plan
    running: Program
    wire: Wire | None
    clock: Path
    well: Crowd
    sick: Crowd
    dying: Crowd
    urls: dict[str, list[str]] = field(default_factory=lambda: {"well": [], "sick": [], "dying": []})
    down_at: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)

    async def watch(self) -> None:
        """Note when the registry withdraws whom, for ever."""
        seen = 0
        while True:
            for event in self.running.events("instance_down")[seen:]:
                self.down_at.setdefault(event["url"], time.monotonic())
                seen += 1
            await asyncio.sleep(0.05)

    def ports(self) -> list[int]:
        return [self.well.port, self.sick.port, self.dying.port]


def services(instances: int) -> list[tuple[str, int]]:
    """Return names and sizes: single instances, four of middle size, the rest one large service."""
    single, middle = instances // 10, max(4, instances * 15 // 200)
    large = instances - single - 4 * middle
    return [("Large", large), *((f"Middle{n}", middle) for n in range(4)), *((f"Single{n}", 1) for n in range(single))]


def run(plan: Plan, folder: Path) -> Report:
    """Play a scenario."""
    return asyncio.run(_play(plan, folder))


async def _play(plan: Plan, folder: Path) -> Report:
    report = Report(f"guard: {plan}")
    with ExitStack() as stack:
        wire = stack.enter_context(Wire()) if plan.what in ("cut", "loss") else None
        clock = folder / "clock"
        clock.write_text("+0s\n")
        host = wire.host if wire else "127.0.0.1"
        crowds = [Crowd(tables=True) for _ in range(3)]
        for crowd in crowds:
            crowd.start(host)
            stack.callback(crowd.stop)
        running = stack.enter_context(_registry(plan, folder, wire, clock))
        scene = _Scene(plan, running, wire, clock, *crowds)
        await _fill(scene)
        watching = asyncio.create_task(scene.watch())
        try:
            await _FAULTS[plan.what](scene, report)
            await _compare_tables(scene, report)
        finally:
            watching.cancel()
        _count(scene, report)
    return report


@contextmanager
def _registry(plan: Plan, folder: Path, wire: Wire | None, clock: Path) -> Iterator[Program]:
    """Run the registry of a plan: as the guest of a wire, with a clock that can be set, sabotaged."""
    env = {}
    if plan.what == "jump":
        env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
        env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # no clock that is set changes that one
    begin = (*(wire.words if wire else ()), sys.executable, LAUNCHER, "registry", plan.sabotage, "--")
    words = ("--listen", f"{wire.guest if wire else '127.0.0.1'}:0", "--store", f"sqlite:{folder}/registry.db", "--log-to", "")
    running = Program((*words, *plan.words), env, begin)
    try:
        eventually(lambda: running.addresses, START_S)
        yield running
    finally:
        running.stop()


async def _fill(scene: _Scene) -> None:
    """Register everybody, and wait until all are up and all dependents know them."""
    plan, number = scene.plan, 0
    bodies: dict[str, list[bytes]] = {"well": [], "sick": [], "dying": []}
    crowds = {"well": scene.well, "sick": scene.sick, "dying": scene.dying}
    owed = 0.0
    for name, size in services(plan.instances):
        for place in range(size):
            owed += plan.share if plan.what in _SICKENING and size >= LEAST else 0.0
            kind = "sick" if owed >= 1 else "dying" if name == "Large" and place < size // 10 and plan.what not in _SICKENING else "well"
            owed -= kind == "sick"
            scene.urls[kind].append(crowds[kind].url(number))
            bodies[kind].append(crowds[kind].registration(number, name))
            number += 1
    names = [name for name, _ in services(plan.instances)]
    bodies["well"] += [scene.well.registration(WATCHERS + n, "Watcher", names) for n in range(DEPENDENTS)]
    for kind, some in bodies.items():
        await register(scene.running.url, some, connections=8)
        await settle(crowds[kind], len(some))
    await _until(lambda: all(_known(scene, url) == DEPENDENTS for urls in scene.urls.values() for url in urls), TABLES_S)
    await asyncio.sleep(INTERVAL_S)


def _known(scene: _Scene, url: str) -> int:
    return len(scene.well.knowing(url))


async def _until(true: Callable[[], bool], timeout_s: float) -> bool:
    ends = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.05)
    return True


# The faults. Each ends when what must be withdrawn has been, or its time is over.


async def _hang(scene: _Scene, report: Report) -> None:
    scene.sick.fall_silent()
    await asyncio.sleep(scene.plan.seconds)
    scene.sick.answer_again()
    await asyncio.sleep(SILENT_S)


async def _hang_for_good(scene: _Scene, report: Report) -> None:
    scene.sick.fall_silent()
    guarded = scene.plan.share >= 0.5
    first_s = await _expect_dead(scene, report, scene.urls["sick"], SILENT_S + (GUARD_S if guarded else 0.0))
    if guarded and first_s < GUARD_S:
        report.fault(f"one that is to be kept for {GUARD_S:g} s was withdrawn after {first_s:.1f} s")


async def _refuse(scene: _Scene, report: Report) -> None:
    scene.sick.stop()
    await _expect_dead(scene, report, scene.urls["sick"], REFUSED_S)
    await asyncio.sleep(SILENT_S)


async def _cut(scene: _Scene, report: Report) -> None:
    assert scene.wire is not None
    scene.wire.lose(1.0, scene.ports())
    await asyncio.sleep(scene.plan.seconds / 2)
    scene.dying.stop()
    await asyncio.sleep(scene.plan.seconds / 2)
    scene.wire.heal()
    await _expect_dead(scene, report, scene.urls["dying"], SILENT_S)


async def _pause(scene: _Scene, report: Report) -> None:
    # A third of the checks are under way when it stops, and are answered only after it went on: as if the whole machine had stood still.
    scene.well.fall_silent()
    await asyncio.sleep(TIMEOUT_S / 2)
    os.kill(scene.running.process.pid, signal.SIGSTOP)
    await asyncio.sleep(scene.plan.seconds / 2)
    scene.dying.stop()
    await asyncio.sleep(scene.plan.seconds / 2)
    os.kill(scene.running.process.pid, signal.SIGCONT)
    went_on = time.monotonic()
    await asyncio.sleep(AWAKE_S)
    scene.well.answer_again()
    await _expect_dead(scene, report, scene.urls["dying"], SILENT_S, went_on)
    await asyncio.sleep(SILENT_S)


async def _jump(scene: _Scene, report: Report) -> None:
    scene.dying.stop()
    await _expect_dead(scene, report, scene.urls["dying"], REFUSED_S)
    for offset_s in (3600, -3600):
        scene.clock.write_text(f"{offset_s:+d}s\n")
        await register(scene.running.url, [scene.well.registration(CLOCK, "Clock")], connections=1)
        shown = json.loads(await call("GET", f"{scene.running.url}/services/Clock"))["Services"][0]["Registered"]
        moved_s = datetime.fromisoformat(shown).timestamp() - time.time()
        if abs(moved_s - offset_s) > 60:
            report.fault(f"the registry's clock moved by {moved_s:.0f} s, and not by {offset_s}: nothing was shown")
        report.count("clock set")
        await asyncio.sleep(scene.plan.seconds / 2)
    if forgotten := scene.running.events("instance_gone"):
        report.fault(f"{len(forgotten)} were forgotten, for the clock jumped")


async def _lose(scene: _Scene, report: Report) -> None:
    assert scene.wire is not None
    scene.wire.lose(scene.plan.share, scene.ports())
    await asyncio.sleep(scene.plan.seconds / 2)
    scene.dying.fall_silent()  # who is killed refuses, which is known sooner
    await _expect_dead(scene, report, scene.urls["dying"], LOSSY_S)
    await asyncio.sleep(scene.plan.seconds / 2)
    scene.wire.heal()
    await asyncio.sleep(SILENT_S)


_FAULTS: dict[str, Callable[[_Scene, Report], Awaitable[None]]] = {
    "hang": _hang,
    "hang for good": _hang_for_good,
    "refuse": _refuse,
    "cut": _cut,
    "pause": _pause,
    "jump": _jump,
    "loss": _lose,
}
_SICKENING = ("hang", "hang for good", "refuse")


# What is counted.


async def _expect_dead(scene: _Scene, report: Report, urls: Iterable[str], bound_s: float, since: float | None = None) -> float:
    """Wait until these are withdrawn; return after how many seconds (from now, or since then) the first was."""
    dead, started = set(urls), time.monotonic() if since is None else since
    scene.dead |= dead
    await _until(lambda: dead <= scene.down_at.keys(), bound_s)
    out = [scene.down_at[url] - started for url in dead & scene.down_at.keys()]
    report.figures |= {"dead": len(dead), "last out after, s": round(max(out, default=0.0), 1), "bound, s": round(bound_s, 1)}
    if len(out) < len(dead):
        report.fault(f"{len(dead) - len(out)} of {len(dead)} dead instances were not withdrawn within {bound_s:g} s")
    return min(out, default=0.0)


async def _compare_tables(scene: _Scene, report: Report) -> None:
    """Wait until all dependents know who lives, and nobody else."""
    everybody = {url for urls in scene.urls.values() for url in urls}

    def right() -> bool:
        return all(_known(scene, url) == (0 if url in scene.dead else DEPENDENTS) for url in everybody)

    if not await _until(right, TABLES_S):
        odd = [url for url in everybody if _known(scene, url) != (0 if url in scene.dead else DEPENDENTS)]
        report.fault(f"{len(odd)} instances are not known as they are {TABLES_S:g} s after the end, among them {odd[0]}")


def _count(scene: _Scene, report: Report) -> None:
    wrong = scene.down_at.keys() - scene.dead
    guards = scene.running.events("guard_on")
    report.figures |= {"instances": scene.plan.instances, "wrong withdrawals": len(wrong), "guards": len(guards)}
    if len(wrong) > scene.plan.wrong * scene.plan.instances:
        report.fault(f"{len(wrong)} instances that live were withdrawn, among them {min(wrong)}")


_COLUMNS = ("instances", "wrong withdrawals", "dead", "last out after, s", "bound, s", "guards", "seconds")


def table(reports: Iterable[Report]) -> str:
    """Return the figures of all scenarios, one a line."""
    lines = [f"{'scenario':<64}" + "".join(f"{column:>19}" for column in _COLUMNS) + "  promise"]
    for report in reports:
        figures = "".join(f"{report.figures.get(column, '-'):>19}" for column in _COLUMNS)
        lines.append(f"{report.suite.removeprefix('guard: '):<64}{figures}  {'kept' if report.good else 'BROKEN'}")
    return "\n".join(lines)
