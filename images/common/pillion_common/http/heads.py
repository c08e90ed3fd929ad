"""Heads that were seen before. A client that keeps its connection sends the same head again and again: byte for byte the same head means
the same request line, headers, guards and route, so all of that is found out once and kept with the head's bytes.

Only heads that the parser has taken for whole, unambiguous requests get in; so what is found here was checked before.
"""

from __future__ import annotations

from typing import NamedTuple

from pillion_common.http.interfaces import Handler
from pillion_common.http.message import Request
from pillion_common.http.taker import Taker

MAX_HEADS = 256
MAX_HEAD_BYTES = 1024
END = b"\r\n\r\n"
PLAIN = (("GET", "1.1", True), ("POST", "1.1", True))


class KnownHead(NamedTuple):
    """A head, the length of the body that follows it, and who answers it."""

    request: Request  # without its body
    length: int
    handler: Handler
    taker: Taker | None  # the handler, if it is one

    def again(self, peer: str, body: bytes) -> Request:
        """Return the request that came in with this head and that body; it may be one that was returned before."""
        return self.request if not body and peer == self.request.peer else self.request.again(peer, body)


class KnownHeads(dict[bytes, KnownHead]):
    """Bounded: when it is full it starts anew."""

    def keep(self, data: bytes, request: Request, handler: Handler) -> None:
        """Keep the head of a request that came in as exactly these bytes, if it is of the plain kind.

        Args:
            data: the whole request, as it came in.
            request: what the parser made of it.
            handler: who answers all requests with this head.
        """
        end = data.find(END) + len(END)
        length = request.header(b"content-length") or b"0"
        if (
            end <= MAX_HEAD_BYTES
            and len(data) - end == len(request.body) == int(length)
            and (request.method, request.version, request.keep_alive) in PLAIN
            and not (request.header(b"transfer-encoding") or request.header(b"expect") or request.header(b"upgrade"))
        ):
            if len(self) >= MAX_HEADS:
                self.clear()
            self[data[:end]] = KnownHead(
                request.again(request.peer, b""), len(request.body), handler, handler if isinstance(handler, Taker) else None
            )
