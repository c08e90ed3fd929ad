"""The shapes that travel between the programs (../shared protocol, sections 1 and 2), with PascalCase JSON keys.

Example of a Registration: `{"ServiceName":"GradingService","ServiceURL":"http://10.0.0.7:6000","RequiredServices":["LogService"],
"ServiceUpdateURL":"http://10.0.0.7:7070/services","HeartbeatURL":"http://10.0.0.7:7070/heartbeat"}`.
Readers ignore keys they do not know. Decoding raises InvalidInput with the JSON path as its field.
"""

from __future__ import annotations

import enum
from itertools import chain
from typing import Any, TypeVar

import msgspec

from pillion_common.errors import InvalidInput
from pillion_common.names import check_name, parse_url

MAX_REQUIRED = 256
MAX_NEED = 1000
MAX_TAGS = 64
MAX_METADATA = 64
MAX_TEXT_CHARS = 1024

_SPECIAL = {"url": "URL", "id": "ID"}


def _pascal(name: str) -> str:
    return "".join(_SPECIAL.get(word, word.capitalize()) for word in name.split("_"))


class Model(msgspec.Struct, frozen=True, rename=_pascal, omit_defaults=True, gc=False):
    """Base of all wire models: immutable, PascalCase, defaults left out. Each says frozen itself, for the type checker.

    Not tracked by the garbage collector: immutable, and of texts, numbers and other models alone, they can be part of no cycle.
    """


class State(enum.StrEnum):
    """The states of an instance (protocol section 2)."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    DRAINING = "draining"


class Registration(Model, frozen=True):
    """What a service says of itself with POST /services. Keys after heartbeat_url are Pillion's additions."""

    service_name: str
    service_url: str
    required_services: tuple[str, ...] | None = None
    service_update_url: str | None = None
    heartbeat_url: str | None = None
    instance_id: str | None = None
    version: str | None = None
    zone: str | None = None
    weight: int | None = None
    tags: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    protocol: int | None = None
    incarnation: int | None = None
    needs: dict[str, int] | None = None

    @property
    def requires(self) -> tuple[str, ...]:
        """Return the required names, each once, in the order given."""
        return tuple(dict.fromkeys(self.required_services or ()))

    def need(self, name: str) -> int:
        """Return how many providers of a required service are needed; 0 if it can do without."""
        return self.needs.get(name, 1) if self.needs else 1


class Registered(Model, frozen=True, omit_defaults=False):
    """The answer to POST /services. A classic client looks at the status alone."""

    instance_id: str
    revision: int
    epoch: str
    state: State
    heartbeat_interval: float
    warnings: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Fault(Model, frozen=True):
    """Every answer that is not 2xx: what is wrong and what to do. `field` is the part of the request that is to blame."""

    error: str
    message: str
    field: str | None = None


class ProviderEntry(Model, frozen=True):
    """One provider in a patch. A classic receiver reads Name and URL alone."""

    name: str
    url: str = msgspec.field(name="URL")
    instance_id: str | None = None
    zone: str | None = None
    weight: int | None = None
    version: str | None = None
    tags: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None


class Patch(Model, frozen=True):
    """What the registry POSTs to a dependent: the difference from what it acknowledged, or (full) the whole truth for `services`."""

    added: tuple[ProviderEntry, ...] | None = None
    removed: tuple[ProviderEntry, ...] | None = None
    revision: int | None = None
    previous: int | None = None
    epoch: str | None = None
    full: bool = False
    services: tuple[str, ...] | None = None


class StateReport(Model, frozen=True):
    """An instance's own report, POST /services/{id}/state."""

    state: State
    reason: str | None = None


class DrainRequest(Model, frozen=True):
    """The body of POST /services/{id}/drain; it may be empty. `timeout` is in seconds."""

    timeout: float | None = None
    reason: str | None = None
    by: str | None = None


class Drained(Model, frozen=True, omit_defaults=False):
    """The answer to a drain: how many dependents acknowledged the withdrawal, and the ids of those that have not yet."""

    instance_id: str
    state: State
    acknowledged: int
    waiting: tuple[str, ...]


class InstanceView(Model, frozen=True, omit_defaults=False):
    """One instance as GET /services shows it. Times are RFC 3339 UTC.

    `suspect` says why an instance that does not answer is offered still, `held_until` until when one that flaps is not.
    """

    instance_id: str
    service_name: str
    service_url: str
    state: State
    since: str
    registered: str
    reason: str | None = None
    required_services: tuple[str, ...] = ()
    needs: dict[str, int] | None = None
    version: str | None = None
    zone: str | None = None
    weight: int = 1
    tags: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    protocol: int = 1
    suspect: str | None = None
    suspect_until: str | None = None
    held_until: str | None = None


class InstanceList(Model, frozen=True, omit_defaults=False):
    """The answer to GET /services and GET /services/{name}."""

    revision: int
    epoch: str
    services: tuple[InstanceView, ...]


M = TypeVar("M", bound=Model)

_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
_encode = msgspec.json.Encoder().encode


def encode(model: Model) -> bytes:
    """Return the model as JSON bytes."""
    return _encode(model)


def decode(body: bytes, kind: type[M]) -> M:
    """Read a model from JSON.

    Raises:
        InvalidInput: not JSON, not UTF-8, nested too deep, or a key has the wrong type (its path is the field).
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(body)  # type: ignore[no-any-return]
    except msgspec.ValidationError as exc:
        _, _, path = str(exc).partition(" - at `$.")
        raise InvalidInput(f"the body is not a valid {kind.__name__}: {exc}", code="invalid_body", field=path.rstrip("`") or None) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInput(f"the body is not JSON: {exc}", code="invalid_json") from exc


def check_registration(registration: Registration) -> None:
    """Check everything in a registration that its types do not say.

    Raises:
        InvalidInput: the first fault found, with its field. HeartbeatURL is required: an instance that nobody can check is never offered.
    """
    check_name(registration.service_name, "ServiceName")
    parse_url(registration.service_url, "ServiceURL")
    parse_url(registration.heartbeat_url or "", "HeartbeatURL")
    if registration.required_services or registration.service_update_url:
        parse_url(registration.service_update_url or "", "ServiceUpdateURL")
    for index, name in enumerate(registration.required_services or ()):
        check_name(name, f"RequiredServices[{index}]")
    for name, count in (registration.needs or {}).items():
        if name not in (registration.required_services or ()):
            raise InvalidInput(f"Needs names {name[:80]!r}, which is not among RequiredServices", code="invalid_needs", field="Needs")
        _between(count, 0, MAX_NEED, "Needs")
    if registration.instance_id is not None:
        check_name(registration.instance_id, "InstanceID")
    _check_bounds(registration)


def _check_bounds(given: Registration) -> None:
    _at_most(len(given.required_services or ()), MAX_REQUIRED, "RequiredServices", "names")
    _at_most(len(given.tags or ()), MAX_TAGS, "Tags", "tags")
    _at_most(len(given.metadata or ()), MAX_METADATA, "Metadata", "keys")
    _at_most(len(given.version or ""), MAX_TEXT_CHARS, "Version", "characters")
    _at_most(len(given.zone or ""), MAX_TEXT_CHARS, "Zone", "characters")
    for tag in given.tags or ():
        _at_most(len(tag), MAX_TEXT_CHARS, "Tags", "characters")
    for text in chain.from_iterable((given.metadata or {}).items()):
        _at_most(len(text), MAX_TEXT_CHARS, "Metadata", "characters")
    _between(given.weight, 1, 1000, "Weight")
    _between(given.protocol, 1, 1000, "Protocol")
    _between(given.incarnation, 0, 2**62, "Incarnation")


def _between(number: int | None, low: int, high: int, field: str) -> None:
    if number is not None and not low <= number <= high:
        raise InvalidInput(f"{field} {number} is not between {low} and {high}", code="out_of_range", field=field)


def _at_most(count: int, limit: int, field: str, unit: str) -> None:
    if count > limit:
        raise InvalidInput(f"{field} has {count} {unit}; {limit} are the most", code="out_of_range", field=field)
