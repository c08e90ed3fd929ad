"""The sidecar's two faces: the peer listener for the registry, and the guard of the local one, which is for the app. Routes only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pillion_common.errors import Forbidden, InvalidInput, WrongHost
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.router import Router
from pillion_common.trust import Token, check_token
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.local.departure import Departure
from pillion_sidecar.local.events import Events
from pillion_sidecar.local.lookups import Lookups
from pillion_sidecar.local.status import Status
from pillion_sidecar.logs.intake import Intake
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Drained, decode_patch, to_json


def peer_routes(
    check: AppCheck,
    table: ProviderTable,
    registrar: Registrar,
    token: Token | None,
    on_change: Callable[[list[str]], None],
    status: Status,
    departure: Departure,
) -> Router:
    """Return the routes of the peer listener: heartbeats, patches, probes, dialling back, waiting until the app is withdrawn; nothing else.

    Args:
        on_change: told the names whose providers a patch changed, which may be none.
    """

    made = check.heartbeat, Response(*check.heartbeat)

    def heartbeat(request: Request) -> Response:
        nonlocal made
        registrar.heard()
        if made[0] is not check.heartbeat:
            made = check.heartbeat, Response(*check.heartbeat)
        return made[1]

    def patch(request: Request) -> Response:
        check_token(token, request.header(b"authorization"), request.peer)
        changed = table.apply(decode_patch(request.body))
        registrar.heard()
        on_change(changed)
        return Response(200)

    dial_back: Handler | None = None

    def reach(request: Request) -> Handler:
        nonlocal dial_back
        if dial_back is None:
            from pillion_sidecar.local.reach import Reach  # few are ever asked

            dial_back = Reach(table, token).answer
        return dial_back

    router = Router()
    router.add("GET", "/heartbeat", heartbeat)
    router.add("POST", "/services", patch)
    router.add_route("POST", "/reach", reach)
    status.add_probes_to(router)
    departure.add_to(router)
    return router


def local_routes(
    lookups: Lookups,
    events: Events,
    intake: Intake,
    status: Status,
    *,
    drain: Callable[[], Awaitable[Drained | None]],
    undrain: Callable[[], Awaitable[str]],
    shut_down: Callable[[], None],
) -> Router:
    """Return the routes of the local listener; `/events` is left to the streaming handler."""

    async def drained(request: Request) -> Response:
        found = await drain()
        if found is None:
            return Response(200, to_json({"State": "draining", "Acknowledged": None, "Waiting": []}))
        return Response(200, to_json({"State": "draining", "Acknowledged": found.acknowledged, "Waiting": found.waiting}))

    async def undrained(request: Request) -> Response:
        if fault := await undrain():
            return Response(502, to_json({"Error": "registry", "Message": f"the app was not let back: {fault}; try again"}))
        return Response(200, to_json({"State": "registered"}))

    def stopping(request: Request) -> Response:
        shut_down()
        return Response(200, to_json({"State": "stopping"}))

    def stream(request: Request) -> Handler | None:
        if request.query():
            raise InvalidInput("/events takes no parameters", code="invalid_query")
        events.admit()
        return None

    router = Router()
    for part in (lookups, intake, status):
        part.add_to(router)
    router.add_route("GET", "/events", stream)
    router.add("POST", "/drain", drained)
    router.add("POST", "/undrain", undrained)
    router.add("POST", "/shutdown", stopping)
    return router


def guard_local(route: Route, hosts: Callable[[], frozenset[bytes]]) -> Route:
    """Let pass only what names this listener and does not come from a foreign page in a browser (DNS rebinding, cross-site requests).

    Args:
        hosts: the Host headers that name the listener, e.g. 127.0.0.1:7071.
    """

    def guarded(request: Request) -> Handler | None:
        host = request.header(b"host")
        if host.lower() not in hosts():
            raise WrongHost(f"the Host header {host.decode('latin-1')!r} does not name this listener; use 127.0.0.1 or localhost")
        site = request.header(b"sec-fetch-site")
        if site in (b"cross-site", b"same-site") or request.header(b"origin") not in (b"", b"http://" + host):
            raise Forbidden("requests from another site's page are refused here", code="cross_site")
        return route(request)

    return guarded
