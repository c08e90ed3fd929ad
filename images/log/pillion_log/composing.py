"""Makes entries of what came in by other protocols, already taken apart: syslog messages, OTLP records. Pure.

Such a sender chooses neither its entry's own fields nor those in which the log service and the registry speak: a field of its that has one
of their names is kept under another, `Gap_` for `Gap`. What is said is stored whatever it is; only its size is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pillion_common.errors import InvalidInput
from pillion_common.names import check_name
from pillion_log import entries
from pillion_log.cuts import fit
from pillion_log.entries import MAX_ID_CHARS, UNKNOWN_SERVICE, Run, canonical_level

RESERVED = entries.OWN | {"Gap", "From", "To", "Cut", "Subject", "Event", "Unverified"}

_MAX_NAME_CHARS = 63
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Parts(NamedTuple):
    """What a sender said. An empty text was not said; `time` is as entries have it; `missing` bytes were left out before."""

    message: str
    service: str = ""
    instance: str = ""
    level: str = ""
    time: str = ""
    fields: Mapping[str, Any] = {}
    missing: int = 0


def compose(parts: Parts, received: str) -> Run:
    """Make an entry.

    Args:
        received: the time now, as `stamp` writes it.
    """
    message, fields = fit(parts.message, own_fields(parts.fields), parts.missing)
    stored = {
        "Time": parts.time or received,
        "Received": received,
        "Service": service_name(parts.service),
        "Level": canonical_level(parts.level),
        "Message": message,
    }
    if parts.instance:
        stored["Instance"] = parts.instance[:MAX_ID_CHARS]
    return entries.to_run({**stored, **fields})


def service_name(text: str) -> str:
    """Return a valid name that is like the text: what no name has becomes a hyphen. `unknown` if nothing is left."""
    return _service_name(text[: 4 * _MAX_NAME_CHARS])


def own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields, none of which has a name that says something about the entry itself."""
    return {(f"{name}_" if name in RESERVED else name): value for name, value in fields.items()}


@lru_cache(maxsize=1024)
def _service_name(text: str) -> str:
    name = _NO_NAME.sub("-", text).strip("-._")[:_MAX_NAME_CHARS]
    try:
        return check_name(name, "Service") if name else UNKNOWN_SERVICE
    except InvalidInput:
        return UNKNOWN_SERVICE
