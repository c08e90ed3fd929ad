"""lookup: who asks for one of five providers gets an answer, 16 and 1 at a time. Ours is the sidecar beside the app."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from itertools import repeat

from crowd import Crowd, register
from figures import Row, Scale, percentile
from generate import measure
from load import Caller, call, request
from machine import disk_folder, usage
from ours import registry, sidecar
from peers import consul, etcd, redis, zookeeper

CONNECTIONS = (16, 1)
PROVIDERS = 5
NAME = "Provider"


async def pillion(scale: Scale) -> list[Row]:
    async with Crowd() as crowd:
        with disk_folder() as folder, registry() as server, sidecar(server, folder, "Reader", NAME) as reader:
            await register(server.url, (crowd.registration(number, NAME) for number in range(PROVIDERS)))
            url = f"{reader.addresses[1]}/providers/{NAME}"
            await _until_known(f"{url}?all=1")
            assert json.loads(await call("GET", url))["Name"] == NAME
            return await _measure(reader.process.pid, url, request("GET", url), scale)


async def on_consul(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        async with consul.consul(folder) as agent:
            for number in range(PROVIDERS):
                await call("PUT", f"{agent.url}/v1/catalog/register", consul.registration(NAME, str(number), str(7000 + number)))
            rows = []
            for kind, query in (("", "passing"), (" cached", "passing&cached")):
                url = f"{agent.url}/v1/health/service/{NAME}?{query}"
                assert len(json.loads(await call("GET", url))) == PROVIDERS
                rows += await _measure(agent.process.pid, url, request("GET", url), scale, kind)
            return rows


async def on_etcd(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        async with etcd.etcd(folder) as member:
            for number in range(PROVIDERS):
                await member.ask("kv/put", key=etcd.text(f"provider/{number}"), value=etcd.text(f"http://127.0.0.1:{7000 + number}"))
            wanted = {"key": etcd.text("provider/"), "range_end": etcd.text("provider0")}
            assert len((await member.ask("kv/range", **wanted))["kvs"]) == PROVIDERS
            url = f"{member.url}/v3/kv/range"
            return await _measure(member.process.pid, url, request("POST", url, json.dumps(wanted).encode()), scale)


async def on_redis(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        async with redis.redis(folder) as server:
            assert await redis.command(server.port, "SADD", NAME, *(f"http://127.0.0.1:{7000 + n}" for n in range(PROVIDERS))) == b":5\r\n"
            rows = []
            for connections in CONNECTIONS:
                rows += await server.measure(f"lookup c={connections}", connections, "SRANDMEMBER", NAME, seconds=scale.seconds)
            return rows


async def on_zookeeper(scale: Scale) -> list[Row]:
    """Five ephemeral children, listed over and over by sessions of our own client."""
    with disk_folder() as folder:
        async with zookeeper.zookeeper(folder) as server:
            owner = await zookeeper.connect(server.port)
            owner.send(zookeeper.create(1, f"/{NAME}"))
            for number in range(PROVIDERS):
                owner.send(zookeeper.create(2 + number, f"/{NAME}/{number}", flags=zookeeper.EPHEMERAL))
            await asyncio.sleep(0.5)
            rows = []
            await _list_children(server, 16, scale.seconds / 2)  # Java compiles what it is asked often
            for connections in CONNECTIONS:
                rows += await _list_children(server, connections, scale.seconds)
            owner.transport.abort()
            return rows


async def _list_children(server: zookeeper.ZooKeeper, connections: int, seconds: float) -> list[Row]:
    workload = f"lookup c={connections}"
    asked = zookeeper.children(1, f"/{NAME}")
    sent: dict[zookeeper.Session, float] = {}
    times: list[float] = []

    def answered(session: zookeeper.Session, frame: bytes) -> None:
        zookeeper.check(frame)
        assert struct.unpack_from(">i", frame, 16)[0] == PROVIDERS
        now = time.perf_counter()
        times.append(now - sent[session])
        if now < until:
            sent[session] = now
            session.send(asked)

    sessions = [await zookeeper.connect(server.port, answered) for _ in repeat(None, connections)]
    before = usage(server.process.pid)
    started = time.perf_counter()
    until = started + seconds
    for session in sessions:
        sent[session] = time.perf_counter()
        session.send(asked)
    await asyncio.sleep(seconds + 0.2)
    after = usage(server.process.pid)
    for session in sessions:
        session.transport.abort()
    return [
        (workload, "rate", "1/s", len(times) / seconds),
        (workload, "p50", "ms", 1000 * percentile(times, 0.5)),
        (workload, "p99", "ms", 1000 * percentile(times, 0.99)),
        (workload, "cpu", "us each", 1e6 * (after.cpu_s - before.cpu_s) / len(times)),
        (workload, "resident", "MB", after.resident / 1e6),
    ]


async def _measure(pid: int, url: str, template: bytes, scale: Scale, kind: str = "") -> list[Row]:
    rows = []
    for connections in CONNECTIONS:
        rows += (await measure(f"lookup c={connections}{kind}", [pid], url, template, connections, scale.seconds))[0]
    return rows


async def _until_known(url: str) -> None:
    """Wait until the sidecar knows all five."""
    caller = await Caller.connect(url)
    for _ in range(200):
        status, body = await caller.call("GET", url)
        if status == 200 and len(json.loads(body)["Providers"]) == PROVIDERS:
            caller.close()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the sidecar was not told of its providers")


PEERS = {
    "pillion": pillion,
    consul.NAME: on_consul,
    etcd.NAME: on_etcd,
    redis.NAME: on_redis,
    zookeeper.NAME: on_zookeeper,
}
