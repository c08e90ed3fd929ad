"""What a NATS address in `--store` means, and nats-py's errors as ours."""

from __future__ import annotations

import nats.errors
import nats.js.errors
import pytest

from pillion_common.errors import ConfigError, StorageFull, Unavailable
from pillion_common.nats_link import NatsPlace, parse_place, translate


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("nats://a", NatsPlace(("nats://a:4222",), 1, "pillion")),
        ("nats://a:1,b,c:3", NatsPlace(("nats://a:1", "nats://b:4222", "nats://c:3"), 3, "pillion")),
        ("nats://a:1,b:2?replicas=2&prefix=shop-1", NatsPlace(("nats://a:1", "nats://b:2"), 2, "shop-1")),
        ("nats://[::1]:4223", NatsPlace(("nats://[::1]:4223",), 1, "pillion")),
    ],
)
def test_an_address_names_servers_replicas_and_a_prefix(uri: str, place: NatsPlace) -> None:
    assert parse_place(uri) == place


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nats://", "use nats://HOST:PORT"),
        ("http://a", "use nats://HOST:PORT"),
        ("nats://a/b", "use nats://HOST:PORT"),
        ("nats://a:x", "'a:x' is not HOST:PORT"),
        ("nats://a:0,b:70000", "is not HOST:PORT"),
        ("nats://u:secret@a", "--store-token-file"),
        ("nats://a?replicas=0", "from 1 to 5"),
        ("nats://a?replicas=six", "from 1 to 5"),
        ("nats://a?prefix=", "is not a name"),
        ("nats://a?prefix=a.b", "is not a name"),
        ("nats://a?bucket=x", "'bucket' is not an option"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_do(uri: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_place(uri)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_its_errors_are_ours() -> None:
    full = nats.js.errors.APIError(code=503, err_code=10047, description="insufficient storage resources available")
    assert isinstance(translate(full), StorageFull)
    for exc in (nats.errors.NoRespondersError(), TimeoutError(), nats.errors.ConnectionClosedError(), OSError("gone")):
        error = translate(exc)
        assert type(error) is Unavailable
        assert error.retry_after_s
    ours = Unavailable("x")
    assert translate(ours) is ours
