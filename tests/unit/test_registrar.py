"""The registrar: what it sends, whom it asks, how long it is patient, and how it goes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_registry import REGISTERED, Clock, FakeRegistry, fake_registry, running, settings, until

from pillion_common.config import Address
from pillion_common.errors import PeerError
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_common.lifecycle import Life
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.registry import registration as registration_module
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.registry.registration import route_source
from pillion_sidecar.sidecar import Sidecar

SECRET = "s3cret-s3cret-s3cret"


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with fake_registry() as fake:
        yield fake


async def test_it_registers_what_it_was_told(registry: FakeRegistry) -> None:
    given = settings(registry.url, requires="GradingService,Db:2", version="1.4", zone="z1", weight="5", tags="a,b")
    async with running(Registrar(given, None)) as registrar:
        await until(lambda: registrar.registered)
        assert registrar.fault == ""
        assert registrar.instance_id == "Portald-1"
        assert not registrar.stale
    assert registry.methods() == ["POST /services"]
    assert registry.body() == {
        "ServiceName": "Portald",
        "ServiceURL": "http://127.0.0.1:5000",
        "RequiredServices": ["GradingService", "Db", "LogService"],
        "ServiceUpdateURL": "http://127.0.0.1:7070/services",
        "HeartbeatURL": "http://127.0.0.1:7070/heartbeat",
        "Version": "1.4",
        "Zone": "z1",
        "Weight": 5,
        "Tags": ["a", "b"],
        "Protocol": 2,
        "Needs": {"Db": 2, "LogService": 0},
    }
    assert registry.authorizations == [b""]


@pytest.mark.parametrize(("host", "shown"), [("app.example", "app.example"), ("10.1.2.3", "10.1.2.3"), ("fd00::7", "[fd00::7]")])
async def test_the_advertised_host_goes_before_the_route(registry: FakeRegistry, host: str, shown: str) -> None:
    async with running(Registrar(settings(registry.url, advertise=host), None)) as registrar:
        await until(lambda: registrar.registered)
    assert registry.body()["ServiceURL"] == f"http://{shown}:5000"
    assert registry.body()["HeartbeatURL"] == f"http://{shown}:7070/heartbeat"


async def test_the_token_goes_along_with_everything(registry: FakeRegistry) -> None:
    async with running(Registrar(settings(registry.url), Token(SECRET))) as registrar:
        await until(lambda: registrar.registered)
        await registrar.report(False, "gone")
        await registrar.deregister(1.0)
    assert registry.methods() == ["POST /services", "POST /services/Portald-1/state", "DELETE /services"]
    assert registry.authorizations == [b"Bearer " + SECRET.encode()] * 3


async def test_a_refusal_is_told_once_with_its_reason_and_tried_again(registry: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    registry.answer = lambda request: Response(403, b'{"Error":"token_wrong","Message":"the token does not fit"}')
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: len(registry.asked) >= 3)
        assert not registrar.registered
        assert registrar.stale
        assert "answered 403" in registrar.fault
        assert "the token does not fit" in registrar.fault
        registry.answer = lambda request: Response(200, REGISTERED)
        await until(lambda: registrar.registered)
    assert sum("not registered: " in record.getMessage() for record in caplog.records) == 1


async def test_a_registry_that_is_not_there_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    registrar = Registrar(settings(f"http://127.0.0.1:{port}"), None)
    async with running(registrar):
        await until(lambda: "refused" in registrar.fault)
        assert registrar.fault == f"127.0.0.1:{port} refused the connection"
        fake = FakeRegistry()
        server = Server(fake.serve)
        await server.listen(Address("127.0.0.1", port))
        await until(lambda: registrar.registered)
    await server.close(0.1)


async def test_a_registry_whose_name_does_not_resolve_is_told() -> None:
    registrar = Registrar(settings("http://nowhere.invalid:3000"), None)
    async with running(registrar):
        await until(lambda: "nowhere.invalid" in registrar.fault)
        assert registrar.fault.startswith("nowhere.invalid cannot be reached: ")


async def test_registries_are_tried_in_turn(registry: FakeRegistry) -> None:
    async with running(Registrar(settings("http://127.0.0.1:1", registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
    assert registry.methods() == ["POST /services"]


async def test_a_classic_registry_is_known_by_its_empty_answer(registry: FakeRegistry) -> None:
    registry.answer = lambda request: Response(200)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        await registrar.report(False, "gone")
        assert registry.methods() == ["POST /services"], "a classic registry has no ear for reports"
        assert registrar.instance_id.startswith("Portald-")


@pytest.mark.parametrize(("body", "patience_s"), [(REGISTERED, 8.0), (b"", 62.0), (b"OK", 62.0), (b'"thanks"', 62.0)])
async def test_how_long_a_silent_registry_is_trusted(registry: FakeRegistry, body: bytes, patience_s: float) -> None:
    clock = Clock()
    registry.answer = lambda request: Response(200, body)
    async with running(Registrar(settings(registry.url), None, clock=clock)) as registrar:
        await until(lambda: registrar.registered)
        clock.now_s += patience_s - 0.1
        assert not registrar.stale
        clock.now_s += 0.2
        assert registrar.stale
        registrar.heard()
        assert not registrar.stale
        assert registrar.silent_s == 0.0


async def test_a_registry_that_fell_silent_is_registered_with_again(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.registry.registrar._patience", lambda interval_s: 0.1)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: len(registry.asked) == 3)
        assert registry.methods() == ["POST /services"] * 3
        assert registrar.fault == ""


async def test_a_classic_registry_that_fell_silent_is_told_goodbye_first(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    # It appends what it has already: without the goodbye each silence would leave a duplicate.
    monkeypatch.setattr("pillion_sidecar.registry.registrar._patience", lambda interval_s: 0.1)
    registry.answer = lambda request: Response(200 if request.method == "POST" else 404)
    async with running(Registrar(settings(registry.url), None)):
        await until(lambda: len(registry.asked) >= 5)
    assert registry.methods()[:5] == ["POST /services", "DELETE /services", "POST /services", "DELETE /services", "POST /services"]


async def test_as_long_as_the_registry_is_heard_nothing_is_sent(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.registry.registrar._patience", lambda interval_s: 0.15)
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        for _ in range(20):
            registrar.heard()
            await asyncio.sleep(0.02)
        assert registry.methods() == ["POST /services"]


async def test_a_report_that_fails_is_no_fault(registry: FakeRegistry) -> None:
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        registry.answer = lambda request: Response(500)
        await registrar.report(True, "")
        assert json.loads(registry.asked[-1][2]) == {"State": "up"}
        registrar.close()
        await registrar.report(False, "gone")
        assert registrar.registered


async def test_the_withdrawal_names_the_url(registry: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        await registrar.deregister(1.0)
        assert registry.asked[-1] == ("DELETE", "/services", b"http://127.0.0.1:5000")
        assert not registrar.registered
    assert "deregister_failed" not in [getattr(record, "event", "") for record in caplog.records]


async def test_a_withdrawal_that_fails_is_told_and_ends_in_time(registry: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    async def never(request: Request) -> Response:
        await asyncio.sleep(30)
        raise AssertionError

    async with running(Registrar(settings(registry.url), None)) as registrar:
        await until(lambda: registrar.registered)
        registry.answer = never
        async with asyncio.timeout(1.0):
            await registrar.deregister(0.1)
    assert "did not answer within 0.1 s" in caplog.text


async def test_who_never_registered_has_nothing_to_withdraw(registry: FakeRegistry) -> None:
    await Registrar(settings(registry.url), None).deregister(1.0)
    assert registry.asked == []


async def test_a_stopping_sidecar_does_not_register_again_behind_its_withdrawal(registry: FakeRegistry, tmp_path: Path) -> None:
    async def answer(request: Request) -> Response:
        if request.method == "DELETE":
            await asyncio.sleep(0.5)  # a slow registry; meanwhile the registrar's next try would fall due
        return Response(503 if request.method == "POST" else 404)

    registry.answer = answer
    words = settings(registry.url, local="127.0.0.1:0", listen="127.0.0.1:0", check="none", state_dir=str(tmp_path))
    life = Life("sidecar")
    sidecar = Sidecar(life, words, None, Spool(tmp_path / "spool", 1 << 20))
    await sidecar.start()
    await until(lambda: registry.asked)
    await asyncio.sleep(0.02)
    await sidecar.stop()
    assert registry.methods()[-1] == "DELETE /services"
    assert "POST /services" not in registry.methods()[registry.methods().index("DELETE /services") :]


async def test_a_withdrawal_under_way_is_not_cut_by_the_registrars_next_try(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillion_sidecar.registry.registrar._patience", lambda interval_s: 0.2)
    withdrawn = []

    async def answer(request: Request) -> Response:
        if request.method == "DELETE":
            await asyncio.sleep(0.5)
            withdrawn.append(request.body)
        return Response(200, REGISTERED)

    registry.answer = answer
    words = settings(registry.url, local="127.0.0.1:0", listen="127.0.0.1:0", check="none", state_dir=str(tmp_path))
    sidecar = Sidecar(Life("sidecar"), words, None, Spool(tmp_path / "spool", 1 << 20))
    await sidecar.start()
    await until(lambda: registry.asked)
    await sidecar.stop()
    assert withdrawn == [b"http://127.0.0.1:5000"]
    assert registry.methods()[-1] == "DELETE /services"


async def test_the_source_of_the_route_is_the_address_others_reach_us_under() -> None:
    assert await route_source(parse_url("http://127.0.0.1:3000", "registry")) == "127.0.0.1"
    assert await route_source(parse_url("http://127.0.0.9:3000", "registry")) == "127.0.0.1"
    assert await route_source(parse_url("http://localhost:3000", "registry")) in ("127.0.0.1", "::1")


async def test_a_registry_name_with_two_families_gives_the_address_that_was_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # `localhost` often comes as ::1 first; the peer listener's default, 0.0.0.0, takes no IPv6.
    async def both(host: str, port: int, **hints: Any) -> list[Any]:
        six = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0))
        return [six, (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    assert await route_source(parse_url("http://registry:3000", "registry")) == "127.0.0.1"


async def test_a_name_that_does_not_resolve_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*words: Any, **hints: Any) -> list[Any]:
        await asyncio.sleep(30)
        return []

    monkeypatch.setattr(registration_module, "RESOLVE_S", 0.05)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    with pytest.raises(PeerError, match="registry cannot be reached: its name did not resolve in time"):
        await route_source(parse_url("http://registry:3000", "registry"))
