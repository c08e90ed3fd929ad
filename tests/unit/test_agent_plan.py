"""From what the engine shows to what is to be done: reading containers, finding their addresses, planning. All pure."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import container_id, inspected, listed
from hypothesis import given
from hypothesis import strategies as st

from pillion_sidecar.agent.containers import Container, read_container, read_list, read_listed
from pillion_sidecar.agent.instance import engine_fault
from pillion_sidecar.agent.plan import Rules, Spec, Wanted, find_wanted, make_plan

RULES = Rules(fixed={"registry": "http://registry:3000", "log_to": ""})
LABELS = {"pillion.dev/name": "Web", "pillion.dev/port": "80"}
NETWORK = {"shop_default": "172.18.0.5"}


def wanted(*shown: dict[str, Any], others: tuple[dict[str, Any], ...] = (), **rules: Any) -> Wanted:
    containers = [container for one in shown if (container := read_container(one, [label for label, _ in rules.get("only", ())]))]
    return find_wanted(containers, read_list([listed(one) for one in (*shown, *others)]), RULES._replace(**rules))


def web(number: int = 1, name: str = "shop-web-1", **more: Any) -> dict[str, Any]:
    return inspected(container_id(number), name, **{"labels": LABELS, "networks": NETWORK, **more})


def urls(found: Wanted) -> list[str]:
    return [spec.url for spec in found.specs.values()]


# Reading.


def test_a_container_is_read() -> None:
    shown = web(
        labels={**LABELS, "secret": "x", "team": "a"},
        environ={"SERVICE_NAME": "web", "PASSWORD": "x"},
        ports=("80/tcp", "53/udp", "443/tcp"),
        published={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": None},
        health="unhealthy",
        stop_signal="SIGQUIT",
        stop_timeout=30,
    )
    assert read_container(shown, ("team",)) == Container(
        id=container_id(1),
        name="shop-web-1",
        started_ms=1769860800500,
        health="unhealthy",
        health_said="curl: (7) refused",
        labels={**LABELS, "team": "a"},
        environ={"SERVICE_NAME": "web"},
        ports=(80, 443),
        published={80: ("0.0.0.0", 8080)},
        network_mode="shop_default",
        addresses=NETWORK,
        stop_signal=3,
        stop_timeout_s=30.0,
    )


@pytest.mark.parametrize("state", [{"Running": False}, {"Running": True, "Restarting": True}, {}])
def test_what_does_not_run_is_no_container(state: dict[str, Any]) -> None:
    assert read_container({**web(), "State": state}) is None


@pytest.mark.parametrize(
    ("text", "number"), [(None, 15), ("QUIT", 3), ("SIGINT", 2), ("9", 9), ("SIGRTMIN+3", 37), ("x", 15), ("SIGX+y", 15)]
)
def test_the_signal_a_container_is_stopped_with(text: str | None, number: int) -> None:
    container = read_container(web(stop_signal=text))
    assert container is not None
    assert container.stop_signal == number


def test_a_container_that_was_paused_is_unhealthy_only_by_name() -> None:
    container = read_container(web(health="unhealthy", streak=0))
    assert container is not None
    assert container.health == "healthy"


KEYS = (
    *("Id", "Name", "State", "Running", "Health", "Log", "Config", "Labels", "Env", "ExposedPorts", "NetworkSettings", "Networks"),
    *("Ports", "80/tcp", "HostConfig", "NetworkMode", "Path", "Args", "StopTimeout", "StopSignal"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)


@given(JSON, JSON)
def test_no_answer_of_whatever_shape_is_an_error(one: Any, other: Any) -> None:
    read_list(one)
    read_listed(one)
    running = {"Id": "a" * 64, "State": {"Running": True, "Health": other}, "Config": one, "NetworkSettings": other}
    for shown in (one, running):
        if container := read_container(shown):
            find_wanted([container], read_list([shown]), RULES)


# The engine's word.


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, ""),
        ({"health": "healthy"}, ""),
        ({"health": "none"}, ""),
        ({"health": "starting"}, "its HEALTHCHECK has not passed yet"),
        ({"health": "unhealthy"}, "its HEALTHCHECK fails: curl: (7) refused"),
        ({"paused": True, "health": "healthy"}, "its container is paused"),
    ],
)
def test_what_keeps_a_container_from_serving(more: dict[str, Any], fault: str) -> None:
    container = read_container(web(**more))
    assert container is not None
    assert engine_fault(container) == fault


# Addresses.


def test_an_instance_is_the_containers_address_and_port() -> None:
    found = wanted(web())
    assert found.left_out == {}
    (spec,) = found.specs.values()
    assert (spec.handle, spec.instance_id, spec.url) == (container_id(1)[:12], "Web-000000000001", "http://172.18.0.5:80")
    assert (spec.settings.host, spec.settings.port, spec.settings.requires, spec.settings.all_required) == ("172.18.0.5", 80, {}, ())


def test_an_ipv6_address_stands_in_brackets() -> None:
    shown = web(networks={})
    shown["NetworkSettings"]["Networks"] = {"six": {"IPAddress": "", "GlobalIPv6Address": "fd00::5"}}
    assert urls(wanted(shown)) == ["http://[fd00::5]:80"]


def test_the_network_on_which_the_agent_reaches_the_registry_is_taken() -> None:
    agent = inspected(container_id(9), "agent", networks={"engine": "10.0.0.2", "pillion": "10.1.0.2"})
    shown = web(networks={"backend": "10.2.0.5", "pillion": "10.1.0.5"})
    assert urls(wanted(shown, others=(agent,), ours="10.1.0.2")) == ["http://10.1.0.5:80"]
    away = wanted(web(networks={"backend": "10.2.0.5"}), others=(agent,), ours="10.1.0.2")
    assert away.left_out == {"shop-web-1": "it is not on the network pillion, but on backend; join it, or set PILLION_NETWORK"}


def test_of_several_networks_one_has_to_be_named() -> None:
    shown = web(networks={"b": "10.2.0.5", "a": "10.1.0.5"})
    assert wanted(shown).left_out == {
        "shop-web-1": "it is on several networks (a, b); set PILLION_NETWORK to the one its dependents are on"
    }
    assert urls(wanted(shown, network="b")) == ["http://10.2.0.5:80"]


def test_a_container_without_an_address_is_told() -> None:
    assert wanted(web(networks={})).left_out == {"shop-web-1": "it has no address on any network; join it to one"}


def test_a_container_in_anothers_network_has_its_address() -> None:
    owner = inspected(container_id(9), "owner", networks=NETWORK)
    shown = web(networks={}, mode=f"container:{container_id(9)}")
    assert urls(wanted(shown, others=(owner,))) == ["http://172.18.0.5:80"]
    assert wanted(shown).left_out == {"shop-web-1": "it uses the network of a container that does not run"}


def test_a_container_on_the_hosts_network_is_at_the_host() -> None:
    shown = web(networks={}, mode="host")
    assert urls(wanted(shown, ours="192.0.2.7")) == ["http://192.0.2.7:80"]
    assert urls(wanted(shown, ours="192.0.2.7", advertise="host.example")) == ["http://host.example:80"]
    assert "not known yet; set PILLION_ADVERTISE" in wanted(shown).left_out["shop-web-1"]
    agent = inspected(container_id(9), "agent", networks={"pillion": "10.1.0.2"})
    assert "the agent, in a container, does not know" in wanted(shown, others=(agent,), ours="10.1.0.2").left_out["shop-web-1"]


@pytest.mark.parametrize(
    ("bound", "advertise", "url"),
    [
        ("0.0.0.0", "192.0.2.7", "http://192.0.2.7:8080"),
        ("", "192.0.2.7", "http://192.0.2.7:8080"),
        ("192.0.2.9", "192.0.2.7", "http://192.0.2.9:8080"),
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:8080"),
        ("127.0.0.1", "192.0.2.7", "port 80 is published on 127.0.0.1 only, where 192.0.2.7 is not heard; publish it on all addresses"),
        (None, "192.0.2.7", "port 80 is not published; publish it (ports: in compose, -p), or leave PILLION_PUBLISH at container"),
    ],
)
def test_published_ports_are_at_the_host(bound: str | None, advertise: str, url: str) -> None:
    published = {"80/tcp": [{"HostIp": bound, "HostPort": "8080"}]} if bound is not None else {}
    found = wanted(web(published=published), publish="host", advertise=advertise)
    assert urls(found) == [url] if url.startswith("http") else found.left_out == {"shop-web-1": url}


# What is left out, and why.


def test_every_fault_of_a_container_is_told_by_its_label() -> None:
    labels = {"pillion.dev/name": "W w", "pillion.dev/port": "99999", "pillion.dev/check": "exec:ls", "pillion.dev/weight": "0"}
    said = wanted(web(labels=labels)).left_out["shop-web-1"]
    assert "pillion.dev/name: 'W w' name 'W w' is no name: take up to 63 letters" in said
    assert "pillion.dev/port: '99999' is not a whole number from 1 to 65535" in said
    assert "pillion.dev/check: 'exec:ls' is not a check that an agent makes; use tcp" in said
    assert "pillion.dev/weight: '0' is not a whole number from 1 to 1000" in said
    assert "PILLION_NAME" not in said


def test_one_bad_container_does_not_keep_others_out() -> None:
    found = wanted(web(1, "bad", labels={"pillion.dev/name": "W w", "pillion.dev/port": "80"}), web(2, "good"))
    assert [spec.container.name for spec in found.specs.values()] == ["good"]
    assert list(found.left_out) == ["bad"]


def test_a_container_with_a_sidecar_is_left_to_it() -> None:
    sidecar = inspected(container_id(9), "web-sidecar", mode=f"container:{container_id(1)}", command="pillion sidecar")
    found = wanted(web(), others=(sidecar,))
    assert (found.specs, found.left_out) == ({}, {"shop-web-1": "it has a sidecar of its own"})
    assert read_listed(sidecar) == read_list([listed(sidecar)])[container_id(9)]


def test_only_containers_with_the_labels_asked_for_are_looked_at() -> None:
    only = (("team", "a"), ("stage", "test"))
    ours = web(1, "ours", labels={**LABELS, "team": "a", "stage": "test"})
    theirs = web(2, "theirs", labels={**LABELS, "team": "a", "stage": "live", "pillion.dev/port": "x"})
    found = wanted(ours, theirs, only=only)
    assert [spec.container.name for spec in found.specs.values()] == ["ours"]
    assert found.left_out == {}


def test_several_services_of_one_container_are_told_apart() -> None:
    shown = web(labels={"SERVICE_80_NAME": "web", "SERVICE_90_NAME": "web"})
    assert [(spec.handle, spec.instance_id) for spec in wanted(shown).specs.values()] == [
        ("000000000001-80", "web-000000000001-80"),
        ("000000000001-90", "web-000000000001-90"),
    ]


def test_a_long_name_still_makes_an_id() -> None:
    (spec,) = wanted(web(labels={"pillion.dev/name": "n" * 63, "pillion.dev/port": "80"})).specs.values()
    assert spec.instance_id == "n" * 40 + "-000000000001"


# Planning.


def specs(*shown: dict[str, Any]) -> dict[str, Spec]:
    return wanted(*shown).specs


def names(found: tuple[Spec, ...]) -> list[str]:
    return [spec.container.name for spec in found]


def test_what_is_new_is_added_and_what_is_gone_is_dropped() -> None:
    plan = make_plan(specs(web(1, "a"), web(2, "b")), specs(web(2, "b"), web(3, "c")), 10)
    assert (plan.drop, names(plan.add), names(plan.keep)) == ((container_id(3)[:12],), ["a"], ["b"])


def test_a_restarted_container_is_another_life() -> None:
    plan = make_plan(specs(web(started="2026-01-31T12:00:09Z")), specs(web()), 10)
    assert (plan.drop, names(plan.add), plan.keep) == ((container_id(1)[:12],), ["shop-web-1"], ())


@pytest.mark.parametrize("more", [{"networks": {"shop_default": "172.18.0.6"}}, {"labels": {**LABELS, "pillion.dev/tags": "x"}}])
def test_another_address_or_another_label_is_another_registration(more: dict[str, Any]) -> None:
    plan = make_plan(specs(web(**more)), specs(web()), 10)
    assert (len(plan.drop), len(plan.add), len(plan.keep)) == (1, 1, 0)


@pytest.mark.parametrize("more", [{"health": "unhealthy"}, {"paused": True}, {"name": "renamed"}])
def test_health_pause_and_a_new_name_are_no_reason_to_register_anew(more: dict[str, Any]) -> None:
    plan = make_plan(specs(web(**more)), specs(web()), 10)
    assert (plan.drop, plan.add, len(plan.keep)) == ((), (), 1)


def test_beyond_the_most_those_that_are_known_stay() -> None:
    known = specs(web(3, "c"))
    plan = make_plan(specs(web(1, "a"), web(2, "b"), web(3, "c")), known, 2)
    assert (plan.drop, names(plan.add), names(plan.keep), names(plan.beyond)) == ((), ["a"], ["c"], ["b"])
    again = make_plan(specs(web(1, "a"), web(3, "c", started="2026-01-31T12:00:09Z")), known, 1)
    assert (again.drop, names(again.add), names(again.beyond)) == ((container_id(3)[:12],), ["c"], ["a"])
