"""Thousands of concurrent operations through three registries that share NATS, which are killed meanwhile, and a NATS server too.
On a crowded machine one registry is often behind another, and never sees what was replaced meanwhile.

Each client does one operation after the other, at a replica and on an instance by lot; all instances are written by all clients. What each
asked, when, and what it was answered is kept, and then judged by `history_check`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from history_check import DEREGISTER, DRAIN, LIST, ONE, OUTDATED, REGISTER, Operation, Shown, Verdict, check
from processes import Died, tail
from report import Report
from trio import Replica, Trio, trio

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from crowd import Crowd
from failover import ask

ANSWER_S = 8.0  # a replica that cannot write says so within 6 s
AWAY_S = 1.0
SETTLE_S = 10.0
WELL_S = 60.0
PATIENCE_S = 180.0  # for the next share of the operations
KINDS = {REGISTER: 30, DEREGISTER: 10, DRAIN: 10, LIST: 25, ONE: 25}  # of a hundred
FOREVER_BUSY_S = 0.02
BURN = """
import time
ends = time.monotonic() + 600
while (now := time.monotonic()) < ends:
    while time.monotonic() < now + 0.05:
        pass
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        kills: of replicas, in turn; servers: of NATS servers, by "leader" and "follower"; all at equal shares of the operations.
        others: that compute on each processor meanwhile.
    """

    operations: int = 10_000
    clients: int = 32
    instances: int = 48
    kills: int = 9
    servers: tuple[str, ...] = ("leader",)
    others: int = 0
    sabotage: str = ""
    seed: int = 1

    def __str__(self) -> str:
        broken = f" with {self.sabotage}" if self.sabotage else ""
        crowd = f" beside {self.others} others on each processor" if self.others else ""
        return f"{self.operations} operations by {self.clients} clients on {self.instances} instances{crowd}{broken}"


QUICK = Plan(1_500, kills=2, servers=())
CROWDED = Plan(others=3)
EARLY_ACK = Plan(1_500, kills=0, servers=(), sabotage="replica-early-ack")


@dataclass
class _Scene:
    plan: Plan
    trio: Trio
    crowd: Crowd
    operations: list[Operation] = field(default_factory=list)
    lives: Counter[int] = field(default_factory=Counter)
    numbers: Counter[int] = field(default_factory=Counter)
    away: set[int] = field(default_factory=set)
    failed: str = ""

    def url(self, instance: int) -> str:
        return self.crowd.url(instance)

    async def client(self, number: int) -> None:
        """Do operations until there are enough."""
        lot = random.Random(self.plan.seed * 1000 + number)
        while len(self.operations) < self.plan.operations:
            replica = lot.choice([n for n in range(3) if n not in self.away])
            kind = lot.choices(tuple(KINDS), tuple(KINDS.values()))[0]
            instance = -1 if kind == LIST else lot.randrange(self.plan.instances)
            await self._do(number, replica, kind, instance)

    async def _do(self, client: int, replica: int, kind: str, instance: int) -> None:
        one = Operation(client, replica, self.lives[replica], kind, instance, time.monotonic())
        if kind == REGISTER:
            self.numbers[instance] += 1
            one.number = self.numbers[instance]
        try:
            status, body = await ask(self.trio.urls[replica], *self._request(one), timeout_s=ANSWER_S)
        except ConnectionRefusedError:
            await asyncio.sleep(FOREVER_BUSY_S)
            return  # nobody was asked anything
        except OSError:
            self.operations.append(one)
            return
        one.end, one.status = time.monotonic(), status
        said = json.loads(body) if body else {}
        one.revision = said.get("Revision")
        if kind in (LIST, ONE):
            one.shown = self.shown(said)
        self.operations.append(one)

    def _request(self, one: Operation) -> tuple[str, str, bytes]:
        item = f"Item{one.instance}"
        if one.kind == REGISTER:
            more = {"InstanceID": item, "Incarnation": one.number, "Version": str(one.number)}
            return "POST", "/services", self.crowd.registration(one.instance, item, **more)
        if one.kind == DEREGISTER:
            return "DELETE", "/services", self.url(one.instance).encode()
        if one.kind == DRAIN:
            return "POST", f"/services/{item}/drain", b'{"Timeout":0}'
        return "GET", "/services" if one.kind == LIST else f"/services/{item}", b""

    def shown(self, said: dict[str, list[dict[str, str]]]) -> dict[int, Shown]:
        """Return what an answer shows."""
        return {
            int(one["InstanceID"].removeprefix("Item")): Shown(int(one["Version"]), one["State"] == "draining", one["State"])
            for one in said.get("Services", ())
        }


def run(plan: Plan, folder: Path) -> Report:
    """Play a plan and judge it."""
    with _crowd(plan.others):
        return asyncio.run(_play(plan, folder))


@contextmanager
def _crowd(others_each: int) -> Iterator[None]:
    """Have others compute on each processor."""
    others = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(others_each * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


async def _play(plan: Plan, folder: Path) -> Report:
    report = Report(f"history: {plan}")
    async with trio(folder, sabotage=plan.sabotage) as running, Crowd() as crowd:
        scene = _Scene(plan, running, crowd)
        began = time.monotonic()
        clients = [asyncio.create_task(scene.client(number)) for number in range(plan.clients)]
        try:
            try:
                await _break(scene, report, clients)
                await asyncio.gather(*clients)
            finally:
                for client in clients:
                    client.cancel()
            report.figures["operations a second, faults included"] = round(len(scene.operations) / (time.monotonic() - began))
            final = await _final(scene, report)
        except Died as exc:
            report.fault(f"{exc}; {tail(running.replicas[0].log)}")
            final = {}
    _tell(scene, check(scene.operations, plan.instances, final), report)
    return report


async def _break(scene: _Scene, report: Report, clients: list[asyncio.Task[None]]) -> None:
    """Kill one after the other, each at its share of the operations, and start it again."""
    plan = scene.plan
    steps: list[str] = ["replica"] * plan.kills
    for number, server in enumerate(plan.servers, 1):
        steps.insert(number * len(steps) // (len(plan.servers) + 1), server)
    turn = 0
    for number, step in enumerate(steps, 1):
        share = plan.operations * number // (len(steps) + 1)
        await _until(lambda: len(scene.operations) >= share, clients)  # noqa: B023
        if step == "replica":
            await _kill(scene, turn % 3)
            turn += 1
            report.count("replicas killed")
        else:
            victim = (await asyncio.to_thread(scene.trio.cluster.victims, step))[0]
            victim.kill()
            await asyncio.sleep(2 * AWAY_S)
            victim.start()
            await asyncio.to_thread(scene.trio.cluster.wait)
            report.count(f"NATS servers killed ({step})")


async def _kill(scene: _Scene, number: int) -> None:
    replica = scene.trio.replicas[number]
    replica.kill()
    scene.away.add(number)
    await asyncio.sleep(AWAY_S)
    scene.lives[number] += 1
    replica.member.start()
    scene.away.discard(number)  # it is asked as soon as it listens, ready or not
    await replica.until_ready(WELL_S)


async def _until(true: Callable[[], bool], clients: list[asyncio.Task[None]]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        for client in clients:
            if client.done() and (error := client.exception()):
                raise error
        if time.monotonic() > ends:
            raise Died("the operations do not go on")
        await asyncio.sleep(0.01)


async def _final(scene: _Scene, report: Report) -> dict[int, Shown]:
    """Return what all replicas show when all is quiet."""
    for replica in scene.trio.replicas:
        await replica.until_ready(WELL_S)
    ends = time.monotonic() + SETTLE_S
    while True:
        await asyncio.sleep(0.5)
        lists = [await _list(scene, replica) for replica in scene.trio.replicas]
        if all(one == lists[0] for one in lists) or time.monotonic() > ends:
            break
    revisions = [revision for revision, _ in lists]
    for replica, (_, shown) in zip(scene.trio.replicas, lists, strict=True):
        if odd := [n for n in range(scene.plan.instances) if shown.get(n) != lists[0][1].get(n)]:
            report.fault(f"in the end {replica.name} shows {len(odd)} instances otherwise than r1: {odd[0]} as {shown.get(odd[0])}")
    if len(set(revisions)) > 1:
        report.fault(f"in the end the replicas are at different revisions: {revisions}")
    return lists[0][1]


async def _list(scene: _Scene, replica: Replica) -> tuple[int, dict[int, Shown]]:
    status, body = await ask(replica.url, "GET", "/services")
    if status != 200:
        raise Died(f"{replica.name} answered {status} in the end: {body.decode()[:300]}")
    said = json.loads(body)
    return said["Revision"], scene.shown(said)


def _tell(scene: _Scene, verdict: Verdict, report: Report) -> None:
    done = scene.operations
    kinds = Counter(one.kind for one in done)
    report.figures |= {
        "operations": len(done),
        "of these": ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS),
        "acknowledged (200)": sum(one.status == 200 for one in done),
        "told that nothing is there (404)": sum(one.status == 404 for one in done),
        "refused as outdated (409)": sum(one.status == OUTDATED for one in done),
        "refused for now (503)": sum(one.status == 503 for one in done),
        "not answered": sum(one.status == 0 for one in done),
        "longest answer": f"{max((one.end - one.begin for one in done if one.end < inf), default=0):.2f} s",
        "reads judged": verdict.reads,
        "stale: own writes not read": verdict.stale,
        "revisions that went back": verdict.went_back,
        "lists of one revision that differ": verdict.differing,
        "refused without cause": verdict.refused,
        "acknowledged and lost": verdict.lost,
    }
    for text in verdict.faults:
        report.fault(text)
    if len(done) < scene.plan.operations:
        report.fault(f"only {len(done)} of {scene.plan.operations} operations were done")
