"""footprint: what a sidecar costs that has nothing to do, how soon after its exec it answers, and how big the images are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from crowd import Crowd, register
from figures import Row, Scale, percentile
from load import call
from machine import disk_folder, free_port, on_server_cpu, scheduled_s, usage
from ours import registry, sidecar, sidecar_environment
from peers import consul
from programs import Program

PROVIDERS = 5
NAME = "Provider"
IMAGES = ("pillion/sidecar:dev", "pillion/registry:dev", "pillion/log:dev")
LIMIT_S = 15.0
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


async def pillion(scale: Scale) -> list[Row]:
    rows = []
    with disk_folder() as folder, registry() as server:
        async with Crowd() as crowd, await asyncio.start_server(_hold, "127.0.0.1", 0) as app:
            await register(server.url, (crowd.registration(index, NAME) for index in range(PROVIDERS)))
            features = _features(folder, app.sockets[0].getsockname()[1])
            lines = features | _lines(folder)
            for workload, settings in (("idle sidecar", {}), ("idle, every feature", features), ("idle, and all for lines", lines)):
                for measured in (False, True):  # once before, so that its bytecode is there, as it is in its image
                    with sidecar(server, folder / workload, "Idle", NAME, **settings) as idle:
                        await _told(idle)
                        rows += await _idle(workload, idle.process.pid, scale) if measured else []
        starts = [await asyncio.to_thread(_start, server, folder / f"start-{number}") for number in range(3 if scale.quick else 10)]
    rows.append(("start of a sidecar", "exec to answer, p50", "ms", 1000 * percentile(starts, 0.5)))
    rows.append(("start of a sidecar", "exec to answer, max", "ms", 1000 * max(starts)))
    return rows + _images()


def _features(folder: Path, app_port: int) -> dict[str, str]:
    """Return what switches on all that costs something between app and registry: a check, waiting, files, DNS."""
    projected = folder / "projected"
    projected.mkdir()
    return {
        "PILLION_PORT": str(app_port),
        "PILLION_CHECK": "tcp",
        "PILLION_WAIT": "1",
        "PILLION_ZONE": "here",
        "PILLION_PROJECT_DIR": str(projected),
        "PILLION_DNS": "127.0.0.1:0",
    }


def _lines(folder: Path) -> dict[str, str]:
    """Return what switches on each way in for log lines."""
    logs = folder / "logs"
    logs.mkdir()
    (logs / "app.log").write_text("started\n")
    return {"PILLION_LOG_TO": "LogService", "PILLION_LOG_FILES": f"{logs}/*.log", "PILLION_SYSLOG": "127.0.0.1:0"}


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be an app: hold a connection until the other side closes it."""
    await reader.read()
    writer.close()


async def _told(idle: Program) -> None:
    for _ in range(100):
        table = json.loads(await call("GET", f"{idle.addresses[1]}/providers"))["Providers"]
        if len(table.get(NAME, ())) == PROVIDERS:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the sidecar was not told of its providers")


async def on_consul(scale: Scale) -> list[Row]:
    """A client agent, which stands beside an app as our sidecar does."""
    with disk_folder() as folder:
        async with consul.consul(folder) as server, consul.consul(folder, join=server) as client:
            service = {"Node": "bench", "Address": "127.0.0.1"}
            for index in range(PROVIDERS):
                body = json.dumps(service | {"Service": {"ID": f"p{index}", "Service": NAME, "Port": 7000 + index}})
                await call("PUT", f"{server.url}/v1/catalog/register", body.encode())
            assert len(json.loads(await call("GET", f"{client.url}/v1/health/service/{NAME}?cached"))) == PROVIDERS
            return await _idle("idle sidecar", client.process.pid, scale)


async def _idle(workload: str, pid: int, scale: Scale) -> list[Row]:
    await asyncio.sleep(3 if scale.quick else 10)
    seconds = 5 if scale.quick else 20
    before = scheduled_s(pid)
    await asyncio.sleep(seconds)
    used_s = scheduled_s(pid) - before
    now = usage(pid)
    return [
        (workload, "resident", "MB", now.resident / 1e6),
        (workload, "resident, shared out", "MB", now.shared_out / 1e6),
        (workload, "cpu", "% of a core", 100 * used_s / seconds),
    ]


def _start(server: Program, state: Path) -> float:
    """Start a sidecar as a container would; return the seconds from exec to its first answer."""
    local, peer = free_port(), free_port()
    command = [sys.executable, "-m", "pillion_common", "sidecar"]
    environment = os.environ | sidecar_environment(server, state, "Started", peer, local)
    with on_server_cpu():
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - started < LIMIT_S:
            if _answers(local):
                return time.perf_counter() - started
            time.sleep(0.001)
        raise RuntimeError(f"a sidecar did not answer within {LIMIT_S:g} s")
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(LIVEZ % f"127.0.0.1:{port}".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _images() -> list[Row]:
    """Return the images' sizes; those that are not built are named."""
    if shutil.which("docker") is None:
        print("image sizes: skipped, docker is not installed", file=sys.stderr)
        return []
    rows = []
    for image in IMAGES:
        shown = subprocess.run(["docker", "image", "inspect", "--format", "{{.Size}}", image], capture_output=True, text=True)
        if shown.returncode:
            print(f"image {image}: not built", file=sys.stderr)
        else:
            rows.append((f"image {image}", "size", "MB", int(shown.stdout) / 1e6))
    return rows


PEERS = {"pillion": pillion, consul.NAME: on_consul}
