"""What the registries that share a catalogue ask each other: only whoever tells a dependent knows what it knows.

`{"Kind":"withdrawn","Service":"GradingService","Url":"http://10.0.0.7:6000","Revision":912,"Timeout":5.0}`
-> `{"Acknowledged":3,"Waiting":["Portald-1f3a"]}`
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import msgspec

from pillion_common.errors import InvalidInput
from pillion_common.models import Model, ProviderEntry, decode, encode
from pillion_registry.dependent import Knowledge
from pillion_registry.notifier import Standing
from pillion_registry.provider_set import ProviderSet

WITHDRAWN, STANDINGS, CHECK = "withdrawn", "standings", "check"


class Question(Model, frozen=True):
    """A question, by its kind."""

    kind: str
    service: str = ""
    url: str = ""
    revision: int = 0
    timeout: float = 0.0
    instances: tuple[str, ...] = ()


class Withdrawn(Model, frozen=True):
    """How many dependents have acknowledged a withdrawal, and who has not."""

    acknowledged: int = 0
    waiting: tuple[str, ...] = ()


class Stood(Model, frozen=True):
    """How things stand with one dependent; `known` has URLs by service, None where nobody can say."""

    known: dict[str, tuple[str, ...] | None]
    sending: float | None = None
    failing: float | None = None
    tries: int = 0
    status: int = 0
    fault: str = ""
    told: float | None = None


class Standings(Model, frozen=True):
    """How things stand with some dependents, by their ids."""

    found: dict[str, Stood]


def read_question(data: bytes) -> Question | None:
    """Return a question; None for what is none."""
    try:
        return decode(data, Question)
    except InvalidInput:
        return None


def tell_standings(found: Iterable[tuple[str, Standing]]) -> bytes:
    """Return an answer."""
    return encode(Standings({instance_id: _stood(standing) for instance_id, standing in found}))


def read_standings(data: bytes) -> dict[str, Standing]:
    """Return what an answer says; nothing of one that cannot be read."""
    try:
        found = msgspec.json.decode(data, type=Standings).found
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {instance_id: _standing(stood) for instance_id, stood in found.items()}


def _stood(standing: Standing) -> Stood:
    known = {name: None if told is None else tuple(told.entries) for name, told in standing.known.sets.items()}
    return Stood(
        known, standing.sending_since_s, standing.failing_since_s, standing.tries, standing.status, standing.fault, standing.told_s
    )


def _standing(stood: Stood) -> Standing:
    sets = {
        name: None if urls is None else ProviderSet({url: ProviderEntry(name, url) for url in urls}) for name, urls in stood.known.items()
    }
    return Standing(
        Knowledge(MappingProxyType(sets), None), stood.sending, stood.failing, stood.tries, stood.status, stood.fault, stood.told
    )
