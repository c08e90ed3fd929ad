"""What a write to the bucket comes to where something else has changed since it was decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pillion_common.models import State
from pillion_registry.catalog import kept_state
from pillion_registry.store.base import Change, Put
from pillion_registry.store.mirror import Mirrored


class Due(NamedTuple):
    """A commit's deadline (monotonic seconds), and what the instances of its registrations were when it was decided about them."""

    ends: float
    known: Mapping[str, Mirrored | None]


def keys_of(changes: Iterable[Change]) -> list[str]:
    """Return the keys that changes write to."""
    keys: list[str] = []
    for change in changes:
        if isinstance(change, Put):
            keys += [change.record.instance_id, *change.replaced]
        else:
            keys.append(change.instance_id)
    return keys


def state_of(put: Put, now: Mirrored | None) -> State:
    """Return the state of a registration of what has changed since it was decided: as the catalogue decides."""
    if now is None or (now.record.name, now.record.url) != (put.record.name, put.record.url):
        return State.STARTING
    return kept_state(put.record.registration, {now.kept.state}, {now.kept.registration.incarnation})


def outdated(put: Put, now: Mirrored | None) -> bool:
    """Return whether a newer incarnation has registered meanwhile."""
    mine, known = put.record.registration.incarnation, now.kept.registration.incarnation if now else None
    return mine is not None and known is not None and mine < known
