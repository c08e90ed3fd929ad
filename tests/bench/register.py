"""register: registrations a second, stored durably, on 32 connections and on one.

"again": 256 instances register over and over; "new": each registration brings an instance never seen. What registers is checked by the
registry at once (that is part of its cost); the harness answers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator

from crowd import Crowd
from figures import Row, Scale, percentile
from generate import NUMBER, measure
from load import call, request
from machine import disk_folder, usage
from ours import registry
from peers import classic, consul, etcd, redis, zookeeper

AGAIN = 256
MOST_NEW = 15_000
NEW_S = 1.0
LEASE_S = 600
KINDS = (("register again c=32", 32, AGAIN), ("register again c=1", 1, AGAIN), ("register new c=32", 32, 0))


async def pillion(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    for kind, connections, count in KINDS:
        with disk_folder() as folder, registry(store=f"sqlite:{folder}/registry.db") as server:
            async with Crowd() as crowd:
                url = f"{server.url}/services"
                rows += await _measure(kind, server.process.pid, url, request("POST", url, _registration(crowd)), connections, count, scale)
                kept = len(json.loads(await call("GET", url))["Services"])
                if kept > count > 0 or kept < AGAIN:
                    raise RuntimeError(f"{kind}: {kept} instances are kept")
    return rows


async def on_classic(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    for kind, connections, count in KINDS:
        with disk_folder() as folder:
            async with Crowd() as crowd, classic.classic("registry", folder) as server:
                url = f"{server.url}/services"
                rows += await _measure(kind, server.process.pid, url, request("POST", url, _registration(crowd)), connections, count, scale)
    return rows


async def on_consul(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    with disk_folder() as folder:
        async with consul.consul(folder) as agent:
            url = f"{agent.url}/v1/catalog/register"
            template = request("PUT", url, consul.registration("Bench", NUMBER.decode(), "7000"))
            for kind, connections, count in KINDS:
                rows += await _measure(kind, agent.process.pid, url, template, connections, count, scale)
    return rows


async def on_etcd(scale: Scale) -> list[Row]:
    rows: list[Row] = []
    with disk_folder() as folder:
        async with etcd.etcd(folder) as member:
            url = f"{member.url}/v3/kv/put"
            lease = (await member.ask("lease/grant", TTL=LEASE_S))["ID"]
            # Eight digits are valid base64 as they stand, so that the number can be put into the encoded key.
            key = etcd.text("bench/") + NUMBER.decode()
            template = request("POST", url, json.dumps({"key": key, "value": etcd.text("http://127.0.0.1:7000"), "lease": lease}).encode())
            for kind, connections, count in KINDS:
                rows += await _measure(kind, member.process.pid, url, template, connections, count, scale)
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


async def _measure(kind: str, pid: int, url: str, template: bytes, connections: int, count: int, scale: Scale) -> list[Row]:
    # New ones are measured for a second only: MOST_NEW of them and not more is what a registry of this size is for.
    seconds = scale.seconds if count else NEW_S
    rows, outcome = await measure(kind, pid, url, template, connections, seconds, count=count)
    return [*rows, (kind, "registered", "instances", float(outcome.answers))] if not count else rows


PEERS = {
    "pillion": pillion,
    classic.NAME: on_classic,
    consul.NAME: on_consul,
    etcd.NAME: on_etcd,
    redis.NAME: on_redis,
    zookeeper.NAME: on_zookeeper,
}
