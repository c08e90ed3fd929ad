"""Registrations that were refused lately: what the registry knows of those who tried and are not there. Bounded."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

from pillion_common.errors import PillionError

MAX_KEPT = 256
MAX_BODY_BYTES = 64 * 1024
MAX_NAME_CHARS = 63


class Refusal(NamedTuple):
    """One registration that was not taken in."""

    time_s: float
    peer: str
    service: str
    code: str
    message: str

    @property
    def of_token(self) -> bool:
        """Return whether it was for want of the right token."""
        return self.code.startswith("token") or self.code in ("forbidden", "unauthorized")


class _Named(msgspec.Struct, rename={"service_name": "ServiceName"}):
    service_name: str = ""


class Refusals:
    """The newest refusals."""

    def __init__(self) -> None:
        self._kept: deque[Refusal] = deque(maxlen=MAX_KEPT)
        self.count = 0

    def note(self, error: PillionError, body: bytes, peer: str, now_s: float) -> None:
        """Note a refusal; the name is taken from the body as far as it can be read."""
        self.count += 1
        try:
            name = msgspec.json.decode(body, type=_Named).service_name if len(body) <= MAX_BODY_BYTES else ""
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            name = ""
        self._kept.append(Refusal(now_s, peer, name[:MAX_NAME_CHARS], error.code, error.message))

    def of(self, name: str) -> Refusal | None:
        """Return the newest refusal of a service."""
        return next((one for one in reversed(self._kept) if one.service == name), None)
