"""What a connection, its server and its handlers owe each other. Types and bounds only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from pillion_common.http.message import Request, Response
from pillion_common.http.promise import Promise

Handler = Callable[[Request], Response | Promise | Awaitable[Response]]
# Finds what will answer a request from its head alone (its body is not there yet); None leaves it to the streaming handler. What a route
# finds is kept for all requests with the same head, so a hot handler is given nothing but the body and the peer to look at.
Route = Callable[[Request], Handler | None]


class AnswerStream(Protocol):
    """What a streaming handler writes to. `on_close` is called when the client goes before the answer is out."""

    on_close: Callable[[], None] | None

    @property
    def date(self) -> bytes:
        """Return the Date header's value."""

    def write(self, data: bytes) -> None:
        """Write a piece; await `drained` before the next large one."""

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionResetError: the client has gone.
        """


class StreamingHandler(Protocol):
    """A handler that writes its answer itself, piece by piece."""

    def __call__(self, request: Request, connection: AnswerStream) -> Awaitable[None]:
        """Answer the request on the connection; done when the answer is written or the client has gone."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Times in seconds, sizes in bytes."""

    head_bytes: int = 32 * 1024
    head_count: int = 100
    body_bytes: int = 1024 * 1024
    pipelined: int = 16
    connections: int = 2048
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    write_s: float = 30.0
    linger_s: float = 2.0
