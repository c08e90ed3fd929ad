"""Look-ups of the local listener that wait, filter, or find nothing: what they say and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pillion_common import config
from pillion_common.config import Address
from pillion_common.errors import PillionError
from pillion_common.http.message import Request, Response, error_response
from pillion_common.http.router import Router
from pillion_common.http.server import Server
from pillion_sidecar.local.bell import Bell
from pillion_sidecar.local.lookups import Lookups
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.settings import Settings
from pillion_sidecar.table.providers import MAX_UNDECLARED, ProviderTable
from pillion_sidecar.wire import Patch, Provider

REGISTERED = b'{"InstanceID":"Portald-1","Revision":7,"Epoch":"e1","State":"starting","HeartbeatInterval":3.0}'
A, B = Provider("Db", "http://a:1", "a", tags=("blue",), version="1"), Provider("Db", "http://b:1", "b", tags=("red", "new"), version="2")


class Bench:
    """Look-ups over a real table and a real registrar, whose registry answers what `shown` has of a name."""

    def __init__(self, registry: str) -> None:
        words = ["--name", "Portald", "--port", "5000", "--requires", "Db", "--log-to", "", "--registry", registry]
        self.table = ProviderTable({"Db": 1}, rand=lambda: 0.999)
        self.registrar = Registrar(config.load(Settings, "sidecar", words, {}), None)
        self.bell = Bell()
        self.undeclared: list[str] = []
        self.shown: dict[str, list[dict[str, Any]]] = {}
        self.registrations: list[dict[str, Any]] = []
        self.reads = 0
        self.hangs = False
        self.answer = REGISTERED
        self.on_register: Callable[[dict[str, Any]], None] = lambda registration: None
        lookups = Lookups(
            self.table, self.registrar, self.bell, strategy="random", told_s=lambda: 12.0, on_undeclared=self.undeclared.append
        )
        self._router = Router()
        lookups.add_to(self._router)

    def serve(self, request: Request) -> Response | Awaitable[Response]:
        if self.hangs:
            return asyncio.sleep(30, Response(200))
        if request.method == "POST":
            self.registrations.append(json.loads(request.body))
            asyncio.get_running_loop().call_later(0.05, self.on_register, self.registrations[-1])
            return Response(200, self.answer)
        self.reads += 1
        found = self.shown.get(request.path.removeprefix("/services/"))
        if found is None:
            return Response(404, b'{"Error":"unknown_service"}')
        return Response(200, json.dumps({"Revision": 1, "Epoch": "e1", "Services": found}).encode())

    def tell(self, *entries: Provider, services: tuple[str, ...] = ("Db",)) -> None:
        self.table.apply(Patch(added=entries, full=True, services=services, revision=1, epoch="e1"))
        self.bell.ring()

    async def ask(self, target: str, **headers: str) -> Response:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        request = Request("GET", target.encode(), raw, "127.0.0.1", "1.1", True)
        try:
            handler = self._router(request)
            assert handler is not None
            answer = handler(request)
            return answer if isinstance(answer, Response) else await answer  # type: ignore[misc]
        except PillionError as exc:
            return error_response(exc)

    async def told(self, target: str) -> tuple[int, dict[str, Any]]:
        answer = await self.ask(target)
        return answer.status, json.loads(answer.body)

    async def refusal(self, target: str) -> tuple[int, str, str]:
        status, body = await self.told(target)
        return status, body["Error"], body["Message"]


@asynccontextmanager
async def running(answer: bytes = REGISTERED) -> AsyncIterator[Bench]:
    server = Server(lambda request: bench.serve(request))
    bench = Bench(await server.listen(Address("127.0.0.1", 0)))
    bench.answer = answer
    task = asyncio.create_task(bench.registrar.run(7070))
    try:
        async with asyncio.timeout(3):
            while not bench.registrar.registered:
                await asyncio.sleep(0.002)
        yield bench
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        bench.registrar.close()
        await server.close(0.1)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as bench:
        yield bench


async def timed(awaitable: Awaitable[Any]) -> tuple[float, Any]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await awaitable
    return loop.time() - began, result


# Filters and forms.


async def test_filters_leave_what_fits(bench: Bench) -> None:
    bench.tell(A, B)
    assert (await bench.ask("/providers/Db?tag=blue&format=text")).body == b"http://a:1\n"
    assert (await bench.ask("/providers/Db?version=2&format=text")).body == b"http://b:1\n"
    assert (await bench.ask("/providers/Db?tag=red,new&all=1&format=text")).body == b"http://b:1\n"
    status, error, message = await bench.refusal("/providers/Db?tag=blue&version=2")
    assert (status, error) == (404, "none_fits")
    assert message == "2 providers of Db are up, but none fits tag=blue&version=2"
    assert (await bench.told("/providers/Db?tag=green&all=1"))[1]["Providers"] == []


async def test_a_strategy_that_is_asked_for_is_used(bench: Bench) -> None:
    bench.tell(A, B)
    turns = [(await bench.ask("/providers/Db?strategy=round-robin&format=text")).body for _ in range(4)]
    assert turns == [b"http://a:1\n", b"http://b:1\n"] * 2
    keyed = {(await bench.ask("/providers/Db?strategy=hash&key=ada")).body for _ in range(5)}
    assert len(keyed) == 1
    assert (await bench.refusal("/providers/Db?strategy=hash"))[:2] == (400, "invalid_key")


async def test_format_json_goes_before_accept(bench: Bench) -> None:
    bench.tell(A)
    assert json.loads((await bench.ask("/providers/Db?format=json", accept="text/plain")).body)["URL"] == "http://a:1"


async def test_a_stale_table_says_its_age(bench: Bench) -> None:
    bench.tell(A)
    assert json.loads((await bench.ask("/providers/Db")).body) == {
        "Name": "Db", "URL": "http://a:1", "InstanceID": "a", "Zone": None, "Version": "1", "Stale": False,
    }  # fmt: skip
    assert (await bench.ask("/providers/Db?format=text")).headers is None
    bench.registrar.fault = "it is away"
    for target in ("/providers/Db", "/providers/Db?all=1", "/providers"):
        told = (await bench.told(target))[1]
        assert (told["Stale"], told["Age"]) == (True, 12.0)
    assert (await bench.ask("/providers/Db?format=text")).headers == {b"Age": b"12"}


@pytest.mark.parametrize("target", ["/providers/%2e%2e", "/providers/" + "x" * 64, "/providers/a%20b", "/providers/"])
async def test_a_name_that_cannot_be_is_refused(bench: Bench, target: str) -> None:
    assert (await bench.refusal(target))[:2] == (400, "invalid_name")


@pytest.mark.parametrize("query", ["wait=soon", "wait=301", "wait=-1", "wait=1&wait=2"])
async def test_a_wait_that_cannot_be_is_refused(bench: Bench, query: str) -> None:
    assert (await bench.ask(f"/providers/Db?{query}")).status == 400


# Waiting.


async def test_a_look_up_waits_for_a_provider(bench: Bench) -> None:
    bench.tell()
    asyncio.get_running_loop().call_later(0.1, bench.tell, A)
    waited_s, answer = await timed(bench.ask("/providers/Db?wait=5&format=text"))
    assert answer.body == b"http://a:1\n"
    assert 0.05 < waited_s < 1.0


async def test_a_wait_that_ends_in_vain_says_why(bench: Bench) -> None:
    bench.tell()
    waited_s, (status, error, _) = await timed(bench.refusal("/providers/Db?wait=100ms"))
    assert (status, error) == (404, "never_registered")
    assert 0.09 < waited_s < 1.0


async def test_without_a_wait_the_answer_comes_at_once(bench: Bench) -> None:
    bench.tell()
    assert (await timed(bench.refusal("/providers/Db")))[0] < 0.2


async def test_a_look_up_before_the_first_patch_waits_for_it(bench: Bench) -> None:
    asyncio.get_running_loop().call_later(0.1, bench.tell, A)
    assert (await bench.ask("/providers/Db?format=text")).body == b"http://a:1\n"
    assert bench.undeclared == []


async def test_all_that_is_needed_is_waited_for(bench: Bench) -> None:
    bench.tell(A)
    asyncio.get_running_loop().call_later(0.1, bench.tell, A, B)
    assert await bench.told("/wait?for=Db:2&timeout=5") == (200, {"Ready": ["Db"]})


async def test_what_is_missing_is_told(bench: Bench) -> None:
    bench.tell(A)
    status, told = await bench.told("/wait?for=Db:3&timeout=50ms")
    assert status == 504
    assert told == {"Error": "timed_out", "Message": "still missing after 0.05 s: Db (1 of 3)", "Missing": {"Db": "1 of 3"}}


async def test_what_was_known_long_ago_is_not_there(bench: Bench) -> None:
    bench.tell(A)
    bench.registrar.fault = "127.0.0.1:1 refused the connection"
    status, told = await bench.told("/wait?for=Db&timeout=10ms")
    assert (status, told["Missing"]) == (504, {"registry": "127.0.0.1:1 refused the connection"})


@pytest.mark.parametrize("query", ["", "for=", "for=Db:0", "for=a%20b", "for=Db&timeout=never", "for=Db&timeout=301"])
async def test_a_wait_for_nothing_sensible_is_refused(bench: Bench, query: str) -> None:
    assert (await bench.ask(f"/wait?{query}")).status == 400


async def test_only_so_many_may_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_sidecar.local.lookups.MAX_WAITING", 1)
    bench.tell()
    first = asyncio.create_task(bench.ask("/providers/Db?wait=300ms"))
    await asyncio.sleep(0.02)
    assert (await bench.refusal("/providers/Db?wait=1"))[:2] == (503, "too_many_waiting")
    assert (await first).status == 404


# Names that were not required.


async def test_a_name_that_was_not_required_is_asked_for_and_watched(bench: Bench) -> None:
    mail = Provider("Mail", "http://m:1")
    bench.on_register = lambda registration: bench.tell(mail, services=tuple(registration["RequiredServices"]))
    assert (await bench.ask("/providers/Mail?format=text")).body == b"http://m:1\n"
    assert bench.undeclared == ["Mail"]
    assert bench.registrations[-1]["RequiredServices"] == ["Db", "Mail"]
    assert bench.registrations[-1]["Metadata"] == {"pillion.dev/undeclared": "Mail"}
    assert bench.table.undeclared() == ("Mail",)
    assert (await bench.ask("/providers/Mail?format=text")).body == b"http://m:1\n"
    assert (len(bench.registrations), bench.undeclared) == (2, ["Mail"]), "it is asked for once"


async def test_a_name_that_nobody_has_is_told_as_such(bench: Bench) -> None:
    bench.on_register = lambda registration: bench.tell(services=tuple(registration["RequiredServices"]))
    assert (await bench.refusal("/providers/Nobody"))[:2] == (404, "never_registered")
    status, told = await bench.told("/providers/Nobody?all=1")
    assert (status, told["Providers"]) == (200, [])


async def test_only_so_many_names_are_taken_in(bench: Bench) -> None:
    for number in range(MAX_UNDECLARED):
        assert bench.table.add(f"S{number}")
    status, error, message = await bench.refusal("/providers/OneMore")
    assert (status, error) == (404, "not_required")
    assert "too many others" in message


async def test_a_classic_registry_cannot_be_asked_for_more() -> None:
    async with running(answer=b"") as bench:
        status, error, message = await bench.refusal("/providers/Mail")
        assert (status, error) == (404, "not_required")
        assert message == (
            "Mail is not among what this app requires (Db), and this registry has to be told at once; add it to PILLION_REQUIRES"
        )
        bench.table.apply(Patch(added=(A,)))
        bench.table.apply(Patch(removed=(A,)))
        assert await bench.refusal("/providers/Db") == (404, "no_provider", "no provider of Db is up now")
        assert bench.reads == 0


# Why there is none.


async def test_what_the_registry_says_of_those_that_are_not_up(bench: Bench) -> None:
    bench.tell()
    bench.shown["Db"] = [
        {"ServiceURL": "http://a:1", "State": "down", "Reason": "port 1 took no connection: Connection refused"},
        {"ServiceURL": "http://b:1", "State": "starting"},
    ]
    assert await bench.refusal("/providers/Db") == (
        404,
        "no_provider",
        "no provider of Db is up: 1 down, 1 starting; http://a:1: port 1 took no connection: Connection refused",
    )


async def test_all_that_drain_are_told_apart(bench: Bench) -> None:
    bench.tell()
    bench.shown["Db"] = [{"ServiceURL": "http://a:1", "State": "draining"}] * 2
    assert await bench.refusal("/providers/Db") == (404, "all_draining", "no provider of Db is up: all 2 are draining")


async def test_a_name_without_instances(bench: Bench) -> None:
    bench.tell()
    bench.shown["Db"] = []
    assert (await bench.refusal("/providers/Db"))[1:] == ("no_provider", "no provider of Db is up: none is registered now")


async def test_the_registry_is_asked_once_a_second(bench: Bench) -> None:
    bench.tell()
    await asyncio.gather(*(bench.refusal("/providers/Db") for _ in range(20)))
    assert bench.reads == 1


async def test_names_that_are_missed_do_not_wait_for_each_other_when_the_registry_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillion_sidecar.local.absence.TIMEOUT_S", 0.3)
    bench.tell()
    names = [f"S{number}" for number in range(6)]
    for name in names:
        bench.table.add(name)
    bench.tell(services=("Db", *names))
    bench.hangs = True
    waited_s, answers = await timed(asyncio.gather(*(bench.refusal(f"/providers/{name}") for name in names for _ in range(3))))
    assert {error for _, error, _ in answers} == {"registry_unreachable"}
    assert waited_s < 1.0


async def test_a_registry_that_is_away_is_the_reason(bench: Bench) -> None:
    bench.tell()
    bench.registrar.fault = "127.0.0.1:1 refused the connection"
    status, error, message = await bench.refusal("/providers/Db")
    assert (status, error) == (404, "registry_unreachable")
    assert message == ("no provider of Db is known, and the registry cannot be reached (for 0 s: 127.0.0.1:1 refused the connection)")
