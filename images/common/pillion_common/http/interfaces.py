"""What a connection, its server and its handlers owe each other. Types and bounds only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pillion_common.http.message import Request, Response

if TYPE_CHECKING:
    from pillion_common.http.connection import Connection

Handler = Callable[[Request], Response | Awaitable[Response]]
# A handler for one path, asked before all others; None leaves the request to them.
HotHandler = Callable[[Request], Response | Awaitable[Response] | None]


class StreamingHandler(Protocol):
    """A handler that writes its answer itself, piece by piece."""

    def __call__(self, request: Request, connection: Connection) -> Awaitable[None]:
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


class Home(Protocol):
    """What a connection needs of the server it belongs to."""

    handler: Handler
    hot: Mapping[bytes, HotHandler]
    streaming: StreamingHandler | None
    limits: Limits
    stopping: bool
    now: float
    date: bytes

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in; False if there are too many."""

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""
