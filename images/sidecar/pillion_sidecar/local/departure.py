"""Lets the app's end wait for its withdrawal: `GET /drained` on the peer listener answers when nobody comes any more.

On Kubernetes both containers of a pod are told to end at once. An app whose preStop hook asks this (`httpGet`, which kubelet sends to the
pod's address, so that it works in any image) is told to end only after everybody knows. It changes nothing, so it needs no token: the
drain itself is begun by the sidecar's own SIGTERM or by `POST /drain`. See ADR 11.
"""

from __future__ import annotations

import asyncio

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import Request, Response
from pillion_common.http.router import Router
from pillion_sidecar.wire import to_json

MAX_WAITING = 16  # one kubelet asks once
MAX_LEAST_S = 300
BEGIN_S = 3.0  # within which a drain begins, when app and sidecar are told to end at the same time


class Departure:
    """Knows whether the app is withdrawn.

    Args:
        drain_timeout_s: longest time a drain takes.
    """

    def __init__(self, drain_timeout_s: float) -> None:
        self._within_s = drain_timeout_s + BEGIN_S
        self._withdrawn = asyncio.Event()
        self._grace_s = 0.0
        self._waiting = 0

    def note(self, grace_s: float) -> None:
        """Take that the app is withdrawn; requests under way need grace_s more."""
        self._grace_s = grace_s
        self._withdrawn.set()

    def undo(self) -> None:
        """Take that the app is let back."""
        self._withdrawn.clear()

    def add_to(self, router: Router) -> None:
        """Serve `/drained` and `/drained?least=SECONDS`."""
        router.add_route("GET", "/drained", self._drained)

    def _drained(self, request: Request) -> Handler:
        least_s = _read_least(request.query())

        async def wait(request: Request) -> Response:
            if self._waiting >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} requests are waiting here already; ask again later", code="too_many_waiting")
            self._waiting += 1
            try:
                there, _ = await asyncio.gather(self._gone(), asyncio.sleep(least_s))
            finally:
                self._waiting -= 1
            if there:
                return Response(200, to_json({"State": "drained"}))
            message = f"no drain ended within {self._within_s:g} s; SIGTERM to the sidecar, or POST /drain, begins one"
            return Response(504, to_json({"Error": "not_drained", "Message": message}))

        return wait

    async def _gone(self) -> bool:
        """Return whether the app got withdrawn in time, and then after the time for requests under way."""
        try:
            async with asyncio.timeout(self._within_s):
                await self._withdrawn.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(self._grace_s)
        return True


def _read_least(query: dict[str, str]) -> int:
    least = query.pop("least", "0")
    if query or not (least.isascii() and least.isdigit()) or int(least) > MAX_LEAST_S:
        raise InvalidInput(f"least is a whole number of seconds up to {MAX_LEAST_S}: /drained?least=3", code="invalid_query", field="least")
    return int(least)
