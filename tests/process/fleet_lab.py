"""A fleet of instances over a registry that answers as it is told, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fake_engine import container_id, inspected

from pillion_common.http.message import Request, Response
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_sidecar.agent.containers import read_container
from pillion_sidecar.agent.fleet import Fleet
from pillion_sidecar.agent.plan import Rules, Spec, find_wanted

SECRET = "s3cret-s3cret-s3cret"
A, B = container_id(1), container_id(2)
FULL = {"Added": [{"Name": "Db", "URL": "http://10.0.0.7:5432"}], "Full": True, "Services": ["Db"], "Revision": 3, "Epoch": "e"}


class FakeRegistry:
    """Keeps what it is asked, in order, and when it has answered."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.registered: list[dict[str, Any]] = []
        self.bodies: dict[str, bytes] = {}
        self.delays_s: dict[str, float] = {}
        self.url = ""

    async def serve(self, request: Request) -> Response:
        body, step = request.body, f"{request.method} {request.path}"
        self.bodies[step] = body
        await asyncio.sleep(self.delays_s.get(step, self.delays_s.get(request.method, 0.0)))
        if request.method == "DELETE":
            self.log.append(f"DELETE {body.decode()}")
            return Response(200)
        if request.path != "/services":
            self.log.append(step)
            return Response(200, b'{"InstanceID":"x","State":"draining","Acknowledged":1,"Waiting":["late"]}')
        registration = json.loads(body)
        self.registered.append(registration)
        self.log.append(f"POST {registration['InstanceID']}")
        answer = {"InstanceID": registration["InstanceID"], "Revision": 1, "Epoch": "e", "State": "starting", "HeartbeatInterval": 3.0}
        return Response(200, json.dumps(answer).encode())


@asynccontextmanager
async def fleet_of(most: int = 10, token: Token | None = None, heartbeat_host: str = "agent.example") -> AsyncIterator[Fleet]:
    tasks = Supervisor()
    fleet = Fleet(token, most=most, heartbeat_host=heartbeat_host, tasks=tasks)
    fleet.peer_port = 7070
    try:
        yield fleet
    finally:
        await fleet.close()
        await tasks.stop()
        await asyncio.sleep(0)


def specs(registry: FakeRegistry, port: int, *shown: dict[str, Any]) -> dict[str, Spec]:
    fixed = {"registry": registry.url, "log_to": "", "check_interval": "50ms"}
    return find_wanted([one for each in shown if (one := read_container(each))], {}, Rules(fixed)).specs


def web(number: int, port: int, name: str = "web", **more: Any) -> dict[str, Any]:
    labels = {"pillion.dev/name": "Web", "pillion.dev/port": str(port), **more.pop("labels", {})}
    return inspected(container_id(number), name, **{"labels": labels, "networks": {"n": "127.0.0.1"}, **more})


async def until(look: Callable[[], object], within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)
