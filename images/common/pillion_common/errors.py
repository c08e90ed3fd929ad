"""The one error tree: every error that may reach a peer or an operator, with its HTTP status and its short code.

Third-party errors are translated into these where they enter. `to_body` makes the answer that protocol.md section "Errors" asks for:
`{"Error":"invalid_name","Message":"what is wrong and what to do","Field":"ServiceName"}`.
"""

from __future__ import annotations

import json


class PillionError(Exception):
    """Any error of Pillion's own. Subclasses set the status and the default code."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    def to_body(self) -> bytes:
        """Return the JSON answer for a peer."""
        body = {"Error": self.code, "Message": self.message}
        if self.field:
            body["Field"] = self.field
        return json.dumps(body, ensure_ascii=False).encode() + b"\n"


class InvalidInput(PillionError):
    """The peer sent something that is not valid; `field` says which part."""

    status = 400
    code = "invalid_input"


class Unauthorized(PillionError):
    """No token where one is needed."""

    status = 401
    code = "token_missing"


class Forbidden(PillionError):
    """A token that does not fit, or something this peer may not do."""

    status = 403
    code = "forbidden"


class NotFound(PillionError):
    """What was asked for is not known."""

    status = 404
    code = "not_found"


class MethodNotAllowed(PillionError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible here; use {', '.join(allowed)}")
        self.allowed = allowed


class Conflict(PillionError):
    """The request does not fit what is known already."""

    status = 409
    code = "conflict"


class TooLarge(PillionError):
    """The body is over its bound."""

    status = 413
    code = "too_large"


class WrongType(PillionError):
    """A content type or encoding that is not spoken here."""

    status = 415
    code = "wrong_type"


class WrongHost(PillionError):
    """A Host header that does not name this listener (DNS rebinding)."""

    status = 421
    code = "wrong_host"


class HeadTooLarge(PillionError):
    """The request line and header lines are over their bound."""

    status = 431
    code = "head_too_large"


class Unavailable(PillionError):
    """Not possible now; try again after `retry_after_s`."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)


class StorageFull(Unavailable):
    """The disk or its quota is full."""

    status = 507
    code = "storage_full"


class WrongVersion(PillionError):
    """A version of HTTP that is not spoken here."""

    status = 505
    code = "wrong_version"


class TimedOut(PillionError):
    """The wait ended without the awaited thing."""

    status = 504
    code = "timed_out"


class ConfigError(PillionError):
    """The program cannot start as it was configured. Lists every fault; ends the program with exit code 2."""

    code = "configuration"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class PeerError(PillionError):
    """A call to another program failed. Subclasses tell how, for the registry treats each in its own way."""

    status = 502
    code = "peer"


class PeerRefused(PeerError):
    """Nobody listens there: evidence of death."""

    code = "refused"


class PeerTimedOut(PeerError):
    """No answer within the time: says nothing about life or death."""

    code = "timed_out"


class PeerClosed(PeerError):
    """The connection ended before the answer was whole."""

    code = "closed"


class PeerUnreachable(PeerError):
    """The address does not resolve, has no route, or is not one this program may call."""

    code = "unreachable"


class PeerBroken(PeerError):
    """The peer answered something that is not HTTP."""

    code = "broken"


class OwnLimit(PeerError):
    """The call was not even made: this process has no descriptors or ports left. Says nothing about the peer."""

    code = "own_limit"
