"""The registrar in doubt: when it registers again, what an incarnation is for, and how the app is drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_registry import REGISTERED, FakeRegistry, fake_registry, running, settings, until

from pillion_common.config import Address
from pillion_common.http.message import Response
from pillion_common.http.server import Server
from pillion_common.names import parse_url
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.registry.registration import next_incarnation
from pillion_sidecar.wire import Drained


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with fake_registry() as fake:
        yield fake


# Doubt.


def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.registry.registrar.SPREAD_S", 0.05)
    monkeypatch.setattr("pillion_sidecar.registry.registrar.BACKOFF_CAP_S", 0.1)


@asynccontextmanager
async def restartable() -> AsyncIterator[tuple[FakeRegistry, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]:
    """Yield a registry, what ends it and what starts it again on the same port."""
    fake = FakeRegistry()
    servers = [Server(fake.serve)]
    fake.url = await servers[0].listen(Address("127.0.0.1", 0))

    async def end() -> None:
        await servers.pop().close(0.1)

    async def start() -> None:
        servers.append(Server(fake.serve))
        await servers[0].listen(Address("127.0.0.1", parse_url(fake.url, "url").port))

    try:
        yield fake, end, start
    finally:
        for server in servers:
            await server.close(0.1)


async def test_a_registry_that_closes_the_connection_is_registered_with_again(monkeypatch: pytest.MonkeyPatch) -> None:
    swift(monkeypatch)
    async with restartable() as (registry, end, start), running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        await end()
        await until(lambda: "refused" in registrar.fault)
        assert registrar.stale
        assert registrar.admitted, "a registry that is away has not refused us"
        assert registrar.registered
        await start()
        await until(lambda: len(registry.asked) == 2)
        await until(lambda: not registrar.stale)
        assert registry.methods() == ["POST /services"] * 2


async def test_a_crowd_comes_back_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.registry.registrar.SPREAD_S", 30.0)
    async with restartable() as (registry, end, start), running(Registrar(settings(registry.url), None, rand=lambda: 0.005)) as registrar:
        await until(lambda: registrar.registered)
        await end()
        await start()
        await asyncio.sleep(0.05)
        assert len(registry.asked) == 1
        await until(lambda: len(registry.asked) == 2)


async def test_a_classic_registry_that_closes_an_idle_connection_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    swift(monkeypatch)
    async with restartable() as (registry, _, _):
        registry.answer = lambda request: Response(200 if request.method == "POST" else 405, headers={b"Connection": b"close"})
        async with running(Registrar(settings(registry.url), None)) as registrar:
            await until(lambda: registrar.registered)
            registrar._lost()
            await until(lambda: "GET /services" in registry.methods())
            await asyncio.sleep(0.1)
            assert registry.methods() == ["POST /services", "GET /services"]


async def test_a_classic_registry_that_was_restarted_is_registered_with_again(monkeypatch: pytest.MonkeyPatch) -> None:
    swift(monkeypatch)
    forgotten = []
    async with restartable() as (registry, end, start):
        registry.answer = lambda request: Response(200 if request.method == "POST" else 404)
        async with running(Registrar(settings(registry.url), None, on_forgotten=lambda: forgotten.append(1))) as registrar:
            await until(lambda: registrar.registered)
            await end()
            await until(lambda: registrar.fault)
            await start()
            await until(lambda: registry.methods().count("POST /services") == 2)
    assert forgotten == [1]


async def test_a_report_that_is_answered_404_lets_it_register_again(registry: FakeRegistry) -> None:
    registry.answer = lambda request: Response(200, REGISTERED) if request.path == "/services" else Response(404)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        await registrar.report(True, "")
        await until(lambda: registry.methods().count("POST /services") == 2)


async def test_a_change_that_could_not_be_told_is_owed(registry: FakeRegistry) -> None:
    registrar = Registrar(settings(registry.url), None)
    await registrar.report(True, "")
    assert registrar.owes_report
    async with running(registrar):
        await until(lambda: registrar.registered)
        await registrar.report(True, "")
        assert not registrar.owes_report
    assert registry.methods() == ["POST /services", "POST /services/Portald-1/state"]


async def test_the_next_registry_takes_over_when_one_is_gone(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    swift(monkeypatch)
    async with restartable() as (first, end, _), running(Registrar(settings(first.url, registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        assert (len(first.asked), len(registry.asked)) == (1, 0)
        await end()
        await until(lambda: len(registry.asked) == 1)
        await until(lambda: not registrar.stale)


async def test_what_is_looked_up_besides_is_registered_for(registry: FakeRegistry) -> None:
    async with running(Registrar(settings(registry.url, requires="Db"), None)) as registrar:
        await until(lambda: registrar.registered)
        assert registrar.require("Mail")
        assert registrar.require("Mail")
        await until(lambda: len(registry.asked) == 2)
        assert registry.body(1)["RequiredServices"] == ["Db", "LogService", "Mail"]
        await asyncio.sleep(0.05)
        assert len(registry.asked) == 2


# Incarnations.


async def test_each_life_has_a_higher_incarnation(tmp_path: Path, registry: FakeRegistry) -> None:
    first = next_incarnation(str(tmp_path), 2000.0)
    assert first == 2_000_000
    assert next_incarnation(str(tmp_path), 1000.0) == first + 1, "whatever the clock says"
    assert next_incarnation(str(tmp_path), 3000.0) == 3_000_000
    async with running(Registrar(settings(registry.url), None, incarnation=first)) as registrar:
        await until(lambda: registrar.registered)
    assert registry.body()["Incarnation"] == first


@pytest.mark.parametrize("kept", ["", "soon", "9" * 5000])
def test_an_incarnation_that_cannot_be_read_is_none(tmp_path: Path, kept: str) -> None:
    (tmp_path / "incarnation").write_text(kept)
    assert next_incarnation(str(tmp_path), 1000.0) == (1_000_000 if len(kept) < 5000 else int("9" * 32) + 1)


def test_an_incarnation_that_cannot_be_kept_is_no_reason_not_to_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert next_incarnation(str(tmp_path / "nowhere"), 1000.0) == 1_000_000
    assert "was not written" in caplog.text


async def test_an_older_incarnation_than_the_registered_one_removes_that_first(registry: FakeRegistry) -> None:
    refused = iter([Response(409, b'{"Error":"old_incarnation"}'), Response(200), Response(200, REGISTERED)])
    registry.answer = lambda request: next(refused)
    async with running(Registrar(settings(registry.url), None, incarnation=1)) as registrar:
        await until(lambda: registrar.registered)
    assert registry.methods() == ["POST /services", "DELETE /services", "POST /services"]


# Draining.

DRAINED = b'{"InstanceID":"Portald-1","State":"draining","Acknowledged":3,"Waiting":["Slow-1"]}'


async def test_a_drain_says_who_knows(registry: FakeRegistry) -> None:
    registry.answer = lambda request: Response(200, DRAINED if request.path.endswith("/drain") else REGISTERED)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        assert await registrar.drain(2.5, "to be replaced") == Drained(3, ("Slow-1",))
        assert registry.body(1) == {"Timeout": 2.5, "Reason": "to be replaced"}
        assert registrar.draining
        registrar.doubt("was restarted")
        await until(lambda: len(registry.asked) == 4)
        assert registry.methods()[2:] == ["POST /services", "POST /services/Portald-1/drain"], "it stays drained"
        assert await registrar.undrain() == ""
        assert not registrar.draining
        assert registry.methods()[-1] == "POST /services/Portald-1/undrain"


async def test_a_classic_registry_knows_no_drain_but_a_withdrawal(registry: FakeRegistry) -> None:
    registry.answer = lambda request: Response(200)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        assert await registrar.drain(1.0, "") is None
        assert registry.methods() == ["POST /services", "DELETE /services"]
        assert await registrar.undrain() == ""
        await until(lambda: registry.methods().count("POST /services") == 2)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_registry_without_drains_is_withdrawn_from(registry: FakeRegistry, status: int) -> None:
    registry.answer = lambda request: Response(status) if request.path.endswith("drain") else Response(200, REGISTERED)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        assert await registrar.drain(1.0, "") is None
    assert registry.methods()[-1] == "DELETE /services"


async def test_a_drain_that_fails_is_told(registry: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        registry.answer = lambda request: Response(507, b"the disk is full")
        assert await registrar.drain(1.0, "") is None
        assert "answered 507 to the drain: the disk is full" in caplog.text
        assert "answered 507" in await registrar.undrain()
        registrar.close()
        assert await registrar.drain(1.0, "") is None
        assert "was not told that the app drains" in caplog.text
        assert await registrar.undrain() != ""
