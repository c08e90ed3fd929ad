"""The override file: what is added and taken out, and what stays as the user has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pillion_attach import override
from pillion_attach.compose_facts import project_of
from pillion_attach.compose_file import parse, text_of
from pillion_attach.compose_plan import plan
from pillion_attach.facts import Registry, Token, Wishes

HERE = Registry("r", ("registry",), ("net",), Token("volume", "sec"))
SERVICES: dict[str, Any] = {"shop": {"expose": [80]}, "cart": {"expose": [81], "networks": ["inner"]}, "db": {"expose": [5432]}}
PROJECT = project_of({"services": SERVICES, "networks": {"inner": None}}, (Path("compose.yml"),))

USERS_FILE = """\
# Mine.
services:
  # the database wants more time
  db:
    stop_grace_period: 1m # really
  shop-sidecar:
    labels: [pillion.dev/attached-to=shop]
    environment:
      - PILLION_WEIGHT=5 # it is a large machine
      - PILLION_PORT=8000
    network_mode: service:shop
networks:
  pillion-own: {}
"""


def attached(text: str | None, *names: str, **more: Any) -> str:
    document = parse(text, "o.yml") if text else override.empty("compose.yml", "docker compose -f compose.yml up -d")
    for one in plan(PROJECT, names, Wishes(**more), [HERE], override.declared(document)):
        override.add(document, one)
    return text_of(document)


def detached(text: str, *names: str) -> str:
    document = parse(text, "o.yml")
    assert all(override.remove(document, name) for name in names)
    return text_of(document) if document else ""


def test_a_new_file_says_what_it_is_and_how_to_use_it() -> None:
    text = attached(None, "shop")
    assert text.startswith("# Sidecars for compose.yml, written by `pillion attach compose`.")
    assert "#   docker compose -f compose.yml up -d\nservices:\n" in text
    data = yaml.safe_load(text)
    assert list(data) == ["services", "networks", "volumes"]
    assert list(data["services"]) == ["shop", "shop-sidecar"]
    assert data["services"]["shop"] == {"networks": {"default": {}, "pillion": {}}}


def test_attaching_the_same_again_changes_nothing() -> None:
    once = attached(None, "shop", "cart")
    assert attached(once, "cart", "shop") == once


def test_a_second_service_leaves_the_first_as_it_is() -> None:
    once = attached(None, "shop")
    both = yaml.safe_load(attached(once, "cart"))
    assert {key: both["services"][key] for key in ("shop", "shop-sidecar")} == yaml.safe_load(once)["services"]
    assert both["services"]["cart"] == {"networks": {"pillion": {}}}


def test_comments_order_and_own_settings_of_an_existing_file_stay() -> None:
    text = attached(USERS_FILE, "shop", "cart")
    assert text.startswith("# Mine.\nservices:\n  # the database wants more time\n  db:\n    stop_grace_period: 1m # really\n")
    data = yaml.safe_load(text)
    assert list(data["services"]) == ["db", "shop-sidecar", "shop", "cart", "cart-sidecar"]
    env = data["services"]["shop-sidecar"]["environment"]
    assert (env["PILLION_WEIGHT"], env["PILLION_PORT"], env["PILLION_NAME"]) == ("5", "8000", "Shop")


def test_a_registry_that_lost_its_token_is_told_no_token_file() -> None:
    text = attached(attached(None, "shop"), "shop", token=Token("none"), network="net")
    data = yaml.safe_load(text)
    assert "PILLION_TOKEN_FILE" not in data["services"]["shop-sidecar"]["environment"]
    assert list(data["volumes"]) == ["shop-sidecar-spool"]


def test_a_service_that_moves_to_another_registry_leaves_the_first_ones_network_to_the_others() -> None:
    text = attached(attached(None, "shop", "cart"), "shop", network="elsewhere", token=Token("volume", "else-sec"))
    data = yaml.safe_load(text)
    assert data["services"]["shop"]["networks"] == {"default": {}, "pillion-2": {}}
    assert data["services"]["cart"]["networks"] == {"pillion": {}}
    assert data["networks"] == {"pillion": {"name": "net", "external": True}, "pillion-2": {"name": "elsewhere", "external": True}}
    assert data["volumes"]["pillion-token"]["name"] == "sec"
    assert data["volumes"]["pillion-token-2"]["name"] == "else-sec"


def test_detaching_the_only_service_leaves_nothing() -> None:
    assert detached(attached(None, "shop"), "shop") == ""


def test_detaching_one_of_two_leaves_the_other_as_if_it_had_been_alone() -> None:
    text = detached(attached(None, "shop", "cart"), "shop")
    assert yaml.safe_load(text) == yaml.safe_load(attached(None, "cart"))


def test_attaching_and_detaching_leaves_what_is_the_users() -> None:
    mine = "# Mine.\nservices:\n  # slow\n  db:\n    stop_grace_period: 1m # really\n  shop:\n    restart: always\n"
    assert detached(attached(mine, "shop", "cart"), "shop", "cart") == mine


def test_a_default_network_with_the_users_own_settings_stays() -> None:
    mine = "services:\n  shop:\n    networks:\n      default: {aliases: [store]}\n"
    assert yaml.safe_load(detached(attached(mine, "shop"), "shop")) == yaml.safe_load(mine)


def test_a_list_of_networks_can_be_added_to() -> None:
    mine = "services:\n  shop:\n    networks: [inner]\n"
    assert yaml.safe_load(attached(mine, "shop"))["services"]["shop"]["networks"] == {"inner": None, "default": {}, "pillion": {}}


def test_who_has_a_sidecar_is_known_by_the_label_or_by_the_name() -> None:
    text = "services:\n  a-sidecar: {network_mode: 'service:a'}\n  x: {labels: {pillion.dev/attached-to: b}}\n  c: {image: c}\n  d:\n"
    assert override.apps(parse(text, "o.yml")) == ["a", "b"]
    assert override.apps(parse("volumes: {}\n", "o.yml")) == []
    assert not override.remove(parse(text, "o.yml"), "c")
