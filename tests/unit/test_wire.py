"""The sidecar's own reading of the protocol agrees with the models that the registry works with."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pillion_common import models
from pillion_common.errors import InvalidInput
from pillion_sidecar import wire

ENTRY = models.ProviderEntry("Db", "http://10.0.0.7:5432", "db-1", "z1", 7, "1.2", ("a", "b"), {"k": "v"})
PATCHES = [
    models.Patch(),
    models.Patch(added=(ENTRY,), removed=(models.ProviderEntry("Db", "http://10.0.0.8:5432"),)),
    models.Patch(added=(), removed=None, revision=7, previous=6, epoch="e"),
    models.Patch(added=(ENTRY, ENTRY), revision=9, epoch="e", full=True, services=("Db", "Log")),
]

WRONG = [
    ({"Added": 1}, "Added"),
    ({"Added": {}}, "Added"),
    ({"Added": [1]}, "Added[0]"),
    ({"Added": [{"Name": "Db"}]}, "Added[0]"),
    ({"Added": [{"Name": "Db", "URL": 1}]}, "Added[0].URL"),
    ({"Added": [{"Name": None, "URL": "u"}]}, "Added[0].Name"),
    ({"Removed": [{"Name": "Db", "URL": "u", "Weight": "7"}]}, "Removed[0].Weight"),
    ({"Removed": [{"Name": "Db", "URL": "u", "Weight": True}]}, "Removed[0].Weight"),
    ({"Added": [{"Name": "Db", "URL": "u", "Tags": ["a", 1]}]}, "Added[0].Tags"),
    ({"Added": [{"Name": "Db", "URL": "u", "Metadata": {"k": 1}}]}, "Added[0].Metadata"),
    ({"Revision": "7"}, "Revision"),
    ({"Revision": True}, "Revision"),
    ({"Full": 1}, "Full"),
    ({"Services": [None]}, "Services"),
]


def as_tuples(value: Any) -> Any:
    """Return a model, or what the sidecar has in its place, as plain tuples."""
    if isinstance(value, msgspec.Struct):
        return tuple(as_tuples(getattr(value, field)) for field in value.__struct_fields__)
    return tuple(map(as_tuples, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_means_the_same_to_both(patch: models.Patch) -> None:
    assert as_tuples(wire.decode_patch(models.encode(patch))) == as_tuples(patch)


def test_the_fields_are_the_same() -> None:
    assert wire.Provider._fields == models.ProviderEntry.__struct_fields__
    assert wire.Patch._fields == models.Patch.__struct_fields__


@pytest.mark.parametrize(("said", "field"), WRONG, ids=[json.dumps(said) for said, _ in WRONG])
def test_both_refuse_what_has_a_wrong_type(said: dict[str, Any], field: str) -> None:
    body = json.dumps(said).encode()
    with pytest.raises(InvalidInput) as caught:
        wire.decode_patch(body)
    assert (caught.value.code, caught.value.field) == ("invalid_body", field)
    with pytest.raises(InvalidInput):
        models.decode(body, models.Patch)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"Revision":NaN}', b"\xff", b"[" * 100_000, b'{"Added":' + b"[" * 100_000])
def test_both_refuse_what_is_no_json(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        wire.decode_patch(body)
    assert caught.value.code == "invalid_json"
    with pytest.raises(InvalidInput):
        models.decode(body, models.Patch)


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"x"'])
def test_a_patch_is_an_object(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="the body is not a JSON object"):
        wire.decode_patch(body)


def test_null_lists_and_unknown_keys_are_taken() -> None:
    patch = wire.decode_patch(b'{"Added":null,"Removed":[{"Name":"Db","URL":"u","Later":1}],"More":{}}')
    assert patch == wire.Patch(removed=(wire.Provider("Db", "u"),))


def test_pillions_answer_to_a_registration_is_told_from_a_classic_one() -> None:
    answer = models.encode(models.Registered("db-1", 7, "e", models.State.STARTING, 3.0))
    assert wire.decode_registered(answer) == wire.Registered("db-1", 3.0)
    for body in (b"", b"ok", b"{}", b'{"InstanceID":"db-1"}', b'{"InstanceID":7,"HeartbeatInterval":3}', b"[]"):
        assert wire.decode_registered(body) is None


def test_what_is_not_there_is_left_out() -> None:
    assert json.loads(wire.encode({"State": "up", "Reason": None})) == {"State": "up"}
    assert models.decode(wire.encode({"State": "up", "Reason": None}), models.StateReport) == models.StateReport(models.State.UP)
