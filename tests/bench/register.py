"""register: registrations a second, stored durably, on 32 connections and on one.

"again": 256 instances register over and over; "new": each registration brings an instance never seen. What registers is checked by the
registry at once (that is part of its cost); the harness answers. Where several servers keep what is stored, the load goes to one of them
(of Consul and etcd the one that leads), and CPU and memory are those of all together.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial

from crowd import Crowd
from figures import Row, Scale, percentile
from generate import NUMBER, measure
from load import call, request
from machine import disk_folder, usage
from ours import registry, replicas
from peers import classic, consul, etcd, nats, redis, zookeeper

AGAIN = 256
MOST_NEW = 15_000
NEW_S = 1.0
LEASE_S = 600
ROUNDED = 0.9  # of the answers, reckoned from their rate
SERVERS = 3  # that replicate to each other
KINDS = (("register again c=32", 32, AGAIN), ("register again c=1", 1, AGAIN), ("register new c=32", 32, 0))


async def pillion(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    for kind, connections, count in KINDS:
        with disk_folder() as folder, registry(store=f"sqlite:{folder}/registry.db") as server:
            async with Crowd() as crowd:
                url = f"{server.url}/services"
                template = request("POST", url, _registration(crowd))
                measured = await _measure(kind, [server.process.pid], url, template, connections, count, scale)
                figures = {metric: value for _, metric, _, value in measured}
                await _check_kept(kind, url, count, figures["rate"] * (scale.seconds if count else NEW_S))
                rows += measured
    return rows


async def on_nats(scale: Scale, count: int, sync: bool = True) -> list[Row]:
    """Our own registry once more: so many replicas on three NATS servers, which sync every message or leave that to the system."""
    rows: list[Row] = []
    for kind, connections, instances in KINDS:
        with disk_folder() as folder, replicas(folder, count, sync=sync) as fleet:
            async with Crowd() as crowd:
                url = f"{fleet.url}/services"
                template = request("POST", url, _registration(crowd))
                before_s = usage(*fleet.nats_pids).cpu_s
                measured = await _measure(kind, [*fleet.pids, *fleet.nats_pids], url, template, connections, instances, scale)
                used_s = usage(*fleet.nats_pids).cpu_s - before_s
                figures = {metric: value for _, metric, _, value in measured}
                answers = figures["rate"] * (scale.seconds if instances else NEW_S)
                rows += [*measured, (kind, "cpu, NATS alone", "us each", 1e6 * used_s / answers)]
                for replica in fleet.registries:
                    await _check_kept(kind, f"{replica.url}/services", instances, answers)
    return rows


async def _check_kept(kind: str, url: str, count: int, answers: float) -> None:
    kept = len(json.loads(await call("GET", url))["Services"])
    if kept > count > 0 or kept < min(count or answers, ROUNDED * answers):
        raise RuntimeError(f"{kind}: {kept} instances are kept")


async def on_classic(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    for kind, connections, count in KINDS:
        with disk_folder() as folder:
            async with Crowd() as crowd, classic.classic("registry", folder) as server:
                url = f"{server.url}/services"
                rows += await _measure(
                    kind, [server.process.pid], url, request("POST", url, _registration(crowd)), connections, count, scale
                )
    return rows


async def on_consul(scale: Scale, servers: int = 1) -> list[Row]:
    rows: list[Row] = []
    with disk_folder() as folder:
        async with consul.servers(folder, servers) as agents:
            url, pids = f"{agents[0].url}/v1/catalog/register", [one.process.pid for one in agents]
            template = request("PUT", url, consul.registration("Bench", NUMBER.decode(), "7000"))
            for kind, connections, count in KINDS:
                rows += await _measure(kind, pids, url, template, connections, count, scale)
    return rows


async def on_etcd(scale: Scale, servers: int = 1) -> list[Row]:
    rows: list[Row] = []
    with disk_folder() as folder:
        async with etcd.members(folder, servers) as members:
            url, pids = f"{members[0].url}/v3/kv/put", [one.process.pid for one in members]
            lease = (await members[0].ask("lease/grant", TTL=LEASE_S))["ID"]
            # Eight digits are valid base64 as they stand, so that the number can be put into the encoded key.
            key = etcd.text("bench/") + NUMBER.decode()
            template = request("POST", url, json.dumps({"key": key, "value": etcd.text("http://127.0.0.1:7000"), "lease": lease}).encode())
            for kind, connections, count in KINDS:
                rows += await _measure(kind, pids, url, template, connections, count, scale)
    return rows


async def on_redis(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    with disk_folder() as folder:
        async with redis.redis(folder) as server:
            for kind, connections, count in KINDS:
                if count:
                    words = ("SET", "bench:__rand_int__", "http://127.0.0.1:7000")
                    rows += await server.measure(kind, connections, *words, seconds=scale.seconds)
    return rows


async def on_zookeeper(scale: Scale) -> list[Row]:
    """New ephemeral nodes only: a node that is there is not created again."""
    with disk_folder() as folder:
        async with zookeeper.zookeeper(folder) as server:
            numbers = itertools.count()
            await _create_nodes(server, numbers, scale.seconds / 2)  # Java compiles what it is asked often
            return await _create_nodes(server, numbers, scale.seconds)


async def _create_nodes(server: zookeeper.ZooKeeper, numbers: Iterator[int], seconds: float) -> list[Row]:
    """Create nodes in 32 sessions, one create under way in each."""
    kind, connections, _ = KINDS[-1]
    sent: dict[zookeeper.Session, float] = {}
    times: list[float] = []

    def create(session: zookeeper.Session) -> None:
        sent[session] = time.perf_counter()
        session.send(zookeeper.create(1, f"/bench{next(numbers):08}", b"http://127.0.0.1:7000", zookeeper.EPHEMERAL))

    def answered(session: zookeeper.Session, frame: bytes) -> None:
        zookeeper.check(frame)
        now = time.perf_counter()
        times.append(now - sent[session])
        if now < until:
            create(session)

    sessions = [await zookeeper.connect(server.port, answered) for _ in range(connections)]
    before = usage(server.process.pid)
    until = time.perf_counter() + seconds
    for session in sessions:
        create(session)
    await asyncio.sleep(seconds + 0.3)
    after = usage(server.process.pid)
    for session in sessions:
        session.transport.abort()
    return [
        (kind, "rate", "1/s", len(times) / seconds),
        (kind, "p50", "ms", 1000 * percentile(times, 0.5)),
        (kind, "p99", "ms", 1000 * percentile(times, 0.99)),
        (kind, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / len(times)),
        (kind, "resident", "MB", after.resident / 1e6),
    ]


def _registration(crowd: Crowd) -> bytes:
    """Return the template of one instance: its name, URL and heartbeat URL all carry the number."""
    return crowd.registration(0, "Bench" + NUMBER.decode()).replace(b"/s/0", b"/s/" + NUMBER).replace(b"/h/0", b"/h/" + NUMBER)


async def _measure(kind: str, pids: Sequence[int], url: str, template: bytes, connections: int, count: int, scale: Scale) -> list[Row]:
    # New ones are measured for a second only: MOST_NEW of them and not more is what a registry of this size is for.
    seconds = scale.seconds if count else NEW_S
    rows, outcome = await measure(kind, pids, url, template, connections, seconds, count=count)
    return [*rows, (kind, "registered", "instances", float(outcome.answers))] if not count else rows


PEERS = {
    "pillion": pillion,
    nats.NAME: partial(on_nats, count=1),
    nats.THREE: partial(on_nats, count=3),
    nats.UNSYNCED: partial(on_nats, count=1, sync=False),
    classic.NAME: on_classic,
    consul.NAME: on_consul,
    consul.THREE: partial(on_consul, servers=SERVERS),
    etcd.NAME: on_etcd,
    etcd.THREE: partial(on_etcd, servers=SERVERS),
    redis.NAME: on_redis,
    zookeeper.NAME: on_zookeeper,
}
