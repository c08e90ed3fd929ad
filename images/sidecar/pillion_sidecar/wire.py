"""What a sidecar hears from a registry and says to it, on the standard library alone: msgspec would cost every app 1.6 MB. Pure.

The shapes are those of `pillion_common.models`, which the registry works with; a test holds the two together. Readers ignore keys they do
not know.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from pillion_common.errors import InvalidInput


class Provider(NamedTuple):
    """One provider in a patch, or in the table. A classic registry sends Name and URL alone."""

    name: str
    url: str
    instance_id: str | None = None
    zone: str | None = None
    weight: int | None = None
    version: str | None = None
    tags: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None


_PROVIDER_KEYS = ("Name", "URL", "InstanceID", "Zone", "Weight", "Version", "Tags", "Metadata")


class Patch(NamedTuple):
    """A change of providers: a difference, or (full) the whole truth for `services`."""

    added: tuple[Provider, ...] | None = None
    removed: tuple[Provider, ...] | None = None
    revision: int | None = None
    previous: int | None = None
    epoch: str | None = None
    full: bool = False
    services: tuple[str, ...] | None = None


class Registered(NamedTuple):
    """What Pillion's registry answers to a registration; a classic one answers nothing of the kind."""

    instance_id: str
    heartbeat_interval: float


class Drained(NamedTuple):
    """What the registry answers to a drain: how many dependents have acknowledged it, and the ids of those that have not."""

    acknowledged: int
    waiting: tuple[str, ...]


def decode_patch(body: bytes) -> Patch:
    """Read a patch.

    Raises:
        InvalidInput: not JSON, not UTF-8, nested too deep, or a key has the wrong type (its name is the field).
    """
    said = _decode(body)
    return Patch(
        added=_providers(said, "Added"),
        removed=_providers(said, "Removed"),
        revision=_one(said, "Revision", int),
        previous=_one(said, "Previous", int),
        epoch=_one(said, "Epoch", str),
        full=_one(said, "Full", bool) or False,
        services=_texts(said, "Services"),
    )


def decode_registered(body: bytes) -> Registered | None:
    """Read the answer to a registration; None if it is not Pillion's."""
    try:
        said = _decode(body)
        instance_id, interval = _one(said, "InstanceID", str), said.get("HeartbeatInterval")
    except InvalidInput:
        return None
    if not instance_id or not isinstance(interval, int | float):
        return None
    return Registered(instance_id, float(interval))


def decode_drained(body: bytes) -> Drained | None:
    """Read the answer to a drain; None if it is not Pillion's."""
    try:
        said = _decode(body)
        acknowledged, waiting = _one(said, "Acknowledged", int), _texts(said, "Waiting")
    except InvalidInput:
        return None
    return None if acknowledged is None else Drained(acknowledged, waiting or ())


def decode_shown(body: bytes) -> tuple[str, list[dict[str, Any]]] | None:
    """Read what a registry shows of a service: its epoch and the instances; None if it is not Pillion's, or was cut."""
    try:
        said = _decode(body)
        epoch, services = _one(said, "Epoch", str), _one(said, "Services", list)
    except InvalidInput:
        return None
    if epoch is None or services is None or not all(isinstance(one, dict) for one in services):
        return None
    return epoch, services


def decode_reach(body: bytes) -> tuple[str, tuple[str, ...]]:
    """Read which providers a registry wants to have dialled: the service and the URLs.

    Raises:
        InvalidInput: not JSON, or a key is missing or has the wrong type.
    """
    said = _decode(body)
    service, urls = said.get("Service"), said.get("URLs")
    if type(service) is not str or type(urls) is not list or not all(type(url) is str for url in urls):
        raise InvalidInput("the body needs Service, a text, and URLs, a list of texts", code="invalid_body")
    return service, tuple(urls)


def encode(keys: dict[str, Any]) -> bytes:
    """Return JSON of what is not None: a key that is left out has its default."""
    return json.dumps({key: value for key, value in keys.items() if value is not None}, ensure_ascii=False).encode()


def encode_provider(provider: Provider) -> dict[str, Any]:
    """Return a provider by its keys in a patch; `read_provider` makes it a provider again."""
    pairs = zip(_PROVIDER_KEYS, provider, strict=True)
    return {key: value for key, value in pairs if value is not None}


def shown(provider: Provider) -> dict[str, object]:
    """Return a provider as the local listener shows it."""
    return {
        "Name": provider.name,
        "URL": provider.url,
        "InstanceID": provider.instance_id,
        "Zone": provider.zone,
        "Version": provider.version,
    }


def to_json(value: object) -> bytes:
    """Return JSON as the local listener answers it, with a line end."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _decode(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:  # every decoder's error is a ValueError
        raise InvalidInput(f"the body is not JSON: {exc}", code="invalid_json") from exc
    if not isinstance(said, dict):
        raise InvalidInput(f"the body is not a JSON object: it is {_kind(said)}", code="invalid_body")
    return said


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _providers(said: dict[str, Any], key: str) -> tuple[Provider, ...] | None:
    found = _one(said, key, list)
    if found is None:
        return None
    return tuple([read_provider(entry, f"{key}[{index}]") for index, entry in enumerate(found)])


def read_provider(entry: Any, at: str) -> Provider:
    """Read one provider of a patch.

    Args:
        at: where it stands, for the error.

    Raises:
        InvalidInput: a key is missing or has the wrong type.
    """
    if not isinstance(entry, dict):
        raise _wrong(at, "object", entry)
    if not entry.keys() >= {"Name", "URL"}:
        raise InvalidInput(f"the body is not a valid Patch: {at} needs Name and URL", code="invalid_body", field=at)
    name, url = entry["Name"], entry["URL"]
    for key, value in (("Name", name), ("URL", url)):
        if type(value) is not str:
            raise _wrong(f"{at}.{key}", "text", value)
    if len(entry) == 2:
        return Provider(name, url)
    metadata = _one(entry, "Metadata", dict, at)
    if metadata and not all(type(value) is str for value in metadata.values()):
        raise _wrong(f"{at}.Metadata", "object of texts", metadata)
    return Provider(
        name,
        url,
        _one(entry, "InstanceID", str, at),
        _one(entry, "Zone", str, at),
        _one(entry, "Weight", int, at),
        _one(entry, "Version", str, at),
        _texts(entry, "Tags", at),
        metadata,
    )


def _texts(said: dict[str, Any], key: str, at: str = "") -> tuple[str, ...] | None:
    found = _one(said, key, list, at)
    if found and not all(type(value) is str for value in found):
        raise _wrong(f"{at}.{key}".lstrip("."), "list of texts", found)
    return None if found is None else tuple(found)


def _one(said: dict[str, Any], key: str, kind: type[Any], at: str = "") -> Any:
    value = said.get(key)
    if value is not None and type(value) is not kind:
        raise _wrong(f"{at}.{key}".lstrip("."), _NAMES[kind], value)
    return value


_NAMES = {str: "text", int: "whole number", bool: "true or false", list: "list", dict: "object"}


def _kind(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), "number")


def _wrong(at: str, wanted: str, value: Any) -> InvalidInput:
    return InvalidInput(f"the body is not a valid Patch: {at} is {_kind(value)}, not {wanted}", code="invalid_body", field=at)
