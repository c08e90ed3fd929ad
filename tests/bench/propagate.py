"""propagate: 1,000 dependents, one new provider; the time from the start of its registration until the last dependent has read of it.

Also with two dependents more, of which one never answers a patch and one is gone: they must change nothing for the others.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from blast import floor
from crowd import Crowd, register, settle
from figures import Row, Scale, percentile
from load import Caller, request
from machine import disk_folder, free_port, usage
from ours import registry
from peers import classic, consul, etcd, zookeeper
from programs import Program
from taps import Taps

DEPENDENTS = 1000
NAME = "Target"
PAUSE_S = 0.3
LIMIT_S = 20.0
CONNECTING = 50


async def pillion(scale: Scale) -> list[Row]:
    rows = await _ours(scale, "propagate", DEPENDENTS, troubled=False)
    rows += await _ours(scale, "propagate, 1 hangs 1 gone", DEPENDENTS, troubled=True)
    rows += await floor("propagate, harness alone", DEPENDENTS, scale)
    if scale.full:
        rows += await _ours(scale, "propagate to 10,000", 10_000, troubled=False)
    return rows


async def _ours(scale: Scale, workload: str, count: int, troubled: bool) -> list[Row]:
    with disk_folder() as folder, registry(store=f"sqlite:{folder}/registry.db") as server:
        async with Crowd() as crowd:
            await register(server.url, (crowd.registration(index, "Dependent", [NAME]) for index in range(count)))
            if troubled:
                gone = f"http://127.0.0.1:{free_port()}"
                hanging = crowd.registration(count, "Hanging", [NAME], update="x")
                lost = crowd.registration(count + 1, "Gone", [NAME], HeartbeatURL=gone + "/h/0", ServiceUpdateURL=gone + "/u/0")
                await register(server.url, [hanging, lost], connections=1)
            await settle(crowd, count)
            await asyncio.sleep(2 * PAUSE_S)
            return await _told(workload, server, crowd, count, scale)


async def on_classic(scale: Scale) -> list[Row]:
    with disk_folder() as folder:
        async with classic.classic("registry", folder) as server, Crowd() as crowd:
            await register(server.url, (crowd.registration(index, "Dependent", [NAME]) for index in range(DEPENDENTS)))
            await asyncio.sleep(PAUSE_S)
            return await _told("propagate", server, crowd, DEPENDENTS, scale)


async def _told(workload: str, server: Program | classic.Classic, crowd: Crowd, count: int, scale: Scale) -> list[Row]:
    """Measure a registry that tells the crowd: a provider comes, and goes again."""
    caller = await Caller.connect(server.url)
    provider = 1_000_000
    url = crowd.url(provider)
    body = crowd.registration(provider, NAME)

    async def come() -> float:
        return await _learn(crowd, count, caller, request("POST", f"{server.url}/services", body), added=url)

    async def go() -> float:
        return await _learn(crowd, count, caller, request("DELETE", f"{server.url}/services", url.encode(), "text/plain"), removed=url)

    rows = await _repeat(workload, server.process.pid, come, go, count, scale)
    caller.close()
    return rows


async def _learn(crowd: Crowd, count: int, caller: Caller, said: bytes, added: str | None = None, removed: str | None = None) -> float:
    """Send a request; return the seconds until the last dependent had read the patch."""
    expected = crowd.expect(range(count), added, removed)
    started = time.perf_counter()
    status, answer = await caller.send(said)
    if status != 200:
        raise RuntimeError(f"the provider's request was answered {status}: {answer[:300]!r}")
    last = await expected.wait(LIMIT_S)
    crowd.forget(expected)
    return last - started


async def on_consul(scale: Scale) -> list[Row]:
    """Each dependent has a blocking query under way; the next is sent after all have learned, outside what is measured."""
    with disk_folder() as folder:
        async with consul.consul(folder) as agent:
            caller, taps = await Caller.connect(agent.url), Taps()
            await taps.open(agent.url, DEPENDENTS)
            reading = f"{agent.url}/v1/health/service/{NAME}?passing"
            await _ask(caller, "PUT", f"{agent.url}/v1/catalog/register", consul.registration(NAME, "base", "7000"))

            async def learn(method: str, url: str, body: bytes, marker: bytes) -> float:
                taps.send(request("GET", f"{reading}&index={await consul.index_of(reading)}&wait=60s"))
                await asyncio.sleep(PAUSE_S)
                news = taps.expect(marker)
                started = time.perf_counter()
                await _ask(caller, method, url, body)
                return await taps.wait(news) - started

            async def come() -> float:
                return await learn(
                    "PUT", f"{agent.url}/v1/catalog/register", consul.registration(NAME, "new", "7001"), f"{NAME}-new".encode()
                )

            async def go() -> float:
                gone = json.dumps({"Node": "bench", "ServiceID": f"{NAME}-new"}).encode()
                return await learn("PUT", f"{agent.url}/v1/catalog/deregister", gone, f"{NAME}-base".encode())

            rows = await _repeat("propagate", agent.process.pid, come, go, DEPENDENTS, scale)
            taps.close()
            caller.close()
            return rows


async def on_etcd(scale: Scale) -> list[Row]:
    """Each dependent watches over a stream of the JSON gateway."""
    with disk_folder() as folder:
        async with etcd.etcd(folder) as member:
            caller, taps = await Caller.connect(member.url), Taps()
            await taps.open(member.url, DEPENDENTS)
            watch = {"create_request": {"key": etcd.text("target/"), "range_end": etcd.text("target0")}}
            opened = taps.expect(b'"created":true')
            taps.send(request("POST", f"{member.url}/v3/watch", json.dumps(watch).encode()))
            await taps.wait(opened)
            key = {"key": etcd.text("target/1")}

            async def learn(what: str, said: dict[str, str], marker: bytes) -> float:
                news = taps.expect(marker)
                started = time.perf_counter()
                await _ask(caller, "POST", f"{member.url}/v3/kv/{what}", json.dumps(said).encode())
                return await taps.wait(news) - started

            async def come() -> float:
                return await learn("put", key | {"value": etcd.text("http://127.0.0.1:7001")}, b'"value":')

            async def go() -> float:
                return await learn("deleterange", key, b'"type":"DELETE"')

            rows = await _repeat("propagate", member.process.pid, come, go, DEPENDENTS, scale)
            taps.close()
            caller.close()
            return rows


async def on_zookeeper(scale: Scale) -> list[Row]:
    """Each dependent is a session with a watch on the parent; told of a change, it reads the children anew."""
    with disk_folder() as folder:
        async with zookeeper.zookeeper(folder) as server:
            waiting: set[zookeeper.Session] = set()
            read = asyncio.Event()
            wanted = 0

            def on_frame(session: zookeeper.Session, frame: bytes) -> None:
                if frame.startswith(zookeeper.EVENT):
                    session.send(zookeeper.children(1, f"/{NAME}", watch=True))
                    return
                zookeeper.check(frame)
                if int.from_bytes(frame[16:20], "big") == wanted:
                    waiting.discard(session)
                    if not waiting:
                        read.set()

            owner = await zookeeper.connect(server.port)
            owner.send(zookeeper.create(1, f"/{NAME}"))
            await asyncio.sleep(PAUSE_S)
            sessions = []
            for _ in range(0, DEPENDENTS, CONNECTING):
                sessions += await asyncio.gather(*(zookeeper.connect(server.port, on_frame, 120_000) for _ in range(CONNECTING)))

            async def learn(sent: Callable[[], None], children: int) -> float:
                nonlocal wanted
                wanted = children
                waiting.update(sessions)
                read.clear()
                started = time.perf_counter()
                sent()
                await asyncio.wait_for(read.wait(), LIMIT_S)
                return time.perf_counter() - started

            def look() -> None:
                for session in sessions:
                    session.send(zookeeper.children(1, f"/{NAME}", watch=True))

            await learn(look, 0)

            async def come() -> float:
                return await learn(lambda: owner.send(zookeeper.create(2, f"/{NAME}/1", b"x", zookeeper.EPHEMERAL)), 1)

            async def go() -> float:
                return await learn(lambda: owner.send(zookeeper.delete(3, f"/{NAME}/1")), 0)

            rows = await _repeat("propagate", server.process.pid, come, go, DEPENDENTS, scale)
            for session in (*sessions, owner):
                session.transport.abort()
            return rows


async def _ask(caller: Caller, method: str, url: str, body: bytes) -> None:
    status, answer = await caller.call(method, url, body)
    if status != 200:
        raise RuntimeError(f"{method} {url} was answered {status}: {answer[:300]!r}")


async def _repeat(
    workload: str, pid: int, come: Callable[[], Awaitable[float]], go: Callable[[], Awaitable[float]], count: int, scale: Scale
) -> list[Row]:
    coming, going, used_s = [], [], 0.0
    warm_up, repeats = (1, 4) if scale.quick else (3, 20)
    for number in range(warm_up + repeats):
        before = usage(pid).cpu_s
        came = await come()
        await asyncio.sleep(PAUSE_S)  # the last answers come in
        if number >= warm_up:
            coming.append(came)
            used_s += usage(pid).cpu_s - before
        gone = await go()
        if number >= warm_up:
            going.append(gone)
        await asyncio.sleep(PAUSE_S)
    return [
        (workload, "last knows, p50", "ms", 1000 * percentile(coming, 0.5)),
        (workload, "last knows, max", "ms", 1000 * max(coming)),
        (workload, "withdrawal, p50", "ms", 1000 * percentile(going, 0.5)),
        (workload, "withdrawal, max", "ms", 1000 * max(going)),
        (workload, "cpu per patch", "us each", 1e6 * used_s / repeats / count),
        (workload, "resident", "MB", usage(pid).resident / 1e6),
    ]


PEERS = {"pillion": pillion, classic.NAME: on_classic, consul.NAME: on_consul, etcd.NAME: on_etcd, zookeeper.NAME: on_zookeeper}
