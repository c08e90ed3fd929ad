"""Looks from time to time whether the registry shows what the table holds: a patch may have been lost, or the registry its memory.

A difference that stays for a moment lets the sidecar register again, upon which it is sent the whole table. A classic registry shows
nothing. The reads are conditional, so that what has not changed is not sent again; they also keep the connection in use.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_common.logs import EventLog
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import decode_shown

_log = EventLog("audit")

PERIOD_S = 60.0  # with its jitter below the time after which the registry closes an idle connection
JITTER = 0.2
SETTLE_S = 2.0  # a change may be on its way


class _Shown(NamedTuple):
    etag: bytes
    epoch: str
    urls: frozenset[str]  # of the instances that are up


class Audit:
    """Compares for ever.

    Args:
        rand: a number from 0 to below 1.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        registrar: Registrar,
        table: ProviderTable,
        rand: Callable[[], float] = random.random,
        period_s: float = PERIOD_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._registrar = registrar
        self._table = table
        self._rand = rand
        self._period_s = period_s
        self._settle_s = settle_s
        self._seen: dict[str, _Shown] = {}

    async def run(self) -> None:
        """Compare again and again."""
        while True:
            await asyncio.sleep(self._period_s * (1 - JITTER + 2 * JITTER * self._rand() * 0.99))
            if await self.difference():
                await asyncio.sleep(self._settle_s)
                if difference := await self.difference():
                    _log.warning("table_differs", f"the table differs from the registry: {difference}")
                    self._registrar.doubt("shows something else than it told")

    async def difference(self) -> str:
        """Return what differs, or nothing; what cannot be asked does not differ."""
        if self._registrar.classic or not self._registrar.registered:
            return ""
        for name in self._table.names():
            try:
                shown = await self._read(name)
            except PeerError as exc:
                _log.debug("audit_failed", f"the registry was not asked about {name}: {exc.message}")
                return ""
            if shown is None:
                continue
            if self._table.epoch is not None and shown.epoch not in ("", self._table.epoch):
                return f"it has lost its memory (epoch {shown.epoch}, was {self._table.epoch})"
            held = frozenset(entry.url for entry in self._table.all(name))
            if shown.urls != held:
                return f"{name}: it shows {_listed(shown.urls - held)} that is not here, and not {_listed(held - shown.urls)}"
        return ""

    async def _read(self, name: str) -> _Shown | None:
        """Return what the registry shows of a service; None if that cannot be understood."""
        seen = self._seen.get(name)
        headers = (f"If-None-Match: {seen.etag.decode('latin-1')}",) if seen and seen.etag else ()
        answer = await self._registrar.read(f"/services/{name}?state=up", headers)
        if answer.status == 304 and seen is not None:
            return seen
        if answer.status == 404:
            return _Shown(b"", "", frozenset())
        said = decode_shown(answer.body) if answer.status == 200 else None
        if said is None:
            return None
        epoch, services = said
        shown = self._seen[name] = _Shown(_etag(answer), epoch, frozenset(str(one.get("ServiceURL")) for one in services))
        return shown


def _etag(answer: Answer) -> bytes:
    return next((value for name, value in answer.headers if name.lower() == b"etag"), b"")


def _listed(urls: frozenset[str]) -> str:
    few = sorted(urls)[:3]
    return ", ".join(few) + (f" and {len(urls) - len(few)} more" if len(urls) > len(few) else "") if few else "nothing"
