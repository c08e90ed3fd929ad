"""Handlers that take bodies in, of many requests at one moment, and answer all of them with the same words: a group commit's other half."""

from __future__ import annotations

from collections.abc import Callable

from pillion_common.errors import PillionError
from pillion_common.http.message import Request, Response
from pillion_common.http.promise import Promise

Tell = Callable[[object], None]
Take = Callable[[bytes, str, Tell], None]


class Taker:
    """A handler that looks at nothing of a request but its body and its peer.

    Where the request's head was seen before, the connection gives it just these: no request, promise or task is made.

    Args:
        take: given the body, the peer's IP address and whom to tell. It raises a PillionError, or tells once, in the loop's thread: an
            Exception, or anything else when the body is taken in.
        receipt: the answer then.
    """

    __slots__ = ("receipt", "take")

    def __init__(self, take: Take, receipt: Response) -> None:
        self.take = take
        self.receipt = receipt

    def __call__(self, request: Request) -> Promise:
        """Take in a request that came any other way."""
        promise = Promise()

        def tell(outcome: object) -> None:
            promise.settle(outcome if isinstance(outcome, PillionError) else self.receipt)

        self.take(request.body, request.peer, tell)
        return promise
