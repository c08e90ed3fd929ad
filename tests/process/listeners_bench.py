"""Both listeners' routes over real parts, without sockets, for tests."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable
from pathlib import Path

from pillion_common import config
from pillion_common.errors import PillionError
from pillion_common.http.message import Request, Response, error_response
from pillion_common.lifecycle import Readiness
from pillion_common.models import Patch, ProviderEntry
from pillion_common.trust import Token
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.local.bell import Bell
from pillion_sidecar.local.departure import Departure
from pillion_sidecar.local.events import Events
from pillion_sidecar.local.listeners import guard_local, local_routes, peer_routes
from pillion_sidecar.local.lookups import Lookups
from pillion_sidecar.local.status import Status
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.intake import Intake
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.settings import Settings
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Drained

SECRET = "s3cret-s3cret-s3cret"
HOSTS = frozenset({b"127.0.0.1:7071", b"localhost:7071", b"[::1]:7071"})
FULL = json.dumps({"Added": [{"Name": "Db", "URL": "http://10.0.0.7:5432"}], "Full": True, "Services": ["Db"], "Revision": 3, "Epoch": "e"})


async def _result(answer: Awaitable[Response]) -> Response:
    return await answer


class Bench:
    """Both listeners' routes over real parts, without sockets."""

    def __init__(self, folder: Path, token: Token | None = None) -> None:
        words = ["--name", "Portald", "--port", "5000", "--requires", "GradingService,Db:2"]
        self.settings = config.load(Settings, "sidecar", words, {})
        self.table = ProviderTable({**dict.fromkeys(self.settings.all_required, 0), **self.settings.requires}, "z1", lambda: 0.999)
        self.registrar = Registrar(self.settings, None, clock=lambda: 1000.0)
        self.check = AppCheck(self.settings, lambda well, reason: None)
        self.spool = Spool(folder / "spool", 1 << 20)
        self.readiness = Readiness()
        self.lines = 0
        self.changes: list[list[str]] = []
        self.bell = Bell()
        self.events = Events(self.table, lambda: self.registrar.stale)
        self.undeclared: list[str] = []
        self.drained: Drained | None = Drained(2, ("a",))
        self.undrain_fault = ""
        self.shut = 0
        lookups = Lookups(
            self.table, self.registrar, self.bell, strategy="random", told_s=lambda: 4.25, on_undeclared=self.undeclared.append
        )
        intake = Intake(self.spool, EntryMaker("Portald", lambda: self.registrar.instance_id, time.time), self._line)
        status = Status("Portald", self.table, self.registrar, self.check, self.spool, self.readiness)
        routes = local_routes(lookups, self.events, intake, status, drain=self._drain, undrain=self._undrain, shut_down=self._shut_down)
        self.local = guard_local(routes, lambda: HOSTS)
        self.peer = peer_routes(self.check, self.table, self.registrar, token, self.changes.append, status, Departure(0.0))

    def _line(self) -> None:
        self.lines += 1

    async def _drain(self) -> Drained | None:
        return self.drained

    async def _undrain(self) -> str:
        return self.undrain_fault

    def _shut_down(self) -> None:
        self.shut += 1

    def ask(self, method: str, target: str, body: bytes = b"", peer: bool = False, **headers: str) -> Response:
        given = {"host": "127.0.0.1:7071", **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in given.items() if value]
        request = Request(method, target.encode(), raw, "127.0.0.1", "1.1", True)
        request.body = body
        try:
            handler = (self.peer if peer else self.local)(request)
            assert handler is not None
            answer = handler(request)
            if inspect.isawaitable(answer):
                answer = asyncio.run(_result(answer))
        except PillionError as exc:
            return error_response(exc)
        assert isinstance(answer, Response)
        return answer

    def provide(self, *urls: str) -> None:
        self.table.apply(Patch(added=tuple(ProviderEntry("GradingService", url, instance_id="g", zone="z1") for url in urls)))


def error(answer: Response) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["Error"]
