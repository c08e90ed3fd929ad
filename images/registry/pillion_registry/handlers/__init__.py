"""The registry's HTTP face: decodes, asks the Registry, encodes. Each handler's path stands in `make_application`."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import MethodNotAllowed, PillionError
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.tornado_handlers import Application
from pillion_common.lifecycle import Readiness
from pillion_common.trust import Token, check_token
from pillion_registry.handlers.figures import MetricsHandler
from pillion_registry.handlers.pages import PageFileHandler, PageHandler
from pillion_registry.handlers.past import EventsHandler, ServiceHandler
from pillion_registry.handlers.reports import GraphHandler, WhyHandler
from pillion_registry.handlers.streams import WatchHandler
from pillion_registry.handlers.writes import DrainHandler, ForgetHandler, HideHandler, ServicesHandler, StateHandler, UndrainHandler
from pillion_registry.registry import Registry


def make_application(registry: Registry, readiness: Readiness, token: Token | None, exempt: tuple[Network, ...]) -> Application:
    """Return the registry's Tornado application."""
    needs = {"registry": registry, "token": token, "exempt": exempt}
    routes = [
        (r"/services", ServicesHandler, needs),
        (r"/services/([^/]+)", ServiceHandler, needs),
        (r"/services/([^/]+)/state", StateHandler, needs),
        (r"/services/([^/]+)/drain", DrainHandler, needs),
        (r"/services/([^/]+)/undrain", UndrainHandler, needs),
        (r"/services/([^/]+)/hide", HideHandler, needs),
        (r"/services/([^/]+)/forget", ForgetHandler, needs),
        (r"/watch", WatchHandler, needs),
        (r"/events", EventsHandler, needs),
        (r"/metrics", MetricsHandler, needs),
        (r"/graph", GraphHandler, needs),
        (r"/why", WhyHandler, needs),
        (r"/", PageHandler, needs),
        (r"/dashboard/([^/]+)", PageFileHandler, needs),
    ]
    return Application(routes, readiness)


def hot_routes(registry: Registry, token: Token | None, exempt: tuple[Network, ...]) -> dict[bytes, Route]:
    """Return what is answered straight from bytes, beside Tornado: registrations, of which many come at once after a restart."""

    def services(request: Request) -> Handler | None:
        if request.method in ("GET", "HEAD", "DELETE"):
            return None
        if request.method != "POST":
            raise MethodNotAllowed(request.method, ("DELETE", "GET", "HEAD", "POST"))
        authorization = request.header(b"authorization")
        trusted = token is not None and token.fits(authorization)

        def register(request: Request) -> Awaitable[Response]:
            try:
                if not trusted:
                    check_token(token, authorization, request.peer, exempt)
                return answer(models.decode(request.body, models.Registration), request, trusted)
            except PillionError as exc:
                note(exc, request)
                raise

        return register

    async def answer(registration: models.Registration, request: Request, trusted: bool) -> Response:
        try:
            return Response(200, models.encode(await registry.register(registration, request.peer, trusted)))
        except PillionError as exc:
            note(exc, request)
            raise

    def note(error: PillionError, request: Request) -> None:
        registry.refusals.note(error, request.body, request.peer, time.time())

    return {b"/services": services}
