"""The audit: which differences between registry and table let the sidecar register again, and which do not."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_sidecar.registry.audit import Audit
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Patch, Provider

A, B = Provider("Db", "http://a:1"), Provider("Db", "http://b:1")


class FakeRegistrar:
    """Shows what it is told to, with an ETag of its own."""

    def __init__(self) -> None:
        self.classic = False
        self.registered = True
        self.epoch = "e1"
        self.shown: dict[str, list[str]] = {"Db": ["http://a:1"]}
        self.doubts: list[str] = []
        self.statuses: list[int] = []
        self.body: bytes | None = None
        self.away = False

    async def read(self, target: str, headers: tuple[str, ...] = (), timeout_s: float = 3.0) -> Answer:
        if self.away:
            raise PeerError("it is away")
        name = target.removeprefix("/services/").removesuffix("?state=up")
        if name not in self.shown:
            return self._answer(404, "", b"{}")
        services = [{"ServiceURL": url, "State": "up"} for url in self.shown[name]]
        body = self.body or json.dumps({"Revision": 1, "Epoch": self.epoch, "Services": services}).encode()
        etag = f'"{hash(body)}"'
        return self._answer(304, etag, b"") if headers == (f"If-None-Match: {etag}",) else self._answer(200, etag, body)

    def _answer(self, status: int, etag: str, body: bytes) -> Answer:
        self.statuses.append(status)
        return Answer(status, ((b"Etag", etag.encode()),), body)

    def doubt(self, why: str) -> None:
        self.doubts.append(why)


class Bench:
    def __init__(self) -> None:
        self.registrar = FakeRegistrar()
        self.table = ProviderTable({"Db": 1})
        self.tell(A)
        self.audit = Audit(self.registrar, self.table, period_s=0.02, settle_s=0.02)  # type: ignore[arg-type]

    def tell(self, *entries: Provider) -> None:
        self.table.apply(Patch(added=entries, full=True, services=("Db",), revision=1, epoch="e1"))

    async def run_for(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.audit.run()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_the_same_is_read_again_only_if_it_changed(bench: Bench) -> None:
    assert [await bench.audit.difference() for _ in range(3)] == ["", "", ""]
    assert bench.registrar.statuses == [200, 304, 304]
    bench.tell(A, B)
    assert "not http://b:1" in await bench.audit.difference(), "the table may drift while the registry stays the same"


async def test_a_lost_patch_is_noticed(bench: Bench) -> None:
    bench.registrar.shown["Db"] = ["http://a:1", "http://b:1"]
    assert await bench.audit.difference() == "Db: it shows http://b:1 that is not here, and not nothing"
    await bench.run_for(0.3)
    assert bench.registrar.doubts[0] == "shows something else than it told"


async def test_a_difference_that_passes_is_none(bench: Bench) -> None:
    bench.audit._settle_s = 0.2
    bench.registrar.shown["Db"] = ["http://a:1", "http://b:1"]
    asyncio.get_running_loop().call_later(0.1, bench.tell, A, B)
    await bench.run_for(0.5)
    assert bench.registrar.doubts == []


async def test_a_registry_that_lost_its_memory_is_noticed(bench: Bench) -> None:
    bench.registrar.epoch = "e2"
    assert await bench.audit.difference() == "it has lost its memory (epoch e2, was e1)"


async def test_a_name_the_registry_never_saw_has_no_providers(bench: Bench) -> None:
    del bench.registrar.shown["Db"]
    assert "http://a:1" in await bench.audit.difference()
    bench.tell()
    assert await bench.audit.difference() == ""


async def test_what_cannot_be_asked_does_not_differ(bench: Bench) -> None:
    bench.registrar.shown["Db"] = []
    bench.registrar.away = True
    assert await bench.audit.difference() == ""
    bench.registrar.away = False
    for body in (b'{"Revision":1,"Epoch":"e1","Serv', b"[]", b'{"Epoch":"e1","Services":[1]}', b'{"Services":[]}'):
        bench.registrar.body = body  # cut at our bound, or not Pillion's
        assert await bench.audit.difference() == ""
    bench.registrar.body = None
    bench.registrar.classic = True
    assert await bench.audit.difference() == ""
    bench.registrar.classic, bench.registrar.registered = False, False
    assert await bench.audit.difference() == ""
    bench.registrar.registered = True
    assert await bench.audit.difference() != ""


async def test_many_differences_are_not_all_listed(bench: Bench) -> None:
    bench.registrar.shown["Db"] = [f"http://{number}:1" for number in range(9)]
    assert "and 6 more" in await bench.audit.difference()
