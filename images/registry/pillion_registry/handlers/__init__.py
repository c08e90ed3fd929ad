"""The registry's HTTP face: decodes, asks the Registry, encodes. Paths and handlers stand in `routes.py`."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from typing import Any

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import MethodNotAllowed, PillionError
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.tornado_handlers import Application
from pillion_common.lifecycle import Readiness
from pillion_common.trust import Token, check_token
from pillion_registry.handlers.documents import OpenApiHandler
from pillion_registry.handlers.pages import PageFileHandler
from pillion_registry.handlers.routes import PATHS
from pillion_registry.registry import Registry


def make_application(registry: Registry, readiness: Readiness, token: Token | None, exempt: tuple[Network, ...]) -> Application:
    """Return the registry's Tornado application."""
    needs = {"registry": registry, "token": token, "exempt": exempt}
    routes: list[Any] = [(re.sub(r"\{\w+\}", "([^/]+)", one.path), one.handler, needs) for one in PATHS if one.handler is not None]
    routes += [(r"/openapi\.json", OpenApiHandler, needs), (r"/dashboard/([^/]+)", PageFileHandler, needs)]
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
                registry.check_current()
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
