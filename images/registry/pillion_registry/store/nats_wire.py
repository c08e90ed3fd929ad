"""What the catalogue's bucket holds: one JSON object for each instance, which `nats kv get` shows. Pure.

`{"Generation":7…,"Registrant":"10.0.0.9","Registered":1753300000.5,"Registration":{…},"State":"up","Since":1753300007.2,"Kind":"up"}`
"""

from __future__ import annotations

import msgspec

from pillion_common.models import Model, ProviderEntry, Registration, State, decode, encode
from pillion_registry.catalog import Record


class Kept(Model, frozen=True):
    """One instance as it is kept; `kind` and `by` say what made it so, for the journals."""

    generation: int
    registrant: str
    registered: float
    registration: Registration
    state: State
    since: float
    reason: str | None = None
    trusted: bool = False
    hidden_until: float | None = None
    kind: str = ""
    by: str | None = None


class Gone(Model, frozen=True):
    """Why a key was deleted."""

    reason: str = ""
    kind: str = ""
    by: str | None = None


class Told(Model, frozen=True):
    """What a classic dependent knows, and what it may know besides: of a patch that was sent, while its answer is not known."""

    generation: int
    known: dict[str, tuple[ProviderEntry, ...]]
    doubts: tuple[ProviderEntry, ...] = ()
    member: str = ""  # that tells it


def record_of(instance_id: str, kept: Kept) -> Record:
    """Return the record of what is kept."""
    return Record(instance_id, kept.generation, kept.registrant, kept.registered, kept.registration, kept.trusted)


def read(value: bytes) -> Kept:
    """Return what a value says.

    Raises:
        InvalidInput: it is none of ours.
    """
    return decode(value, Kept)


def read_gone(value: bytes) -> Gone:
    """Return what a marker says; nothing of one that another program left."""
    try:
        return msgspec.json.decode(value, type=Gone) if value else Gone()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Gone()


def write(value: Kept | Gone | Told) -> bytes:
    """Return a value's bytes."""
    return encode(value)


def read_told(value: bytes) -> Told:
    """Return what a dependent knows.

    Raises:
        InvalidInput: it is none of ours.
    """
    return decode(value, Told)
