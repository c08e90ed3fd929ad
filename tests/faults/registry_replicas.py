"""Three registries on three NATS servers, of which one after the other is killed, paused or cut off, while providers come and go.

This process plays the providers, and dependents of which half are classic. At any moment each change must be known to all who require
it within 5 s (of the fault, where that came later), nobody may have anything twice, and nobody who is healthy may be missing for longer
than it takes to settle a doubt. Where NATS itself has to elect, the 5 s begin when it takes writes again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cable import BACK, BOTH, THERE, leave_network
from churn import Churn, Provider
from failover import FailOver
from nats_lab import head
from players import Dependent
from processes import Died, tail
from report import Report
from trio import BUCKETS, Replica, Trio, trio
from truth import BOUND_S, Truth

AWAY_S = 10.0
BETWEEN_S = 3.0
LOOK_S = 0.1
STUCK_S = 0.5  # of this process's own loop: then it is told
TOLD_S = 8.0  # until a replica that is cut off says so
BACK_S = 15.0  # until one that was cut off is well again
WRITES_S = 30.0  # until NATS takes writes again
START_TABLES_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        what: "replica" (killed and paused in turn), "server" (a NATS server: one that follows, then the one that leads, in turn) or
            "network" (between one replica and NATS).
        rounds: how often.
    """

    what: str
    rounds: int
    dependents: int = 500
    services: int = 12
    of_each: int = 4
    required: int = 2
    per_second: float = 10.0
    sabotage: str = ""

    def __str__(self) -> str:
        broken = f" with {self.sabotage}" if self.sabotage else ""
        return f"{self.what}, {self.rounds} times, {self.dependents} dependents, {self.per_second:g} changes a second{broken}"


QUICK = Plan("replica", 3, dependents=100)
FORGETFUL = Plan("replica", 1, dependents=100, sabotage="replica-forgetful")
PLANS = (Plan("replica", 20), Plan("server", 4), Plan("network", 6))


class Scene:
    """All that runs."""

    def __init__(self, plan: Plan, report: Report, running: Trio) -> None:
        self.plan, self.report, self.trio = plan, report, running
        names = [f"Service{n}" for n in range(plan.services)]
        wanted = {n: tuple(names[(n + step) % plan.services] for step in range(plan.required)) for n in range(plan.dependents)}
        classic = {n: n % 2 == 0 for n in range(plan.dependents)}
        self.truth = Truth({f"{'classic' if classic[n] else 'second'}-{n}": wanted[n] for n in wanted})
        self.dependents = [Dependent(n, wanted[n], classic[n], self.truth) for n in wanted]
        self.resumed: float | None = None  # when a write was answered 200 that began after `since`
        self.since = float("inf")
        self.failover = FailOver(running.urls, self._on_answered)
        first, count = plan.dependents, plan.services * plan.of_each
        providers = [Provider(first + n, names[n % plan.services], classic=n % 3 == 0) for n in range(count)]
        self.providers = providers
        self.churn = Churn(providers, self.truth, self.failover, plan.per_second)
        self.longest_lag_s = 0.0

    def _on_answered(self, began: float) -> None:
        if self.resumed is None and began >= self.since:
            self.resumed = time.monotonic()

    async def look(self) -> None:
        """Look for what is wrong, for ever."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            self.longest_lag_s = max(self.longest_lag_s, now - before - LOOK_S)
            before = now
            self.truth.look(now)

    async def fill(self) -> None:
        """Register everybody, and wait until all know what they should."""
        self.truth.begin(None)
        free = asyncio.Semaphore(8)

        async def one(number: int, dependent: Dependent) -> None:
            async with free:
                await dependent.listen()
                outcome = await self.failover.write(number, "POST", "/services", dependent.words())
                if outcome.status != 200:
                    raise Died(f"{dependent.name} was answered {outcome.status}: {outcome.body.decode()[:300]}")

        await asyncio.gather(*(one(number, dependent) for number, dependent in enumerate(self.dependents)))
        await self.churn.begin()
        if not await until(lambda: self.truth.all_settled, START_TABLES_S):
            raise Died(f"the tables are not filled after {START_TABLES_S:g} s: {self.truth.open()}")

    async def settle(self, part: str) -> None:
        """Stop the changes for a moment: all tables, and all that the replicas show, must be the truth."""
        await self.churn.pause()
        await until(lambda: self.truth.all_settled, BOUND_S)
        self.truth.look(time.monotonic())
        self.truth.compare()
        up = {provider.url for provider in self.providers if provider.up}
        ours = {provider.url for provider in self.providers}
        for replica in self.trio.replicas:
            ends = time.monotonic() + BOUND_S
            while (shown := await replica.offered() & ours) != up and time.monotonic() < ends:
                await asyncio.sleep(LOOK_S)
            if shown != up:
                odd = sorted(shown ^ up)
                said = "; ".join([f"{one.name}: {await one.said_of(odd[0])}" for one in self.trio.replicas])
                found = f"shows {len(odd)} providers as they are not, among them {odd[0]}, which is {'up' if odd[0] in up else 'not up'}"
                self.report.fault(f"{part}: {replica.name} {found}; {said}")
        self.tell(part)
        self.churn.go_on()

    def tell(self, part: str) -> None:
        """Take over what was found."""
        for text in (*self.truth.faults, *self.churn.faults):
            self.report.fault(f"{part}: {text}")
        self.truth.faults.clear()
        self.churn.faults.clear()

    def figure(self, part: str, more: str = "") -> None:
        """Note how long the slowest change took since the last `begin`."""
        self.report.figures[part] = f"all told after {self.truth.slowest_s:.2f} s{more}"
        self.tell(part)

    async def writes_again(self) -> float:
        """Return after how many seconds NATS takes writes again: a registration is answered 200, and all buckets have a leader.

        Nothing is late until then.
        """
        began = self.since = time.monotonic()
        self.resumed = None
        self.truth.begin(None)
        if not await until(lambda: self.resumed is not None, WRITES_S):
            raise Died(f"no write was taken for {WRITES_S:g} s")
        cluster = self.trio.cluster
        while not await asyncio.to_thread(cluster.led, BUCKETS):
            if time.monotonic() > began + WRITES_S:
                raise Died(f"not all buckets have a leader after {WRITES_S:g} s")
            await asyncio.sleep(LOOK_S)
        again = time.monotonic()
        self.truth.begin(again)
        return again - began


def run(plan: Plan, folder: Path) -> Report:
    """Play a plan."""
    if plan.what == "network":
        leave_network()
    return asyncio.run(_play(plan, folder))


async def _play(plan: Plan, folder: Path) -> Report:
    report = Report(f"replicas: {plan}")
    async with trio(folder, cables=plan.what == "network", sabotage=plan.sabotage) as running:
        scene = Scene(plan, report, running)
        try:
            async with _watched(scene):
                for number in range(plan.rounds):
                    part = await _FAULTS[plan.what](scene, number)
                    await scene.settle(part)
        except Died as exc:
            scene.tell("before it ended")
            report.fault(f"{exc}; {tail(running.replicas[0].log)}")
        _count(scene)
    return report


@asynccontextmanager
async def _watched(scene: Scene) -> AsyncIterator[None]:
    """Play the crowd, with changes all the time, and look at it."""
    looking = asyncio.create_task(scene.look())
    try:
        await scene.fill()
        scene.truth.begin(time.monotonic())
        changing = asyncio.create_task(scene.churn.run())
        try:
            await asyncio.sleep(BETWEEN_S)
            scene.figure("before any fault")
            yield
            await scene.churn.pause()
        finally:
            changing.cancel()
    finally:
        looking.cancel()
        for player in (*scene.dependents, *scene.providers):
            player.die()


async def until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether it came true in time."""
    ends = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.02)
    return True


# The faults. Each returns its name once all is whole again.


async def _replica(scene: Scene, number: int) -> str:
    replica, killed = scene.trio.replicas[number % 3], number % 2 == 0
    part = f"{number + 1:2}: {replica.name} {'killed' if killed else 'paused'}"
    scene.truth.begin(time.monotonic())
    if killed:
        replica.kill()
    else:
        replica.signal(signal.SIGSTOP)
    await asyncio.sleep(AWAY_S)
    scene.figure(part)
    scene.truth.begin(time.monotonic())
    if killed:
        replica.member.start()
    else:
        replica.signal(signal.SIGCONT)
    ready_s = await replica.until_ready(BACK_S)
    await asyncio.sleep(BOUND_S)
    scene.figure(f"{part}, and {'started' if killed else 'woken'}", f", ready after {ready_s:.2f} s")
    return part


async def _server(scene: Scene, number: int) -> str:
    cluster = scene.trio.cluster
    leads = number % 2 == 1
    victim = (await asyncio.to_thread(cluster.victims, "leader" if leads else "follower"))[0]
    first = " and leads JetStream itself" if await asyncio.to_thread(head, cluster.servers) == victim.name else ""
    part = f"{number + 1:2}: {victim.name}, which {'leads' if leads else 'follows'} the bucket{first}, killed"
    victim.kill()
    writes_s = await scene.writes_again()
    await asyncio.sleep(AWAY_S)
    scene.figure(part, f", once NATS had elected, after {writes_s:.2f} s")
    scene.truth.begin(time.monotonic())
    victim.start()
    await asyncio.to_thread(cluster.wait)
    for replica in scene.trio.replicas:
        await replica.until_ready(BACK_S)
    await asyncio.sleep(BETWEEN_S)
    scene.figure(f"{part}, and started")
    return part


async def _network(scene: Scene, number: int) -> str:
    replica, way = scene.trio.replicas[number % 3], (BOTH, THERE, BACK)[(number + number // 3) % 3]
    part = f"{number + 1:2}: {replica.name} cut off {way}"
    began = time.monotonic()
    scene.truth.begin(began)
    for cable in replica.cables:
        cable.cut(way)
    told_s = await _says_so(scene, replica, part)
    await asyncio.sleep(max(0.0, began + AWAY_S - time.monotonic()))
    scene.figure(part, f", /readyz 503 after {told_s:.2f} s")
    scene.truth.begin(time.monotonic())
    for cable in replica.cables:
        cable.mend()
    ready_s = await replica.until_ready(BACK_S)
    await asyncio.sleep(BOUND_S)
    scene.figure(f"{part}, and mended", f", ready after {ready_s:.2f} s")
    return part


async def _says_so(scene: Scene, replica: Replica, part: str) -> float:
    """Return after how many seconds /readyz is 503 and names NATS."""
    began = time.monotonic()
    while True:
        status, said = await replica.readiness()
        took_s = time.monotonic() - began
        if status == 503 and "NATS" in said:
            return took_s
        if took_s > TOLD_S:
            scene.report.fault(f"{part}: after {took_s:.1f} s its /readyz is {status}: {said[:300]}")
            return took_s
        await asyncio.sleep(LOOK_S)


_FAULTS: dict[str, Callable[[Scene, int], Awaitable[str]]] = {"replica": _replica, "server": _server, "network": _network}


def _count(scene: Scene) -> None:
    truth, churn, report = scene.truth, scene.churn, scene.report
    classic = [one for one in scene.dependents if one.classic]
    second = [one for one in scene.dependents if not one.classic]
    report.figures |= {
        "changes": sum(churn.changes.values()),
        "of these come, die, leave": ", ".join(map(str, churn.changes.values())),
        "not made, for nobody was free": churn.skipped,
        "patches to classic ones": sum(one.patches for one in classic),
        "patches to Protocol 2": f"{sum(one.patches for one in second)}, of these {sum(one.fulls for one in second)} full",
        "gaps seen by Protocol 2": sum(one.gaps for one in second),
        "doubled": truth.doubled,
        "missing": truth.missing,
        "lingering": truth.lingering,
        "wrong withdrawals": truth.withdrawn,
        "needless removals": truth.needless,
        "tries answered 503": scene.failover.refused,
        "tries not answered": scene.failover.unanswered,
        "longest pause of this process": f"{scene.longest_lag_s:.2f} s",
    }
    if scene.longest_lag_s > STUCK_S:
        report.figures["mind"] = "this process stood still itself: what is told as late may be its own"
