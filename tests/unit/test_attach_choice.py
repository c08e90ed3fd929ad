"""What an app is called, which port it has, and who cannot have a sidecar."""

from __future__ import annotations

import pytest

from pillion_attach.choice import only_port, place_faults, settle
from pillion_attach.facts import App
from pillion_common.key_values import name_of, nearest


def settled(app: App, **given: str) -> dict[str, str]:
    found, faults = settle(app, given)
    assert faults == []
    return found


def faults(app: App, **given: str) -> list[str]:
    return settle(app, given)[1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop", "Shop"),
        ("grading-service", "GradingService"),
        ("my_app.v2", "MyAppV2"),
        ("GradingService", "GradingService"),
        ("7up", "7up"),
    ],
)
def test_a_name_is_made_in_the_form_of_the_others(text: str, name: str) -> None:
    assert name_of(text) == name


def test_flags_go_before_the_last_run_before_labels_before_the_environment() -> None:
    app = App(
        "shop",
        labels={"pillion.dev/name": "ByLabel", "pillion.dev/zone": "z-label", "pillion.dev/version": "1"},
        environ={"PILLION_NAME": "ByEnv", "PILLION_ZONE": "z-env", "PILLION_VERSION": "0", "PILLION_TAGS": "a,b"},
        ports=(80,),
        attached={"name": "Before", "zone": "z-before"},
    )
    assert settled(app, name="ByFlag") == {"name": "ByFlag", "port": "80", "zone": "z-before", "version": "1", "tags": "a,b"}


def test_without_anything_the_name_is_made_and_the_only_port_taken() -> None:
    assert settled(App("web-shop", ports=(8080, 8080))) == {"name": "WebShop", "port": "8080"}


def test_no_port_and_several_ports_are_refused_with_what_to_say() -> None:
    how = "--port N or the label pillion.dev/port"
    assert only_port(App("shop", ports=(9000, 80)))[1] == f"shop has the ports 80, 9000: say which one others use, with {how}"
    assert only_port(App("shop"))[1] == f"shop neither exposes nor publishes a TCP port: say on which it listens, with {how}"
    assert settled(App("shop", ports=(9000, 80)), port="9000")["port"] == "9000"
    assert settled(App("shop", labels={"pillion.dev/port": "80"}))["port"] == "80"


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("name", "my shop", "is no name"),
        ("port", "70000", "is not a whole number from 1 to 65535"),
        ("port", "http", "is not a whole number from 1 to 65535"),
        ("requires", "Db:0", "is not a whole number from 1 to 1000"),
        ("requires", "a b", "is no name"),
        ("check", "ping", "is not a check"),
        ("zone", "a\nb", "cannot be shown"),
        ("version", "x" * 1001, "is longer than 1000 characters"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_where_it_came_from(option: str, text: str, reason: str) -> None:
    [by_flag] = faults(App("shop", ports=(80,)), **{option: text})
    assert by_flag.startswith(f"shop: --{option} ")
    assert reason in by_flag
    [by_label] = faults(App("shop", ports=(80,), labels={f"pillion.dev/{option}": text}))
    assert by_label.startswith(f"shop: the label pillion.dev/{option} ")


def test_a_name_that_cannot_be_made_is_refused() -> None:
    assert "is no name" in faults(App("x" * 64, ports=(80,)))[0]


@pytest.mark.parametrize("text", ["tcp", "none", "http:/health?a=1"])
def test_the_kinds_of_check(text: str) -> None:
    assert settled(App("shop", ports=(80,)), check=text)["check"] == text


def test_a_mistyped_label_is_refused_with_the_nearest() -> None:
    [fault] = faults(App("shop", ports=(80,), labels={"pillion.dev/prot": "80"}))
    assert fault.startswith("shop: the label pillion.dev/prot is none of Pillion's; did you mean pillion.dev/port")


@pytest.mark.parametrize(
    ("mode", "instead"),
    [
        ("host", "run `pillion agent` on that host"),
        ("none", "remove that line first"),
        ("service:view", "attach to view instead"),
        ("container:view-1", "pillion attach docker view-1"),
    ],
)
def test_an_app_without_a_network_of_its_own_is_refused_with_what_to_do(mode: str, instead: str) -> None:
    [fault] = place_faults(App("shop", ports=(7070,), network_mode=mode))
    assert fault.startswith("shop ")
    assert instead in fault


@pytest.mark.parametrize(
    ("ports", "neighbours", "port", "told"),
    [((7071,), (), "7071", "7071"), ((80,), (7070,), "80", "7070"), ((), (), "7070", "7070"), ((7070, 7071), (), "80", "7070 and 7071")],
)
def test_the_sidecars_ports_must_be_free(ports: tuple[int, ...], neighbours: tuple[int, ...], port: str, told: str) -> None:
    [fault] = place_faults(App("shop", ports=ports), neighbours, port)
    assert fault.startswith(f"shop uses port {told} itself")


def test_an_ordinary_app_is_not_refused() -> None:
    assert place_faults(App("shop", ports=(80,)), (81,), "80") == []


def test_nearest_names_what_was_meant_or_what_there_is() -> None:
    assert nearest("shp", ["shop", "db"]) == "; did you mean shop?"
    assert nearest("zzz", ["shop", "db"]) == "; there are db, shop"
    assert nearest("zzz", []) == "; there are none"
    assert nearest("zzz", [f"a{n:02}" for n in range(21)]).endswith("a19 and more")
