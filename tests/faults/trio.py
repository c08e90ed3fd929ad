"""Three registries that share three NATS servers, each of which can be killed, paused, started again, or cut off from NATS."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cable import Cable
from failover import ask
from fleet import Member
from nats_lab import NatsServer, nats_servers, store_uri
from processes import Died, tail
from replicas import Cluster

STREAM = "KV_pillion_services"
BUCKETS = "KV_pillion_"  # the catalogue, what classic dependents know, and leases
READY_S = 30.0
WORDS = ("--log-to", "", "--max-instances", "5000", "--flap-changes", "0")  # whoever changes as often as here would be held down


class Replica:
    """One registry, and its way to NATS."""

    def __init__(self, number: int, words: list[str], logs: Path, cables: list[Cable], sabotage: str = "") -> None:
        self.name = f"r{number + 1}"
        self.member = Member(self.name, "registry", words, logs, sabotage=sabotage)
        self.url = f"http://127.0.0.1:{self.member.port}"
        self.cables = cables
        self.log = logs / f"{self.name}.log"

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        self.member.start()
        await self.until_ready(READY_S)

    async def until_ready(self, within_s: float) -> float:
        """Return after how many seconds it says that it is ready.

        Raises:
            Died: it does not.
        """
        began = time.monotonic()
        while (told := await self.readiness())[0] != 200:
            if time.monotonic() > began + within_s:
                raise Died(f"{self.name} is not ready after {within_s:g} s ({told[1]}); {tail(self.log)}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def readiness(self) -> tuple[int, str]:
        """Return the status of /readyz, 0 if there is none, and what it says."""
        try:
            status, body = await ask(self.url, "GET", "/readyz")
        except OSError as exc:
            return 0, repr(exc)
        return status, body.decode()

    async def offered(self) -> set[str]:
        """Return the ServiceURLs that it shows as up."""
        status, body = await ask(self.url, "GET", "/services?state=up")
        if status != 200:
            raise Died(f"{self.name} answered {status} to a list: {body.decode()[:300]}")
        return {one["ServiceURL"] for one in json.loads(body)["Services"]}

    async def said_of(self, url: str) -> str:
        """Return all that it says of a ServiceURL, and the revision that it has come to."""
        _, body = await ask(self.url, "GET", "/services")
        said = json.loads(body)
        found = [{key: value for key, value in one.items() if value} for one in said["Services"] if one["ServiceURL"] == url]
        return f"revision {said['Revision']} {json.dumps(found)}"

    def kill(self) -> None:
        """kill -9."""
        self.member.kill()

    async def stop(self) -> None:
        """SIGTERM, however it stands."""
        self.signal(signal.SIGCONT)
        await asyncio.to_thread(self.member.stop)  # it may want to say good-bye to NATS, by a cable of this loop's

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT."""
        self.member.signal(number)


class Trio:
    """The replicas and the servers."""

    def __init__(self, servers: list[NatsServer], replicas: list[Replica]) -> None:
        self.cluster = Cluster(servers, STREAM)
        self.replicas = replicas

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]


@asynccontextmanager
async def trio(folder: Path, cables: bool = False, sabotage: str = "") -> AsyncIterator[Trio]:
    """Run them all.

    Args:
        folder: for data and logs.
        cables: each replica reaches NATS by cables of its own, which can be cut.
        sabotage: of the registries; see launch.py.
    """
    logs = folder / "logs"
    logs.mkdir()
    async with AsyncExitStack() as stack:
        # Else the servers would tell of their own addresses, and the replicas would go round the cables.
        servers = stack.enter_context(nats_servers(folder / "nats", 3, {"cluster": {"no_advertise": True}} if cables else None))
        replicas = []
        for number in range(3):
            own = [await stack.enter_async_context(Cable(server.address)) for server in servers] if cables else []
            store = f"nats://{','.join(cable.address for cable in own)}" if cables else store_uri(servers)
            words = ["--store", store, "--member", f"r{number + 1}", *WORDS]
            replicas.append(Replica(number, words, logs, own, sabotage))
        for replica in replicas:
            stack.push_async_callback(replica.stop)
            replica.member.start()
        for replica in replicas:
            await replica.until_ready(READY_S)
        yield Trio(servers, replicas)
