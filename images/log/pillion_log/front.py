"""Answers writes straight from their bytes, beside Tornado: a log line costs a fraction of what a handler there would.

Owns who may write. The paths: `POST /log` and `POST /logs`.
"""

from __future__ import annotations

from collections.abc import Awaitable

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import Forbidden, MethodNotAllowed, Unavailable, WrongType
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.promise import Promise
from pillion_common.http.taker import Taker, Tell
from pillion_common.trust import Token, check_token
from pillion_log.intake import Intake, Taken

_STORED = Response()


class _BatchAnswer(Promise):
    __slots__ = ()

    def tell(self, outcome: Taken | Unavailable) -> None:
        self.settle(Response(body=models.encode(outcome)) if isinstance(outcome, Taken) else outcome)


class Gate:
    """Lets a write pass, or says why not."""

    def __init__(self, token: Token | None, exempt: tuple[Network, ...]) -> None:
        self._token = token
        self._exempt = exempt

    def guard(self, head: Request, handler: Handler) -> Handler:
        """Return a handler for writes with this head: without the token each is asked where it comes from.

        Raises:
            Forbidden: it is sent by a foreign web page. WrongType: it is packed.
        """
        if head.header(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("a page of another site may not write to this log", code="cross_site")
        if head.header(b"content-encoding").lower() not in (b"", b"identity"):
            raise WrongType("the body is packed; send it without Content-Encoding")
        authorization = head.header(b"authorization")
        if self._token is None or self._token.fits(authorization):
            return handler

        def checked(request: Request) -> Response | Promise | Awaitable[Response]:
            check_token(self._token, authorization, request.peer, self._exempt)
            return handler(request)

        return checked


def hot_routes(intake: Intake, gate: Gate) -> dict[bytes, Route]:
    """Return the writes as hot routes of the core's Server.

    Args:
        intake: takes what is written.
        gate: says who may write.
    """

    def log(head: Request) -> Handler:
        if head.method != "POST":
            raise MethodNotAllowed(head.method, ("POST",))
        return gate.guard(head, texts)

    def logs(head: Request) -> Handler | None:
        if head.method in ("GET", "HEAD"):
            return None
        if head.method != "POST":
            raise MethodNotAllowed(head.method, ("GET", "HEAD", "POST"))
        return gate.guard(head, take_batch)

    def take_text(body: bytes, peer: str, tell: Tell) -> None:
        intake.take_text(body, tell)

    def take_batch(request: Request) -> Promise:
        answer = _BatchAnswer()
        intake.take_batch(request.body, answer.tell)
        return answer

    texts = Taker(take_text, _STORED)
    return {b"/log": log, b"/logs": logs}
