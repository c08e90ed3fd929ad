"""What a connection, its server and its handlers owe each other. Types and bounds only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from pillion_common.http.message import Request, Response

Handler = Callable[[Request], Response | Awaitable[Response]]
# A handler for one path, asked before all others; None leaves the request to them.
HotHandler = Callable[[Request], Response | Awaitable[Response] | None]


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
