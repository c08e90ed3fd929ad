"""What the findings of `GET /why` say of one instance, and of several."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from pillion_common.models import Registration, State
from pillion_registry.catalog import Catalog
from pillion_registry.dependent import Knowledge
from pillion_registry.notifier import Standing
from pillion_registry.why import Evidence, explain
from pillion_registry.wire import Finding, Unreached

AT_S, AT = 1_000_000_000.0, "2001-09-09T01:46:40.000Z"


def _fleet(providers: int, consumers: int, host: str = "10.0.0.7", needs: int = 1, requires: str = "Db") -> Catalog:
    """Return a catalogue with so many Shops that require Db; all instances are up."""
    catalog = Catalog(max_instances=100)
    for number in range(providers):
        _add(catalog, Registration("Db", f"http://{host}:{5000 + number}", heartbeat_url="http://10.0.0.7/h"))
    for number in range(consumers):
        url = f"http://10.0.0.8:{6000 + number}"
        _add(catalog, Registration("Shop", url, (requires,), url, url, needs={requires: needs}))
    for instance in catalog:
        instance.state, instance.since_s = State.UP, AT_S
    return catalog


def _add(catalog: Catalog, given: Registration) -> None:
    catalog.accept(catalog.decide(given, "10.0.0.8", AT_S))


def _set(catalog: Catalog, name: str, **attributes: Any) -> None:
    for instance in catalog.named(name):
        for key, value in attributes.items():
            setattr(instance, key, value)


def _standing(catalog: Catalog, told: bool, failing: bool = False, status: int = 500, tries: int = 3) -> Callable[[str], Standing]:
    sets = {"Db": catalog.providers("Db")} if told else {}
    known = Knowledge(MappingProxyType(sets), 1)
    return lambda _: Standing(known, None, AT_S if failing else None, tries, status, "", AT_S)


def _first(catalog: Catalog, evidence: Evidence | None = None) -> Finding:
    return explain("Shop", "Db", catalog, evidence or Evidence(lambda _: None, {}, None)).findings[0]


ONE_OR_MORE: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"state": State.STARTING, "retained": True},
        "unchecked",
        "1 instance of Db was up before the registry restarted and has not been checked since.",
        "3 instances of Db were up before the registry restarted and have not been checked since.",
    ),
    (
        {"state": State.STARTING},
        "starting",
        f"1 instance of Db started at {AT} and no check has passed yet.",
        f"3 instances of Db started at {AT} and no check has passed yet.",
    ),
    (
        {"state": State.DOWN},
        "check_failing",
        f"1 instance of Db fails its check since {AT}.",
        f"3 instances of Db fail their check since {AT}.",
    ),
    (
        {"state": State.DOWN, "outlasted_guard": True},
        "withdrawn_after_guard",
        "1 instance of Db fell silent with many others; the guard kept it for its time, and then it was withdrawn.",
        "3 instances of Db fell silent with many others; the guard kept them for its time, and then they were withdrawn.",
    ),
    (
        {"state": State.DOWN, "held_until_s": AT_S},
        "held_for_flapping",
        f"1 instance of Db answers, and is held down until {AT}, for it came and went too often.",
        f"3 instances of Db answer, and are held down until {AT}, for they came and went too often.",
    ),
    (
        {"suspect": "silent", "suspect_until_s": AT_S},
        "kept_by_guard",
        f"1 instance of Db does not answer the registry, and is offered all the same until {AT}: calls to it may fail.",
        f"3 instances of Db do not answer the registry, and are offered all the same until {AT}: calls to them may fail.",
    ),
    (
        {"state": State.DRAINING},
        "draining",
        f"1 instance of Db drains since {AT}: somebody withdrew it, or the end is near.",
        f"3 instances of Db drain since {AT}: somebody withdrew them, or the end is near.",
    ),
    (
        {"state": State.DRAINING, "hidden_until_s": AT_S},
        "withdrawn_by_hand",
        f"1 instance of Db was withdrawn by an operator's hand for a while, at {AT}.",
        f"3 instances of Db were withdrawn by an operator's hand for a while, at {AT}.",
    ),
]


@pytest.mark.parametrize(("state", "code", "one", "more"), ONE_OR_MORE)
def test_what_is_wrong_with_providers(state: dict[str, Any], code: str, one: str, more: str) -> None:
    for count, text in ((1, one), (3, more)):
        catalog = _fleet(count, 1)
        _set(catalog, "Db", **state)
        found = _first(catalog)
        assert (found.code, found.text) == (code, text)


def test_what_to_do_speaks_of_one_or_of_several_too() -> None:
    catalog = _fleet(1, 1)
    _set(catalog, "Db", suspect="silent", suspect_until_s=AT_S)
    assert _first(catalog).do.endswith("between the registry and it; after that time it is withdrawn if it is still silent.")
    catalog = _fleet(2, 1)
    _set(catalog, "Db", suspect="silent", suspect_until_s=AT_S)
    assert _first(catalog).do.endswith("between the registry and them; after that time those still silent are withdrawn.")


@pytest.mark.parametrize(
    ("consumers", "text"),
    [
        (1, "1 instance of Shop did not say that it requires Db, so it is not told of it."),
        (2, "2 instances of Shop did not say that they require Db, so they are not told of it."),
    ],
)
def test_a_consumer_that_does_not_require_it(consumers: int, text: str) -> None:
    assert _first(_fleet(1, consumers, requires="Cache")).text == text


@pytest.mark.parametrize(
    ("consumers", "text"),
    [
        (1, f"1 instance of Shop is down since {AT}: what it knows may be old, and it may be gone."),
        (2, f"2 instances of Shop are down since {AT}: what they know may be old, and they may be gone."),
    ],
)
def test_a_consumer_that_is_down(consumers: int, text: str) -> None:
    catalog = _fleet(1, consumers)
    _set(catalog, "Shop", state=State.DOWN)
    assert _first(catalog).text == text


@pytest.mark.parametrize(
    ("consumers", "status", "tries", "text"),
    [
        (1, 0, 3, f"1 instance of Shop cannot be reached by the registry since {AT}: neither checks nor news arrive."),
        (1, 401, 3, f"1 instance of Shop refuses the registry's news for want of the right token since {AT}."),
        (2, 401, 3, f"2 instances of Shop refuse the registry's news for want of the right token since {AT}."),
        (1, 500, 1, f"1 instance of Shop has not acknowledged the newest patch since {AT}, in 1 try."),
        (2, 500, 3, f"2 instances of Shop have not acknowledged the newest patch since {AT}, in 3 tries."),
    ],
)
def test_a_consumer_that_cannot_be_told(consumers: int, status: int, tries: int, text: str) -> None:
    catalog = _fleet(1, consumers)
    _set(catalog, "Shop", misses=0 if status else 2)
    assert _first(catalog, Evidence(_standing(catalog, True, True, status, tries), {}, None)).text == text


@pytest.mark.parametrize(("consumers", "text"), [(1, "1 instance of Shop still has"), (2, "2 instances of Shop still have")])
def test_a_consumer_with_an_older_table(consumers: int, text: str) -> None:
    catalog = _fleet(1, consumers)
    found = _first(catalog, Evidence(_standing(catalog, False), {}, None))
    assert found.text == f"{text} an older table: the newest patch is on its way, or waits for a check."


@pytest.mark.parametrize(("up", "text"), [(1, "Shop needs 3 of Db, and 1 is up."), (2, "Shop needs 3 of Db, and 2 are up.")])
def test_too_few(up: int, text: str) -> None:
    assert _first(_fleet(up, 1, needs=3)).text == text


@pytest.mark.parametrize(
    ("providers", "text", "do"),
    [
        (1, "1 instance of Db is registered", "beside it to the address under which others reach it."),
        (2, "2 instances of Db are registered", "beside them to the address under which others reach them."),
    ],
)
def test_providers_at_a_loopback_address(providers: int, text: str, do: str) -> None:
    found = explain("Shop", "Db", _fleet(providers, 1, "127.0.0.1"), Evidence(lambda _: None, {}, None)).findings[-1]
    assert found.text == f"{text} at a loopback address, which Shop on another host cannot reach."
    assert found.do.endswith(do)


@pytest.mark.parametrize(
    ("providers", "consumers", "text"),
    [
        (1, 1, "1 instance of Shop cannot connect to the only instance of Db that is up: its sidecar tried."),
        (3, 1, "1 instance of Shop cannot connect to 1 of the 3 instances of Db that are up: its sidecar tried."),
        (3, 2, "2 instances of Shop cannot connect to 1 of the 3 instances of Db that are up: their sidecars tried."),
    ],
)
def test_providers_that_take_no_connection(providers: int, consumers: int, text: str) -> None:
    catalog = _fleet(providers, consumers)
    refused = Unreached(catalog.named("Db")[0].record.url, "refused")
    unreached = {one.record.instance_id: (refused,) for one in catalog.named("Shop")}
    assert _first(catalog, Evidence(_standing(catalog, True), {}, None, unreached)).text == text


@pytest.mark.parametrize(("providers", "which"), [(1, "the only provider"), (2, "all 2 providers")])
def test_all_is_well(providers: int, which: str) -> None:
    catalog = _fleet(providers, 1)
    assert _first(catalog, Evidence(_standing(catalog, True), {}, None)).text == f"Shop has acknowledged {which} of Db."
