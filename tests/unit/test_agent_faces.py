"""The agent's two listeners: heartbeats and patches for each instance, and how all stand."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest
from fleet_lab import FULL, SECRET, A, FakeRegistry, fleet_of, specs, until, web

from pillion_common.config import Address
from pillion_common.errors import Forbidden, MethodNotAllowed, NotFound, PillionError, Unauthorized
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_common.lifecycle import Readiness
from pillion_common.trust import Token
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.faces import Status, peer_route
from pillion_sidecar.agent.settings import EngineAddress
from pillion_sidecar.agent.watch import Watch


@pytest.fixture
def app() -> Iterator[int]:
    """Return the port of something that takes connections."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    server = Server(fake.serve)
    fake.url = await server.listen(Address("127.0.0.1", 0))
    yield fake
    await server.close(0.1)


# The peer listener.


def ask(route: Any, method: str, target: str, body: bytes = b"", *headers: tuple[bytes, bytes]) -> Response:
    request = Request(method, target.encode(), list(headers), "10.0.0.1", "1.1", True)
    request.body = body
    response: Response = route(request)(request)
    return response


async def test_heartbeats_are_answered_for_each(registry: FakeRegistry, app: int) -> None:
    async with fleet_of() as fleet:
        route = peer_route(fleet, None)
        kept = route(Request("GET", b"/instances/000000000001/heartbeat", [], "", "1.1", True))
        assert kept is not None
        unknown = kept(Request("GET", b"/", [], "", "1.1", True))
        assert isinstance(unknown, Response)
        assert (unknown.status, json.loads(unknown.body)["Reason"]) == (503, "the agent knows no such container any more")
        fleet.apply(specs(registry, app, web(1, app)))
        down = ask(route, "GET", "/instances/000000000001/heartbeat")
        assert (down.status, json.loads(down.body)) == (503, {"State": "down", "Reason": "it was not checked yet"})
        (instance,) = fleet
        await until(lambda: instance.well)
        again = kept(Request("GET", b"/", [], "", "1.1", True))  # what was found for a head is kept, over an instance's comings and goings
        assert isinstance(again, Response)
        assert (again.status, again.body) == (200, b'{"State":"up"}\n')


async def test_patches_tell_what_is_missing_and_need_the_token(registry: FakeRegistry, app: int) -> None:
    token = Token(SECRET)
    target, body = "/instances/000000000001/services", json.dumps(FULL).encode()
    async with fleet_of(token=token) as fleet:
        route = peer_route(fleet, token)
        fleet.apply(specs(registry, app, web(1, app, labels={"pillion.dev/requires": "Db:2"}), web(2, app + 1)))
        first = fleet.get(A[:12])
        assert first is not None
        assert first.missing() == {"Db": "0 of 2"}
        with pytest.raises(Unauthorized):
            ask(route, "POST", target, body)
        with pytest.raises(Forbidden):
            ask(route, "POST", target, body, (b"authorization", b"Bearer wrong"))
        good = (b"authorization", b"Bearer " + SECRET.encode())
        assert ask(route, "POST", target, body, good).status == 200
        assert first.missing() == {"Db": "1 of 2"}
        assert ask(route, "POST", "/instances/000000000002/services", body, good).status == 200
        assert ask(route, "POST", "/instances/000000000003/services", body, good).status == 503
        with pytest.raises(PillionError, match="not JSON"):
            ask(route, "POST", target, b"{", good)


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("GET", "/", NotFound),
        ("GET", "/heartbeat", NotFound),
        ("GET", "/instances/x", NotFound),
        ("GET", "/instances/x/status", NotFound),
        ("GET", "/instances/x/y/heartbeat", NotFound),
        ("POST", "/instances/x/heartbeat", MethodNotAllowed),
        ("GET", "/instances/x/services", MethodNotAllowed),
    ],
)
async def test_the_peer_listener_serves_nothing_else(method: str, target: str, error: type[PillionError]) -> None:
    async with fleet_of() as fleet:
        with pytest.raises(error):
            ask(peer_route(fleet, None), method, target)


# The local listener.


async def test_the_local_listener_tells_how_all_stand(registry: FakeRegistry, app: int) -> None:
    async with fleet_of() as fleet:
        watch = Watch(
            Engine(EngineAddress(path="/none")),
            resync_s=30.0,
            only=(),
            on_picture=lambda containers, listed: None,
            on_dead=fleet.dead,
            on_signal=fleet.signalled,
        )
        readiness = Readiness()
        route = Status(fleet, watch, readiness, lambda: {"odd": "pillion.dev/port is missing"}).routes()
        fleet.apply(specs(registry, app, web(1, app, "shop-web-1"), web(2, app + 1, "shop-web-2", health="starting")))
        first = fleet.get(A[:12])
        await until(lambda: first and first.state == "up" and all(instance.registrar.registered for instance in fleet))
        told = json.loads(ask(route, "GET", "/status").body)
        assert told["Engine"] == {"Fault": "it was not asked yet", "SeenSecondsAgo": None, "Events": 0}
        assert told["LeftOut"] == {"odd": "pillion.dev/port is missing"}
        assert told["Instances"][0] == {
            "Container": "shop-web-1",
            "ID": "000000000001",
            "Service": "Web",
            "URL": f"http://127.0.0.1:{app}",
            "InstanceID": "Web-000000000001",
            "State": "up",
            "Reason": None,
            "Registered": True,
            "Fault": None,
            "Missing": {},
        }
        for target, headers in (("/status?format=text", ()), ("/status", ((b"accept", b"text/plain"),))):
            lines = ask(route, "GET", target, b"", *headers).body.decode().splitlines()
            assert [line.split()[:4] for line in lines[:2]] == [
                ["CONTAINER", "SERVICE", "URL", "STATE"],
                ["shop-web-1", "Web", f"http://127.0.0.1:{app}", "up"],
            ]
            assert lines[2].endswith("starting  its HEALTHCHECK has not passed yet")
            assert lines[3:] == ["", "odd: pillion.dev/port is missing"]
        metrics = ask(route, "GET", "/metrics").body.decode()
        assert 'pillion_agent_instances{state="up"} 1\n' in metrics
        assert "pillion_agent_registered 2\n" in metrics
        assert "pillion_agent_engine_up 0\n" in metrics
        assert ask(route, "GET", "/livez").status == 200
        assert ask(route, "GET", "/version").status == 200
        assert ask(route, "GET", "/readyz").status == 200
        readiness.add("engine", lambda: watch.fault)
        ready = ask(route, "GET", "/readyz")
        assert (ready.status, json.loads(ready.body)["Checks"]) == (503, {"engine": "it was not asked yet"})
