"""Look-ups over HTTP: one provider, all of them, the whole table, and waiting until what is needed is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pillion_common.config import parse_duration
from pillion_common.errors import InvalidInput, NotFound, Unavailable
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import TEXT, Request, Response
from pillion_common.http.router import Router
from pillion_common.names import check_name
from pillion_sidecar.local.bell import Bell
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.settings import parse_requires
from pillion_sidecar.table.choice import Wish, read_wish
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Provider, shown, to_json

if TYPE_CHECKING:
    from pillion_sidecar.local.absence import Absence

TOLD_S = 2.0  # within which the registry tells of a name it has just been asked for
MAX_WAIT_S = 300.0
MAX_WAITING = 256
MAX_MADE = 4096
LOOK_AGAIN_S = 0.5

Show = Callable[[Provider], Response]


class Lookups:
    """Answers look-ups from the table.

    Args:
        strategy: of look-ups that name none.
        told_s: how old the table is, in seconds, when it is stale.
        on_undeclared: told a name that is looked up without having been required.
    """

    def __init__(
        self,
        table: ProviderTable,
        registrar: Registrar,
        bell: Bell,
        *,
        strategy: str,
        told_s: Callable[[], float],
        on_undeclared: Callable[[str], None],
    ) -> None:
        self._table = table
        self._registrar = registrar
        self._bell = bell
        self._strategy = strategy
        self._told_s = told_s
        self._on_undeclared = on_undeclared
        self._absence: Absence | None = None
        self._made: dict[int, tuple[Provider, Response]] = {}

    def add_to(self, router: Router) -> None:
        """Serve `/providers`, `/providers/{name}` and `/wait`."""
        router.add("GET", "/providers", self._whole_table)
        router.add_route("GET", "/providers/", self._one_service)
        router.add_route("GET", "/wait", self._wait)

    def _one_service(self, request: Request) -> Handler:
        """Read what is wanted once; the same look-up is made again and again."""
        name = check_name(request.path.removeprefix("/providers/"), "name")
        query = request.query()
        wish = read_wish(query, self._strategy)
        text = query.get("format") == "text" or (not query.get("format") and request.header(b"accept") == b"text/plain")
        wait_s = _read_seconds(query, "wait", 0.0)
        if query.get("all") == "1":
            return self._all_of(name, wish, text, wait_s)
        return self._one_of(name, wish, self._as_text if text else self._as_json, wait_s)

    def _one_of(self, name: str, wish: Wish, show: Show, wait_s: float) -> Handler:
        choose, plain = self._table.choose, None if wish.strategy == "random" and not wish.filters else wish

        async def miss() -> Response:
            if await self._until(lambda: choose(name, plain) is not None, name, wait_s) and (found := choose(name, plain)):
                return show(found)
            raise await self._explain(name, wish)

        def one(request: Request) -> Any:
            provider = choose(name, plain)
            return show(provider) if provider is not None else miss()

        return one

    def _all_of(self, name: str, wish: Wish, text: bool, wait_s: float) -> Handler:
        def fitting() -> list[Provider]:
            return [provider for provider in self._table.all(name) if wish.fits(provider)]

        def show() -> Response:
            providers = fitting()
            if text:
                return Response(200, "".join(f"{provider.url}\n" for provider in providers).encode(), TEXT, self._age_header())
            body = {"Name": name, "Providers": [shown(provider) for provider in providers], **self._staleness()}
            return Response(200, to_json(body))

        async def miss() -> Response:
            await self._until(lambda: bool(fitting()), name, wait_s)
            if not self._table.knows(name):
                raise await self._explain(name, wish)
            return show()

        def every(request: Request) -> Any:
            return show() if fitting() or (not wait_s and self._table.find(name) is not None) else miss()

        return every

    async def _until(self, there: Callable[[], bool], name: str, wait_s: float) -> bool:
        """Wait until something is there: as long as was asked for, and at least until the registry has been heard about the name."""
        started = time.monotonic()
        self._take_in(name)
        while not there():
            waited_s = time.monotonic() - started
            unheard = self._table.knows(name) and self._table.find(name) is None and not self._registrar.unreachable_s
            left_s = max(wait_s, TOLD_S if unheard else 0.0) - waited_s
            if left_s <= 0:
                return False
            await self._next_change(left_s)
        return True

    async def _next_change(self, left_s: float) -> None:
        if self._bell.waiting >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} requests are waiting here already; ask again later", code="too_many_waiting", retry_after_s=1)
        await self._bell.wait(min(left_s, LOOK_AGAIN_S))

    async def _explain(self, name: str, wish: Wish) -> NotFound:
        if self._absence is None:
            from pillion_sidecar.local.absence import Absence  # where all is there, nobody asks

            self._absence = Absence(self._table, self._registrar)
        return await self._absence.explain(name, wish)

    def _take_in(self, name: str) -> None:
        """Let the registry tell of a name that was not required."""
        if not self._table.knows(name) and self._registrar.require(name) and self._table.add(name):
            self._on_undeclared(name)

    def _wait(self, request: Request) -> Handler:
        query = request.query()
        try:
            needs = parse_requires(query.get("for", ""))
        except ValueError as exc:
            raise InvalidInput(f"for {exc}", field="for") from exc
        if not needs:
            raise InvalidInput("say what to wait for: /wait?for=LogService,Db:2", field="for")
        timeout_s = _read_seconds(query, "timeout", 60.0)

        async def wait(request: Request) -> Response:
            ends = time.monotonic() + timeout_s
            for name in needs:
                self._take_in(name)
            while missing := self.missing(needs):
                if (left_s := ends - time.monotonic()) <= 0:
                    told = ", ".join(f"{name} ({what})" for name, what in missing.items())
                    body = {"Error": "timed_out", "Message": f"still missing after {timeout_s:g} s: {told}", "Missing": missing}
                    return Response(504, to_json(body))
                await self._next_change(left_s)
            return Response(200, to_json({"Ready": list(needs)}))

        return wait

    def missing(self, needs: dict[str, int]) -> dict[str, str]:
        """Return what of these is not there, e.g. {"Db": "1 of 2"}; that the registry has not been heard is a lack as well."""
        missing = self._table.missing(needs)
        if self._registrar.stale:
            return missing | {"registry": self._registrar.fault or f"silent for {self._registrar.silent_s:.0f} s"}
        return missing

    def _whole_table(self, request: Request) -> Response:
        table = {name: [shown(provider) for provider in self._table.all(name)] for name in self._table.names()}
        return Response(200, to_json({"Providers": table, **self._staleness(), "Revision": self._table.revision}))

    def _as_text(self, provider: Provider) -> Response:
        return Response(200, provider.url.encode() + b"\n", TEXT, self._age_header())

    def _as_json(self, provider: Provider) -> Response:
        """Return the answer that names a provider; made once while the table is fresh, for the same ones are asked for again and again."""
        if self._registrar.stale:
            return Response(200, to_json({**shown(provider), **self._staleness()}))
        known = self._made.get(id(provider))
        if known is not None and known[0] is provider:
            return known[1]
        if len(self._made) >= MAX_MADE:
            self._made.clear()
        response = Response(200, to_json({**shown(provider), "Stale": False}))
        self._made[id(provider)] = provider, response
        return response

    def _staleness(self) -> dict[str, object]:
        return {"Stale": True, "Age": round(self._told_s(), 1)} if self._registrar.stale else {"Stale": False}

    def _age_header(self) -> dict[bytes, bytes] | None:
        return {b"Age": b"%d" % self._told_s()} if self._registrar.stale else None


def _read_seconds(query: dict[str, str], key: str, default: float) -> float:
    text = query.get(key)
    if not text:
        return default
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise InvalidInput(f"{key} {text!r} {exc}", field=key) from exc
    if seconds > MAX_WAIT_S:
        raise InvalidInput(f"{key} {text!r} is over {MAX_WAIT_S:g} seconds", code="out_of_range", field=key)
    return seconds
