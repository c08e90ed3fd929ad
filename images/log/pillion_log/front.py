"""Answers writes straight from their bytes, beside Tornado: a log line costs a quarter of what a handler there would.

Owns who may write. The paths: `POST /log` and `POST /logs`.
"""

from __future__ import annotations

from collections.abc import Awaitable

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import Forbidden, MethodNotAllowed, WrongType
from pillion_common.http.interfaces import HotHandler
from pillion_common.http.message import Request, Response
from pillion_common.trust import Token, check_token
from pillion_log.intake import Intake


class Gate:
    """Lets a write pass, or says why not."""

    def __init__(self, token: Token | None, exempt: tuple[Network, ...]) -> None:
        self._token = token
        self._exempt = exempt

    def check(self, request: Request) -> None:
        """Refuse to write without the token, for a foreign web page, or what is packed.

        Raises:
            Unauthorized, Forbidden, WrongType: the request may not write.
        """
        if request.header(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("a page of another site may not write to this log", code="cross_site")
        check_token(self._token, request.header(b"authorization"), request.peer, self._exempt)
        if request.header(b"content-encoding").lower() not in (b"", b"identity"):
            raise WrongType("the body is packed; send it without Content-Encoding")


def hot_routes(intake: Intake, gate: Gate) -> dict[bytes, HotHandler]:
    """Return the writes as hot routes of the core's Server.

    Args:
        intake: takes what is written.
        gate: says who may write.
    """

    def log(request: Request) -> Awaitable[Response]:
        if request.method != "POST":
            raise MethodNotAllowed(request.method, ("POST",))
        gate.check(request)
        return take_text(request.body)

    def logs(request: Request) -> Awaitable[Response] | None:
        if request.method in ("GET", "HEAD"):
            return None
        if request.method != "POST":
            raise MethodNotAllowed(request.method, ("GET", "HEAD", "POST"))
        gate.check(request)
        return take_batch(request.body)

    async def take_text(body: bytes) -> Response:
        await intake.take_text(body)
        return Response()

    async def take_batch(body: bytes) -> Response:
        return Response(body=models.encode(await intake.take_batch(body)))

    return {b"/log": log, b"/logs": logs}
