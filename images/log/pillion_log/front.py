"""Answers writes straight from their bytes, and hands everything else to Tornado: a log line costs a quarter of what a handler would.

Owns who may write. The paths: `POST /log` and `POST /logs`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import Forbidden, MethodNotAllowed, PillionError, WrongType
from pillion_common.http.connection import Connection, StreamingHandler
from pillion_common.http.message import Request, Response, error_response
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


class Front:
    """A streaming handler for the core's Server.

    Args:
        intake: takes the writes.
        gate: says who may write.
        rest: answers all other requests.
    """

    def __init__(self, intake: Intake, gate: Gate, rest: StreamingHandler) -> None:
        self._intake = intake
        self._gate = gate
        self._rest = rest
        # path: (what takes a POST, the methods that `rest` answers)
        self._writes: dict[bytes, tuple[Callable[[bytes], Awaitable[Response]], tuple[str, ...]]] = {
            b"/log": (self._take_text, ()),
            b"/logs": (self._take_batch, ("GET", "HEAD")),
        }

    async def __call__(self, request: Request, connection: Connection) -> None:
        """Answer one whole request."""
        write = self._writes.get(request.raw_path)
        if write is None or request.method in write[1]:
            await self._rest(request, connection)
            return
        take, others = write
        try:
            if request.method != "POST":
                raise MethodNotAllowed(request.method, (*others, "POST"))
            self._gate.check(request)
            response = await take(request.body)
        except PillionError as exc:
            response = error_response(exc)
        if request.version == "1.0":
            request.keep_alive = False
        head = response.head(request.keep_alive, connection.date)
        connection.write(head if request.method == "HEAD" else head + response.body)

    async def _take_text(self, body: bytes) -> Response:
        await self._intake.take_text(body)
        return Response()

    async def _take_batch(self, body: bytes) -> Response:
        return Response(body=models.encode(await self._intake.take_batch(body)))
