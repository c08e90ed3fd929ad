"""The agent's two faces: heartbeats and patches for the registry, and how it stands for people, probes and monitoring. Routes only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pillion_common import __version__
from pillion_common.errors import MethodNotAllowed, NotFound
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import TEXT, Request, Response
from pillion_common.http.router import Router
from pillion_common.lifecycle import Readiness
from pillion_common.trust import Token, check_token
from pillion_sidecar.agent import table
from pillion_sidecar.agent.fleet import Fleet
from pillion_sidecar.agent.instance import PATH, Instance
from pillion_sidecar.agent.watch import Watch
from pillion_sidecar.local.exposition import METRICS_TYPE, Row, exposition
from pillion_sidecar.wire import decode_patch, to_json

_ALIVE = Response(200, b'{"State":"up"}\n')
_UNKNOWN = Response(503, b'{"State":"down","Reason":"the agent knows no such container any more"}\n')
_LIVE = Response(200, b'{"Status":"ok"}\n')
STATES = ("starting", "up", "down", "draining")


def peer_route(fleet: Fleet, token: Token | None) -> Route:
    """Return the route of the peer listener: /instances/{handle}/heartbeat and /instances/{handle}/services.

    What it finds is kept for all requests with the same head, so the handlers look for their instance each time.
    """

    def heartbeat(handle: str) -> Response:
        instance = fleet.get(handle)
        if instance is None:
            return _UNKNOWN
        well, reason = instance.beat()
        return _ALIVE if well else Response(503, to_json({"State": "down", "Reason": reason}))

    def patch(handle: str, request: Request) -> Response:
        check_token(token, request.header(b"authorization"), request.peer)
        instance = fleet.get(handle)
        if instance is None:
            return _UNKNOWN
        instance.apply(decode_patch(request.body))
        return Response(200)

    def route(request: Request) -> Handler:
        handle, _, what = request.path.removeprefix(PATH).partition("/")
        if not request.path.startswith(PATH) or what not in ("heartbeat", "services"):
            raise NotFound(f"there is nothing at {request.path}", code="no_such_path")
        allowed = ("GET", "HEAD") if what == "heartbeat" else ("POST",)
        if request.method not in allowed:
            raise MethodNotAllowed(request.method, allowed)
        return (lambda _: heartbeat(handle)) if what == "heartbeat" else (lambda request: patch(handle, request))

    return route


class Status:
    """How the agent and its instances stand.

    Args:
        left_out: container -> why (a part of) it is not registered.
    """

    def __init__(self, fleet: Fleet, watch: Watch, readiness: Readiness, left_out: Callable[[], Mapping[str, str]]) -> None:
        self._fleet = fleet
        self._watch = watch
        self._readiness = readiness
        self._left_out = left_out

    def routes(self) -> Router:
        """Return the routes of the local listener."""
        router = Router()
        router.add("GET", "/livez", lambda request: _LIVE)
        router.add("GET", "/readyz", self._ready)
        router.add("GET", "/version", lambda request: Response(200, to_json({"Version": __version__})))
        router.add("GET", "/status", self._status)
        router.add("GET", "/metrics", self._metrics)
        return router

    def _ready(self, request: Request) -> Response:
        ready, checks = self._readiness.report()
        return Response(200 if ready else 503, to_json({"Status": "ok" if ready else "not ready", "Checks": checks}))

    def _status(self, request: Request) -> Response:
        if request.query().get("format") == "text" or request.header(b"accept").startswith(b"text/plain"):
            return Response(200, table.running(self._fleet, self._left_out()).encode(), TEXT)
        watch = self._watch
        told = {
            "Engine": {
                "Fault": watch.fault or None,
                "SeenSecondsAgo": None if watch.looked_at is None else round(time.monotonic() - watch.looked_at, 1),
                "Events": watch.events_seen,
            },
            "Instances": [_shown(instance) for instance in self._fleet],
            "LeftOut": self._left_out(),
        }
        return Response(200, to_json(told))

    def _metrics(self, request: Request) -> Response:
        fleet, watch = self._fleet, self._watch
        states = Counter(instance.state for instance in fleet)
        rows: list[Row] = [("pillion_agent_instances", "gauge", "instances, by state", {"state": one}, states[one]) for one in STATES]
        registered = sum(instance.registrar.registered for instance in fleet)
        rows += [
            ("pillion_agent_registered", "gauge", "instances that the registry has", {}, registered),
            ("pillion_agent_left_out", "gauge", "containers with labels that cannot be registered as they ask", {}, len(self._left_out())),
            ("pillion_agent_engine_up", "gauge", "whether the engine answers", {}, not watch.fault),
            ("pillion_agent_events_total", "counter", "events of the engine", {}, watch.events_seen),
            ("pillion_agent_event_streams_total", "counter", "times the stream of events was opened", {}, watch.streams_opened),
        ]
        return Response(200, exposition(rows), METRICS_TYPE)


def _shown(instance: Instance) -> dict[str, Any]:
    spec, registrar = instance.spec, instance.registrar
    return {
        "Container": spec.container.name,
        "ID": spec.container.short_id,
        "Service": spec.settings.name,
        "URL": spec.url,
        "InstanceID": spec.instance_id,
        "State": instance.state,
        "Reason": instance.reason or None,
        "Registered": registrar.registered,
        "Fault": registrar.fault or None,
        "Missing": instance.missing(),
    }
