"""What has to be added to a compose project, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pillion_attach.compose_facts import project_of
from pillion_attach.compose_plan import Attachment, Declared, plan
from pillion_attach.facts import Registry, Token, Wishes
from pillion_common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FILE = Path("/srv/app/compose.yml")
HERE = Registry("compose-registry-1", ("compose-registry-1", "registry"), ("compose_default",), Token("volume", "compose_secrets"))
SHOP: dict[str, Any] = {"image": "example/shop", "expose": ["8080"]}
PILLIONS = {"image": "pillion/registry:dev", "environment": {"PILLION_TOKEN_FILE": "/s/token"}, "volumes": ["secrets:/s"]}


def attach(
    services: dict[str, Any], *names: str, wishes: Wishes | None = None, declared: Declared | None = None, **top: Any
) -> list[Attachment]:
    project = project_of({"services": services, **top}, (FILE,))
    return plan(project, names or ("shop",), wishes or Wishes(), [HERE], declared or Declared())


def refused(services: dict[str, Any], *names: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        attach(services, *names, **more)
    return error.value.faults


def test_a_sidecar_shares_the_apps_network_and_knows_its_keys() -> None:
    [shop] = attach({"shop": SHOP}, wishes=Wishes({"requires": "Db:2", "check": "http:/a?x=$y"}))
    assert (shop.app, shop.sidecar) == ("shop", "shop-sidecar")
    assert shop.body["network_mode"] == "service:shop"
    assert "depends_on" not in shop.body, "what network_mode implies must not be replaced"
    assert shop.body["labels"] == {"pillion.dev/attached-to": "shop"}
    assert shop.body["environment"] == {
        "PILLION_NAME": "Shop",
        "PILLION_PORT": "8080",
        "PILLION_REQUIRES": "Db:2",
        "PILLION_CHECK": "http:/a?x=$$y",  # compose makes one dollar of two
        "PILLION_REGISTRY": "http://registry:3000",
        "PILLION_TOKEN_FILE": "/run/secrets/pillion/token",
    }
    assert shop.body["volumes"] == ["shop-sidecar-spool:/var/lib/pillion", "pillion-token:/run/secrets/pillion:ro"]
    assert shop.volumes == {"shop-sidecar-spool": {}, "pillion-token": {"name": "compose_secrets", "external": True}}


def test_the_sidecar_is_the_one_of_the_shipped_compose_file() -> None:
    shipped = yaml.safe_load((ROOT / "compose" / "sidecar.yml").read_text())["services"]["sidecar"]
    [shop] = attach({"shop": SHOP})
    differs = {"environment", "volumes", "network_mode", "depends_on", "labels"}
    assert {key: value for key, value in shop.body.items() if key not in differs} == {
        key: value for key, value in shipped.items() if key not in differs
    }


def test_an_image_from_elsewhere_may_be_pulled() -> None:
    [shop] = attach({"shop": SHOP}, wishes=Wishes(image="example.com/sidecar:1"))
    assert "pull_policy" not in shop.body


def test_the_app_keeps_its_networks_and_joins_the_registrys() -> None:
    [shop] = attach({"shop": SHOP})
    assert shop.app_networks == {"default": {}, "pillion": {}}
    assert shop.networks == {"pillion": {"name": "compose_default", "external": True}}
    [shop] = attach({"shop": {**SHOP, "networks": ["front"]}})
    assert shop.app_networks == {"pillion": {}}


def test_an_app_that_is_in_the_registrys_network_joins_nothing() -> None:
    [shop] = attach({"shop": {**SHOP, "networks": ["out"]}}, networks={"out": {"name": "compose_default", "external": True}})
    assert (shop.app_networks, shop.networks) == ({}, {})


def test_a_network_the_file_knows_already_is_joined_by_its_own_key() -> None:
    [shop] = attach({"shop": SHOP}, networks={"out": {"name": "compose_default", "external": True}})
    assert (shop.app_networks, shop.networks) == ({"default": {}, "out": {}}, {})


def test_keys_that_are_taken_are_not_taken_again() -> None:
    [shop] = attach({"shop": SHOP}, networks={"pillion": None}, volumes={"pillion-token": None})
    assert shop.networks == {"pillion-2": {"name": "compose_default", "external": True}}
    assert "pillion-token-2" in shop.volumes
    before = Declared({"pillion": "elsewhere", "pillion-2": "compose_default"}, {"pillion-token": "compose_secrets"})
    [shop] = attach({"shop": SHOP}, declared=before)
    assert set(shop.networks) == {"pillion-2"}
    assert set(shop.volumes) == {"shop-sidecar-spool", "pillion-token"}


def test_a_registry_with_an_address_needs_no_network() -> None:
    [shop] = attach({"shop": SHOP}, wishes=Wishes(registry="http://10.0.0.9:3000", token=Token("none")))
    assert shop.app_networks == {}
    assert "PILLION_TOKEN_FILE" not in shop.body["environment"]
    assert shop.body["volumes"] == ["shop-sidecar-spool:/var/lib/pillion"]


@pytest.mark.parametrize(("path", "written"), [("/srv/app/sec/token", "./sec/token"), ("/etc/token", "/etc/token")])
def test_a_token_file_is_mounted_by_a_path_that_compose_understands(path: str, written: str) -> None:
    [shop] = attach({"shop": SHOP}, wishes=Wishes(token=Token("file", path)))
    assert shop.body["volumes"][1] == {
        "type": "bind",
        "source": written,
        "target": "/run/secrets/pillion/token",
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def test_a_registry_of_the_same_file_needs_nothing_from_outside() -> None:
    [shop] = attach({"shop": SHOP, "registry": PILLIONS}, volumes={"secrets": None})
    assert (shop.app_networks, shop.networks) == ({}, {})
    assert shop.body["volumes"][1] == "secrets:/run/secrets/pillion:ro"
    assert shop.body["depends_on"] == {"registry": {"condition": "service_started"}}
    assert shop.volumes == {"shop-sidecar-spool": {}}
    [shop] = attach({"shop": SHOP, "registry": {**PILLIONS, "networks": ["back"]}}, volumes={"secrets": None}, networks={"back": None})
    assert (shop.app_networks, shop.networks) == ({"default": {}, "back": {}}, {})


def test_a_registry_of_the_same_file_whose_token_or_network_is_unclear_is_refused() -> None:
    [fault] = refused({"shop": SHOP, "registry": {**PILLIONS, "volumes": []}})
    assert "the token of the service registry was not found" in fault
    [fault] = refused({"shop": SHOP, "registry": {**PILLIONS, "network_mode": "host"}}, volumes={"secrets": None})
    assert "has no network of its own" in fault


def test_another_service_called_registry_is_not_taken_for_one() -> None:
    [fault] = refused({"shop": SHOP, "registry": {"image": "registry:2"}})
    assert fault == (
        "shop: the file has a service registry, not Pillion's, that answers to registry: say --registry http://compose-registry-1:3000"
    )


def test_profiles_go_with_the_app() -> None:
    [shop] = attach({"shop": {**SHOP, "profiles": ["debug", "support"]}})
    assert shop.body["profiles"] == ["debug", "support"]


def test_labels_of_the_service_say_what_flags_would() -> None:
    [shop] = attach({"shop": {"ports": ["80:80", "81:81"], "labels": {"pillion.dev/name": "Store", "pillion.dev/port": "81"}}})
    assert (shop.settled["name"], shop.settled["port"]) == ("Store", "81")


def test_what_an_earlier_run_was_told_still_holds() -> None:
    [shop] = attach({"shop": {"expose": [80, 81]}}, declared=Declared(attached={"shop": {"name": "Store", "port": "81"}}))
    assert (shop.settled["name"], shop.settled["port"]) == ("Store", "81")


def test_every_refusal_is_told_at_once() -> None:
    services = {
        "a": {"network_mode": "host", "expose": [80]},
        "b": {"deploy": {"replicas": 3}, "expose": [80]},
        "c": {},
        "d": {"expose": [7071]},
        "e": {"deploy": {"mode": "global"}, "expose": [80]},
    }
    told = refused(services, "a", "b", "c", "d", "e", "bb", "a")
    assert [fault.partition(" ")[0] for fault in told] == ["a", "b", "c", "d", "e", str(FILE)]
    assert "pillion agent" in told[0]
    assert told[1] == (
        "b runs in 3 copies, and a sidecar of compose can stand beside one only: "
        "run `pillion agent`, which looks after each copy, or let it run once"
    )
    assert "neither exposes nor publishes" in told[2]
    assert "uses port 7071 itself" in told[3]
    assert "one copy on each machine" in told[4]
    assert told[5].startswith(f"{FILE} has no service 'bb'; did you mean b?") or "there are a, b, c, d, e" in told[5]


def test_a_service_with_the_sidecars_name_is_in_the_way() -> None:
    [fault] = refused({"shop": SHOP, "shop-sidecar": {"image": "example/other"}})
    assert fault == "shop's sidecar would be called shop-sidecar, and the file has a service of that name: rename that one"


def test_a_service_that_has_its_sidecar_in_the_file_needs_no_other() -> None:
    [fault] = refused({"shop": SHOP, "side": {"image": "pillion/sidecar:dev", "network_mode": "service:shop"}})
    assert fault == "shop has a sidecar in the file itself already: side"


def test_ports_of_others_in_the_apps_network_count() -> None:
    [fault] = refused({"shop": SHOP, "proxy": {"image": "x", "network_mode": "service:shop", "expose": [7070]}})
    assert "uses port 7070 itself" in fault


def test_the_engines_plain_bridge_cannot_be_joined_with_another_network() -> None:
    [fault] = refused({"shop": {**SHOP, "network_mode": "bridge"}})
    assert fault.startswith("shop: it has network_mode: bridge, so it cannot join the registry's network compose_default")


def test_name_and_port_are_for_one_service_at_a_time() -> None:
    assert "--name and --port are for one service" in refused({"a": SHOP, "b": SHOP}, "a", "b", wishes=Wishes({"name": "X"}))[0]


def test_one_name_made_of_two_services_is_refused_but_a_name_that_was_said_is_fine() -> None:
    services = {"my-shop": SHOP, "my_shop": SHOP}
    [fault] = refused(services, "my-shop", "my_shop")
    assert fault == "my-shop and my_shop would both be called MyShop: give one of them the label pillion.dev/name"
    said = {"a": {**SHOP, "labels": {"pillion.dev/name": "Shop"}}, "b": {**SHOP, "labels": {"pillion.dev/name": "Shop"}}}
    assert [one.settled["name"] for one in attach(said, "a", "b")] == ["Shop", "Shop"]


def test_what_cannot_be_told_of_the_registry_is_told_with_the_services_name() -> None:
    [fault] = refused({"shop": SHOP}, wishes=Wishes(registry="http://10.0.0.9:3000"))
    assert fault.startswith("shop: the registry http://10.0.0.9:3000 is not one that runs here")
