"""The instances an agent stands in for: registered, checked, withdrawn, each in its turn; and what is answered for them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import closing, suppress

import pytest
from fake_engine import container_id
from fleet_lab import A, B, FakeRegistry, fleet_of, specs, until, web

from pillion_common.config import Address
from pillion_common.http.server import Server
from pillion_sidecar.agent import instance as instance_module


@pytest.fixture
def app() -> Iterator[int]:
    """Return the port of something that takes connections."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    server = Server(fake.serve)
    fake.url = await server.listen(Address("127.0.0.1", 0))
    yield fake
    await server.close(0.1)


async def test_an_instance_registers_with_a_heartbeat_of_its_own(registry: FakeRegistry, app: int) -> None:
    labels = {"pillion.dev/requires": "Db:2", "pillion.dev/tags": "a,b", "pillion.dev/weight": "5", "pillion.dev/zone": "z1"}
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app, "shop-web-1", labels=labels)))
        await until(lambda: registry.registered)
    assert registry.registered == [
        {
            "ServiceName": "Web",
            "ServiceURL": f"http://127.0.0.1:{app}",
            "RequiredServices": ["Db"],
            "ServiceUpdateURL": "http://agent.example:7070/instances/000000000001/services",
            "HeartbeatURL": "http://agent.example:7070/instances/000000000001/heartbeat",
            "Zone": "z1",
            "Weight": 5,
            "Tags": ["a", "b"],
            "Metadata": {"pillion.dev/container": "shop-web-1"},
            "Protocol": 2,
            "Incarnation": 1769860800500,
            "Needs": {"Db": 2},
            "InstanceID": "Web-000000000001",
        }
    ]


async def test_the_registry_reaches_the_agent_at_its_address_on_the_route_there(registry: FakeRegistry, app: int) -> None:
    async with fleet_of(heartbeat_host="") as fleet:
        fleet.apply(specs(registry, app, web(1, app, networks={"n": "10.0.0.5"})))
        await until(lambda: registry.registered)
    assert registry.registered[0]["ServiceURL"] == f"http://10.0.0.5:{app}"
    assert registry.registered[0]["HeartbeatURL"] == "http://127.0.0.1:7070/instances/000000000001/heartbeat"


async def test_it_is_up_once_its_port_takes_connections_and_down_when_it_does_not(registry: FakeRegistry) -> None:
    report = "POST /services/Web-000000000001/state"
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        async with fleet_of() as fleet:
            fleet.apply(specs(registry, port, web(1, port)))
            (instance,) = fleet
            assert (instance.state, instance.reason) == ("starting", "it was not checked yet")
            await until(lambda: instance.registrar.registered and "refused" in instance.reason)
            listener.listen()
            await until(lambda: report in registry.log)
            assert json.loads(registry.bodies[report]) == {"State": "up"}
            assert instance.state == "up"
            listener.close()
            await until(lambda: registry.log.count(report) == 2)
            assert json.loads(registry.bodies[report])["State"] == "down"
            assert instance.state == "down"


async def test_what_comes_true_while_it_registers_is_reported(registry: FakeRegistry, app: int) -> None:
    registry.delays_s["POST"] = 0.1
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app)))
        (instance,) = fleet
        assert instance.beat() == (False, "it was not checked yet")
        await until(lambda: instance.well)
        assert not instance.registrar.registered
        await until(lambda: "POST /services/Web-000000000001/state" in registry.log)


async def test_the_engines_word_goes_before_the_checks(registry: FakeRegistry, app: int) -> None:
    report = "POST /services/Web-000000000001/state"
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app, health="starting")))
        (instance,) = fleet
        await until(lambda: instance.check.well and instance.registrar.registered)
        assert (instance.state, instance.reason) == ("starting", "its HEALTHCHECK has not passed yet")
        assert report not in registry.log
        fleet.apply(specs(registry, app, web(1, app, health="healthy")))
        await until(lambda: report in registry.log)
        assert instance.state == "up"
        fleet.apply(specs(registry, app, web(1, app, health="unhealthy")))
        await until(lambda: registry.log.count(report) == 2)
        assert json.loads(registry.bodies[report]) == {"State": "down", "Reason": "its HEALTHCHECK fails: curl: (7) refused"}
        assert instance.state == "down"
        fleet.apply(specs(registry, app, web(1, app, health="healthy", paused=True)))
        await until(lambda: instance.reason == "its container is paused")
        assert len(registry.registered) == 1


async def test_the_next_at_a_url_registers_only_after_the_last_was_withdrawn(registry: FakeRegistry, app: int) -> None:
    url = f"http://127.0.0.1:{app}"
    registry.delays_s["DELETE"] = 0.1
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app)))
        await until(lambda: registry.registered)
        fleet.dead(A)
        fleet.apply(specs(registry, app, web(2, app)))
        await until(lambda: len(registry.registered) == 2)
        assert [step for step in registry.log if "state" not in step] == ["POST Web-000000000001", f"DELETE {url}", "POST Web-000000000002"]
        fleet.dead(B)
        fleet.apply(specs(registry, app, web(3, app)))
        fleet.dead(container_id(3))
        fleet.apply(specs(registry, app, web(4, app)))
        await until(lambda: len(registry.registered) == 3)
        steps = [step for step in registry.log if "state" not in step]
        assert steps[3:] == [f"DELETE {url}", "POST Web-000000000004"]


async def test_a_container_that_restarted_is_withdrawn_and_registered_again(registry: FakeRegistry, app: int) -> None:
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app)))
        await until(lambda: registry.registered)
        fleet.apply(specs(registry, app, web(1, app, started="2026-01-31T12:00:09Z")))
        await until(lambda: len(registry.registered) == 2)
    assert registry.registered[1]["Incarnation"] == 1769860809000
    assert registry.log.index(f"DELETE http://127.0.0.1:{app}") < registry.log.index("POST Web-000000000001", 1)


async def test_a_container_that_is_told_to_stop_is_drained_and_then_withdrawn(registry: FakeRegistry, app: int) -> None:
    drain = "POST /services/Web-000000000001/drain"
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app, stop_signal="SIGQUIT")))
        (instance,) = fleet
        await until(lambda: instance.registrar.registered)
        fleet.signalled(A, 15)  # to this container no more than a word
        fleet.signalled(B, 3)
        await asyncio.sleep(0.05)
        assert instance.state != "draining"
        fleet.signalled(A, 3)
        fleet.signalled(A, 3)
        await until(lambda: drain in registry.log)
        assert instance.state == "draining"
        assert json.loads(registry.bodies[drain]) == {"Timeout": 5.0, "Reason": "its container is being stopped"}
        fleet.dead(A)
        await until(lambda: f"DELETE http://127.0.0.1:{app}" in registry.log)
        assert registry.log.count(drain) == 1
        assert len(fleet) == 0


async def test_a_dependent_that_is_slow_to_acknowledge_holds_up_no_withdrawal(registry: FakeRegistry, app: int) -> None:
    drain = "POST /services/Web-000000000001/drain"
    registry.delays_s[drain] = 5.0
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app)))
        (instance,) = fleet
        await until(lambda: instance.registrar.registered)
        fleet.signalled(A, 15)
        await until(lambda: drain in registry.bodies)
        fleet.dead(A)
        await until(lambda: f"DELETE http://127.0.0.1:{app}" in registry.log, within_s=1.0)


async def test_no_connection_of_ours_holds_up_an_app_that_is_told_to_stop(registry: FakeRegistry) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listener:
        port = listener.getsockname()[1]
        async with fleet_of() as fleet:
            fleet.apply(specs(registry, port, web(1, port)))
            (instance,) = fleet
            await until(lambda: instance.state == "up")
            fleet.signalled(A, 15)
            await asyncio.sleep(0.1)
            listener.settimeout(0.05)
            taken = []
            with suppress(TimeoutError):
                while True:
                    taken.append(listener.accept()[0])
            assert len(taken) <= 2
            for one in taken:
                with closing(one), suppress(ConnectionResetError):
                    one.settimeout(1.0)
                    assert one.recv(1) == b""


async def test_a_container_that_was_told_to_stop_and_runs_on_is_let_back(
    registry: FakeRegistry, app: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = web(1, app, stop_timeout=100)
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, shown))
        (instance,) = fleet
        now_s = 1000.0
        instance._now = lambda: now_s
        await until(lambda: instance.registrar.registered)
        fleet.signalled(A, 15)
        await until(lambda: "POST /services/Web-000000000001/drain" in registry.log)
        now_s = 1299.0
        fleet.apply(specs(registry, app, shown))
        assert instance.state == "draining"
        now_s = 1301.0
        fleet.apply(specs(registry, app, shown))
        await until(lambda: "POST /services/Web-000000000001/undrain" in registry.log)
        await until(lambda: instance.state == "up")


async def test_beyond_the_most_one_warning_names_who_was_left_out(
    registry: FakeRegistry, app: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet_of(most=1) as fleet:
        for _ in range(2):
            fleet.apply(specs(registry, app, web(1, app, "a"), web(2, app + 1, "b")))
        assert (len(fleet), [spec.container.name for spec in fleet.beyond]) == (1, ["b"])
    assert [r.message for r in caplog.records if r.levelname == "WARNING" and "MAX_CONTAINERS" in r.message] == [
        "1 instance more than PILLION_MAX_CONTAINERS allows, 1; raise it, or name fewer with PILLION_ONLY. Left out: b, ..."
    ]


async def test_closing_withdraws_all_within_its_time(
    registry: FakeRegistry, app: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pillion")
    async with fleet_of() as fleet:
        fleet.apply(specs(registry, app, *[web(number, app + number, f"web-{number}") for number in range(3)]))
        await until(lambda: len(registry.registered) == 3)
    assert sum(step.startswith("DELETE") for step in registry.log) == 3
    assert "withdrew all 3 instances, which go on working; a new agent registers them again" in [r.message for r in caplog.records]
    monkeypatch.setattr(instance_module, "DEREGISTER_S", 0.05)
    registry.delays_s["DELETE"] = 1.0
    async with asyncio.timeout(0.9), fleet_of() as fleet:
        fleet.apply(specs(registry, app, web(1, app)))
        await until(lambda: len(registry.registered) == 4)


async def test_a_fault_of_ours_costs_one_instance_until_the_next_plan(registry: FakeRegistry, app: int) -> None:
    wanted = specs(registry, app, web(1, app, "a"), web(2, app + 1, "b"))
    async with fleet_of() as fleet:
        fleet.apply(wanted)
        broken = fleet.get(A[:12])
        assert broken is not None

        def fail(*words: object) -> Awaitable[str]:
            raise RuntimeError("a fault of ours")

        broken.registrar._until_doubt = fail  # type: ignore[assignment, method-assign]
        await until(lambda: len(fleet) == 1)
        fleet.apply(wanted)
        await until(lambda: len(fleet) == 2 and all(instance.registrar.registered for instance in fleet))
