"""Where the registry is, as an app must reach it."""

from __future__ import annotations

import pytest

from pillion_attach.facts import Registry, Token, Wishes
from pillion_attach.place import Place, choose_place, registry_hosts
from pillion_common.errors import ConfigError

SECRETS = Token("volume", "compose_secrets")
HERE = Registry("compose-registry-1", ("compose-registry-1", "registry"), ("compose_default",), SECRETS)
OTHER = Registry("test-registry-1", ("test-registry-1", "registry"), ("test_default", "test_more"), Token("volume", "test_secrets"))
OWN = Token("file", "/etc/token")


def fault(*given: object) -> str:
    with pytest.raises(ConfigError) as refused:
        choose_place(*given)  # type: ignore[arg-type]
    [only] = refused.value.faults
    return only


def test_the_registry_that_runs_here_is_found_with_its_network_and_its_token() -> None:
    place = choose_place(Wishes(), [HERE], ["shop_default"])
    assert (place.network, place.token) == ("compose_default", SECRETS)
    assert place.note == "found the registry compose-registry-1 in the network compose_default, its token in the volume compose_secrets"


def test_a_network_that_both_are_in_already_is_preferred() -> None:
    assert choose_place(Wishes(), [OTHER], ["x", "test_more"]).network == "test_more"
    assert choose_place(Wishes(), [OTHER], ["x"]).network == "test_default"


def test_of_several_registries_none_is_guessed() -> None:
    told = fault(Wishes(), [HERE, OTHER], [])
    assert "choose with --network and --token-volume" in told
    assert "test-registry-1 in test_default and test_more, its token in the volume test_secrets" in told


def test_the_network_chooses_among_several() -> None:
    assert choose_place(Wishes(network="test_more"), [HERE, OTHER], []).token == Token("volume", "test_secrets")


def test_the_registrys_container_name_chooses_among_several() -> None:
    assert choose_place(Wishes(registry="http://test-registry-1:3000"), [HERE, OTHER], []).network == "test_default"


def test_what_was_said_needs_no_registry_to_run() -> None:
    assert choose_place(Wishes(network="n", token=OWN), [HERE], []) == Place("n", OWN)


def test_with_no_registry_running_the_names_of_the_shipped_stack_are_taken_and_told() -> None:
    place = choose_place(Wishes(), [], [])
    assert (place.network, place.token) == ("compose_default", SECRETS)
    assert "no registry called registry runs here now" in place.note


def test_a_network_of_ones_own_without_a_registry_in_it_needs_the_token_said() -> None:
    assert "say where its token is" in fault(Wishes(network="elsewhere"), [HERE], [])


@pytest.mark.parametrize("url", ["http://10.0.0.9:3000", "http://registry.example.com:3000", "http://[fd00::1]:3000"])
def test_a_registry_with_an_address_needs_no_network_but_its_token_said(url: str) -> None:
    assert choose_place(Wishes(registry=url, token=OWN), [HERE], []) == Place(None, OWN)
    assert "is not one that runs here: say where its token is" in fault(Wishes(registry=url), [HERE], [])
    assert choose_place(Wishes(registry=url, token=OWN, network="n"), [HERE], []) == Place("n", OWN)


def test_a_registry_whose_token_cannot_be_seen_needs_it_said() -> None:
    unseen = Registry("r", ("registry",), ("n",), None)
    assert "the token of the registry r was not found" in fault(Wishes(), [unseen], [])
    assert choose_place(Wishes(token=OWN), [unseen], []).token == OWN


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ("registry:3000", "is not an http or https URL"),
        ("http://registry:3000/services", "has a path"),
        ("http://localhost:3000", "in the app's network localhost is the app itself"),
        ("http://127.0.0.1:3000", "is the app itself"),
        (" , ", "--registry is empty"),
    ],
)
def test_a_registry_url_that_cannot_work_is_refused(urls: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        registry_hosts(urls)
    assert reason in refused.value.faults[0]


def test_several_urls_are_possible() -> None:
    assert registry_hosts("http://a:3000, http://b:3000") == ["a", "b"]
