"""death: a provider dies; the time until the last of 100 dependents has read of it.

Ours in three ways: its sidecar is killed (kill -9), its app alone is killed, its packets are dropped. For the peers the harness's own
listener goes away (or its lease is not renewed, its session's connection is cut), at a random moment of the interval.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import lost_packets
from crowd import Crowd, register, settle
from figures import Row, Scale, percentile
from load import Caller, call, request
from machine import disk_folder
from ours import registry
from peers import classic, consul, etcd, zookeeper
from programs import Program
from provider import Provider
from taps import Taps

DEPENDENTS = 100
NAME = "Target"
PEER_INTERVAL_S = 3
LIMIT_S = 30.0
CLASSIC_LIMIT_S = 4 * PEER_INTERVAL_S * (DEPENDENTS + 2)


async def pillion(scale: Scale) -> list[Row]:
    kills = 4 if scale.quick else 50
    rows: list[Row] = []
    with disk_folder() as folder, registry(store=f"sqlite:{folder}/registry.db") as server:
        async with _dependents(server) as crowd:
            rows += _rows("death of sidecar", await _kill(server, crowd, folder, kills, lambda provider: provider.sidecar_pid))
            rows += _rows("death of app", await _kill(server, crowd, folder, kills, lambda provider: provider.app_pid))
    if reason := lost_packets.why_not():
        print(f"death by lost packets: skipped, {reason}", file=sys.stderr)
    else:
        rows += _rows("death by lost packets", await _lose_packets(1 if scale.quick else 3))
    return rows


@asynccontextmanager
async def _dependents(server: Program | classic.Classic) -> AsyncIterator[Crowd]:
    async with Crowd(tables=True) as crowd:
        await register(server.url, (crowd.registration(index, "Dependent", [NAME]) for index in range(DEPENDENTS)))
        if isinstance(server, Program):
            await settle(crowd, DEPENDENTS)
        yield crowd


async def _kill(server: Program, crowd: Crowd, folder: Path, kills: int, victim: Callable[[Provider], int]) -> list[float]:
    times = []
    for _ in range(kills):
        provider = await asyncio.to_thread(Provider, NAME, server.url, folder)
        try:
            await _until_up(server, crowd, provider.url)
            await asyncio.sleep(random.uniform(0.2, 0.5))
            died = crowd.expect(range(DEPENDENTS), removed=provider.url)
            pid = victim(provider)
            started = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            times.append(await died.wait(LIMIT_S) - started)
            crowd.forget(died)
        finally:
            await asyncio.to_thread(provider.stop)
        caller = await Caller.connect(server.url)  # what is dead is forgotten after an hour: not here
        await caller.call("DELETE", f"{server.url}/services", provider.url.encode(), "text/plain")
        caller.close()
    return times


async def _until_up(server: Program, crowd: Crowd, url: str) -> None:
    """Wait until all dependents know a provider."""
    for _ in range(int(LIMIT_S / 0.02)):
        if len(crowd.knowing(url)) == DEPENDENTS:
            return
        await asyncio.sleep(0.02)
    raise RuntimeError(f"{len(crowd.knowing(url))} of {DEPENDENTS} dependents know {url}: {server.lines[-3:]}")


async def _lose_packets(repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        with disk_folder() as folder, lost_packets.Namespace() as namespace:
            targets = ("--listen", f"{namespace.host}:0", "--targets", "127.0.0.0/8,10.0.0.0/8")
            with registry(*targets, store=f"sqlite:{folder}/registry.db") as server:
                async with _dependents(server) as crowd:
                    provider = await asyncio.to_thread(Provider, NAME, server.url, folder, namespace.words, namespace.guest)
                    try:
                        await _until_up(server, crowd, provider.url)
                        await asyncio.sleep(random.uniform(0.5, 3.5))
                        died = crowd.expect(range(DEPENDENTS), removed=provider.url)
                        started = time.perf_counter()
                        namespace.drop()
                        times.append(await died.wait(LIMIT_S) - started)
                    finally:
                        await asyncio.to_thread(provider.stop)
    return times


async def on_classic(scale: Scale) -> list[Row]:
    """One death alone: it checks one instance after the other, with a pause of 3 s after each."""
    if scale.quick:
        print("death, classic: skipped by --quick, for it takes minutes", file=sys.stderr)
        return []
    with disk_folder() as folder:
        async with classic.classic("registry", folder) as server, _dependents(server) as crowd, Crowd() as provider:
            await register(server.url, [provider.registration(0, NAME)], connections=1)
            died = crowd.expect(range(DEPENDENTS), removed=provider.url(0))
            await asyncio.sleep(1.0)
            started = time.perf_counter()
            provider.stop()
            last = await died.wait(CLASSIC_LIMIT_S)
            return _rows("death of provider", [last - started])


async def on_consul(scale: Scale) -> list[Row]:
    times = []
    with disk_folder() as folder:
        async with consul.consul(folder) as agent:
            taps = Taps()
            await taps.open(agent.url, DEPENDENTS)
            reading = f"{agent.url}/v1/health/service/{NAME}?passing"
            for number in range(_kills(scale)):
                async with Crowd() as provider:
                    check = {"HTTP": f"http://127.0.0.1:{provider.port}/h/0", "Interval": f"{PEER_INTERVAL_S}s", "Timeout": "2s"}
                    await agent.register(ID=f"target-{number}", Name=NAME, Port=provider.port, Check=check)
                    await _until(reading, lambda found: len(found) == 1)
                    taps.send(request("GET", f"{reading}&index={await consul.index_of(reading)}&wait=60s"))
                    await asyncio.sleep(random.uniform(0.5, 0.5 + PEER_INTERVAL_S))
                    news = taps.expect(b"\r\n\r\n[]")
                    started = time.perf_counter()
                    provider.stop()
                    times.append(await taps.wait(news, LIMIT_S) - started)
                await call("PUT", f"{agent.url}/v1/agent/service/deregister/target-{number}")
            taps.close()
    return _rows("death of provider", times)


async def on_etcd(scale: Scale) -> list[Row]:
    times = []
    with disk_folder() as folder:
        async with etcd.etcd(folder) as member:
            taps = Taps()
            await taps.open(member.url, DEPENDENTS)
            watch = {"create_request": {"key": etcd.text("target/"), "range_end": etcd.text("target0")}}
            opened = taps.expect(b'"created":true')
            taps.send(request("POST", f"{member.url}/v3/watch", json.dumps(watch).encode()))
            await taps.wait(opened)
            for _ in range(_kills(scale)):
                lease = (await member.ask("lease/grant", TTL=PEER_INTERVAL_S))["ID"]
                await member.ask("kv/put", key=etcd.text("target/1"), value=etcd.text("x"), lease=lease)
                for _ in range(2):
                    await asyncio.sleep(1.0)
                    await member.ask("lease/keepalive", ID=lease)
                await asyncio.sleep(random.uniform(0.0, 1.0))
                news = taps.expect(b'"type":"DELETE"')
                started = time.perf_counter()
                times.append(await taps.wait(news, LIMIT_S) - started)
            taps.close()
    return _rows("death of provider", times)


async def on_zookeeper(scale: Scale) -> list[Row]:
    """A session of 3 s, which its client keeps up by a ping each second; then its connection is cut."""
    times = []
    with disk_folder() as folder:
        async with zookeeper.zookeeper(folder) as server:
            told: set[zookeeper.Session] = set()
            all_told = asyncio.Event()

            def on_frame(session: zookeeper.Session, frame: bytes) -> None:
                if frame.startswith(zookeeper.EVENT):
                    told.add(session)
                    if len(told) == DEPENDENTS:
                        all_told.set()

            owner = await zookeeper.connect(server.port)
            owner.send(zookeeper.create(1, f"/{NAME}"))
            await asyncio.sleep(0.3)
            sessions = [await zookeeper.connect(server.port, on_frame, 120_000) for _ in range(DEPENDENTS)]
            for _ in range(_kills(scale)):
                provider = await zookeeper.connect(server.port, timeout_ms=1000 * PEER_INTERVAL_S)
                provider.send(zookeeper.create(1, f"/{NAME}/1", b"x", zookeeper.EPHEMERAL))
                await asyncio.sleep(1.0)
                for session in sessions:
                    session.send(zookeeper.children(1, f"/{NAME}", watch=True))
                provider.send(zookeeper.ping())
                await asyncio.sleep(random.uniform(0.2, 1.0))
                told.clear()
                all_told.clear()
                started = time.perf_counter()
                provider.transport.abort()
                await asyncio.wait_for(all_told.wait(), LIMIT_S)
                times.append(time.perf_counter() - started)
            for session in (*sessions, owner):
                session.transport.abort()
    return _rows("death of provider", times)


def _kills(scale: Scale) -> int:
    return 1 if scale.quick else 3


async def _until(url: str, true: Callable[[list[object]], bool]) -> None:
    for _ in range(int(LIMIT_S / 0.1)):
        if true(json.loads(await call("GET", url))):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} does not come to what is waited for")


def _rows(workload: str, times: list[float]) -> list[Row]:
    return [
        (workload, "last knows, p50", "ms", 1000 * percentile(times, 0.50)),
        (workload, "last knows, p99", "ms", 1000 * percentile(times, 0.99)),
        (workload, "last knows, max", "ms", 1000 * max(times)),
        (workload, "deaths", "count", float(len(times))),
    ]


PEERS = {"pillion": pillion, classic.NAME: on_classic, consul.NAME: on_consul, etcd.NAME: on_etcd, zookeeper.NAME: on_zookeeper}
