"""What a container says of itself: Pillion's labels, Registrator's, and what is wrong with them."""

from __future__ import annotations

import pytest

from pillion_sidecar.agent.labels import Given, Reading, read, refused_check


def texts(reading: Reading) -> list[dict[str, str]]:
    return [{key: given.text for key, given in options.items()} for options in reading.services]


def test_all_labels_of_pillion_are_taken() -> None:
    keys = ("name", "port", "requires", "check", "zone", "version", "tags", "weight")
    values = ("Shop", "8080", "Db:2,Log", "http:/health", "z1", "1.4", "a,b", "5")
    labels = {f"pillion.dev/{key}": value for key, value in zip(keys, values, strict=True)}
    reading = read({**labels, "com.docker.compose.project": "shop"}, {"PATH": "/bin"}, (80, 443))
    assert texts(reading) == [dict(zip(keys, values, strict=True))]
    assert reading.faults == ()
    assert reading.services[0]["check"] == Given("http:/health", "pillion.dev/check")


def test_a_container_that_says_nothing_is_no_service() -> None:
    assert read({"maintainer": "x"}, {"PATH": "/bin"}, (80,)) == Reading()


def test_the_only_port_that_is_exposed_is_the_port() -> None:
    assert texts(read({"pillion.dev/name": "Shop"}, {}, (8080,))) == [{"name": "Shop", "port": "8080"}]


@pytest.mark.parametrize(("ports", "said"), [((), "exposes none"), ((80, 443), "exposes 80, 443")])
def test_without_one_exposed_port_the_port_has_to_be_set(ports: tuple[int, ...], said: str) -> None:
    reading = read({"pillion.dev/name": "Shop"}, {}, ports)
    assert reading.services == ()
    assert reading.faults == (f"pillion.dev/port is missing, and the container {said}; set it to the port the service listens on",)


def test_a_port_without_a_name_asks_for_the_name() -> None:
    reading = read({"pillion.dev/port": "80"}, {}, ())
    assert reading == Reading((), ("pillion.dev/name is missing; set it to the name others find the service by",))


def test_opentelemetrys_name_serves_where_the_port_is_labelled() -> None:
    assert texts(read({"pillion.dev/port": "80"}, {"OTEL_SERVICE_NAME": "shop"}, ())) == [{"port": "80", "name": "shop"}]
    assert read({}, {"OTEL_SERVICE_NAME": "shop"}, (80,)) == Reading()


def test_the_environment_of_a_sidecar_is_not_taken_for_a_label() -> None:
    assert read({}, {"PILLION_NAME": "Shop", "PILLION_PORT": "80"}, (7070,)) == Reading()


def test_a_slip_of_the_pen_is_told_with_what_was_meant() -> None:
    reading = read({"pillion.dev/nmae": "Shop"}, {}, (80,))
    assert reading.faults[0] == "pillion.dev/nmae is not a label of Pillion's; did you mean pillion.dev/name?"
    reading = read({"pillion.dev/name": "Shop", "pillion.dev/xyz": "1"}, {}, (80,))
    assert texts(reading) == [{"name": "Shop", "port": "80"}]
    assert reading.faults == (
        "pillion.dev/xyz is not a label of Pillion's; there are name, port, requires, check, zone, version, weight, tags",
    )


@pytest.mark.parametrize("mark", ["inject", "attached-to", "joined-network"])
def test_marks_of_other_parts_are_no_slips(mark: str) -> None:
    assert read({f"pillion.dev/{mark}": "x"}, {}, (80,)) == Reading()


@pytest.mark.parametrize("check", ["exec:rm -rf /", "file:/etc/shadow", "EXEC:x", ""])
def test_a_label_can_make_the_agent_run_or_read_nothing(check: str) -> None:
    refused = refused_check({"check": Given(check, "pillion.dev/check")})
    assert refused.startswith(f"pillion.dev/check: {check!r} is not a check that an agent makes; use tcp, http")


@pytest.mark.parametrize("check", ["tcp", "http:/health", "none"])
def test_checks_that_an_agent_makes(check: str) -> None:
    assert refused_check({"check": Given(check, "pillion.dev/check")}) == ""


# Registrator.


def test_registrators_name_and_tags() -> None:
    reading = read({"SERVICE_NAME": "shop", "SERVICE_TAGS": "a,b", "SERVICE_CHECK_HTTP": "/health"}, {}, (8080,))
    assert texts(reading) == [{"name": "shop", "port": "8080", "tags": "a,b", "check": "http:/health"}]
    assert reading.services[0]["check"].label == "SERVICE_CHECK_HTTP"


def test_registrators_names_may_stand_in_the_environment_which_goes_before_labels() -> None:
    assert texts(read({"SERVICE_NAME": "label"}, {"SERVICE_NAME": "environ"}, (80,))) == [{"name": "environ", "port": "80"}]


def test_each_port_has_its_own_name_and_tags() -> None:
    labels = {"SERVICE_8080_NAME": "shop", "SERVICE_9090_NAME": "metrics", "SERVICE_9090_TAGS": "m", "SERVICE_TAGS": "all"}
    assert texts(read(labels, {}, (8080, 9090, 7000))) == [
        {"name": "shop", "port": "8080", "tags": "all"},
        {"name": "metrics", "port": "9090", "tags": "m"},
    ]


def test_one_name_for_several_ports_gets_the_port_appended() -> None:
    assert texts(read({"SERVICE_NAME": "shop", "SERVICE_443_NAME": "tls"}, {}, (80, 443))) == [
        {"name": "shop-80", "port": "80"},
        {"name": "tls", "port": "443"},
    ]


def test_a_port_that_is_named_need_not_be_exposed() -> None:
    assert texts(read({"SERVICE_5432_NAME": "db"}, {}, ())) == [{"name": "db", "port": "5432"}]
    assert texts(read({"SERVICE_NAME": "db", "SERVICE_5432_TAGS": "a"}, {}, (80,))) == [{"name": "db", "port": "80"}]


@pytest.mark.parametrize("label", ["SERVICE_IGNORE", "SERVICE_80_IGNORE"])
def test_what_is_to_be_ignored_is(label: str) -> None:
    assert read({"SERVICE_NAME": "shop", label: "true"}, {}, (80,)) == Reading()


def test_a_name_without_any_port_is_told() -> None:
    reading = read({"SERVICE_NAME": "shop"}, {}, ())
    assert reading.services == ()
    assert reading.faults == ("SERVICE_NAME is set, but the container exposes no port; set pillion.dev/name and pillion.dev/port instead",)


def test_pillions_labels_go_before_registrators() -> None:
    labels = {"pillion.dev/name": "Shop", "SERVICE_NAME": "other", "SERVICE_IGNORE": "true"}
    assert texts(read(labels, {}, (80,))) == [{"name": "Shop", "port": "80"}]


def test_registrators_names_can_be_left_alone() -> None:
    assert read({"SERVICE_NAME": "shop"}, {}, (80,), registrator=False) == Reading()
