"""The sidecar's two faces: the peer listener for the registry, and the local one for the app. Routes only; what they do is elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable

from pillion_common import __version__
from pillion_common.clock import rfc3339
from pillion_common.errors import Forbidden, InvalidInput, TooLarge, WrongHost
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import TEXT, Request, Response
from pillion_common.http.router import Router
from pillion_common.lifecycle import Readiness
from pillion_common.models import Patch, ProviderEntry, decode
from pillion_common.trust import Token, check_token
from pillion_sidecar.app_check import AppCheck
from pillion_sidecar.providers import ProviderTable
from pillion_sidecar.registrar import Registrar
from pillion_sidecar.settings import Settings
from pillion_sidecar.spool import Spool

MAX_MESSAGE_BYTES = 64 * 1024
MAX_MADE = 4096

_ALIVE = Response(200, b'{"State":"up"}\n')


def peer_routes(
    check: AppCheck, table: ProviderTable, registrar: Registrar, token: Token | None, on_change: Callable[[list[str]], None]
) -> Router:
    """Return the routes of the peer listener: heartbeats and patches, nothing else.

    Args:
        on_change: told the names whose providers a patch changed.
    """

    def heartbeat(request: Request) -> Response:
        registrar.heard()
        if check.well:
            return _ALIVE
        return Response(503, _json({"State": "down", "Reason": check.reason}))

    def patch(request: Request) -> Response:
        check_token(token, request.header(b"authorization"), request.peer)
        changed = table.apply(decode(request.body, Patch))
        registrar.heard()
        on_change(changed)
        return Response(200)

    router = Router()
    router.add("GET", "/heartbeat", heartbeat)
    router.add("POST", "/services", patch)
    return router


class LocalFace:
    """What the app may ask of its sidecar.

    Args:
        on_line: called after a log line went into the spool.
    """

    def __init__(
        self,
        settings: Settings,
        table: ProviderTable,
        registrar: Registrar,
        check: AppCheck,
        spool: Spool,
        readiness: Readiness,
        on_line: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._table = table
        self._registrar = registrar
        self._check = check
        self._spool = spool
        self._readiness = readiness
        self._on_line = on_line
        self._made: dict[int, tuple[ProviderEntry, bytes]] = {}

    def routes(self) -> Router:
        """Return the routes of the local listener."""
        router = Router()
        router.add("GET", "/providers", self._all_providers)
        router.add("GET", "/providers/", self._provider)
        router.add("POST", "/log", self._log)
        router.add("GET", "/livez", lambda request: Response(200, b'{"Status":"ok"}\n'))
        router.add("GET", "/readyz", self._ready)
        router.add("GET", "/version", lambda request: Response(200, _json({"Version": __version__})))
        router.add("GET", "/status", self._status)
        return router

    def _provider(self, request: Request) -> Response:
        name = request.path.removeprefix("/providers/")
        query = request.query()
        if query.get("strategy", "random") != "random":
            raise InvalidInput(f"there is no strategy {query['strategy']!r}; use random", code="unknown_strategy", field="strategy")
        text = query.get("format") == "text" or request.header(b"accept") == b"text/plain"
        if query.get("all") == "1":
            entries = self._table.all(name)
            if text:
                return Response(200, "".join(f"{entry.url}\n" for entry in entries).encode(), TEXT)
            return Response(200, _json({"Name": name, "Providers": [_shown(entry) for entry in entries], "Stale": self._registrar.stale}))
        entry = self._table.choose(name)
        if text:
            return Response(200, entry.url.encode() + b"\n", TEXT)
        return Response(200, self._rendered(entry) + (b"true}\n" if self._registrar.stale else b"false}\n"))

    def _rendered(self, entry: ProviderEntry) -> bytes:
        """Return an entry's JSON up to the value of Stale; made once, for the same entry is asked for again and again."""
        known = self._made.get(id(entry))
        if known is None or known[0] is not entry:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            known = self._made[id(entry)] = entry, _json(_shown(entry)).rstrip(b"}\n") + b', "Stale": '
        return known[1]

    def _all_providers(self, request: Request) -> Response:
        table = {name: [_shown(entry) for entry in self._table.all(name)] for name in self._table.names()}
        return Response(200, _json({"Providers": table, "Stale": self._registrar.stale, "Revision": self._table.revision}))

    def _log(self, request: Request) -> Response:
        if len(request.body) > MAX_MESSAGE_BYTES:
            raise TooLarge(f"the message is over {MAX_MESSAGE_BYTES} bytes; send it in pieces")
        message = request.body.decode("utf-8", "replace").strip("\r\n")
        if not message:
            raise InvalidInput("the body is empty; send one message as text/plain", code="empty_body")
        self._spool.append(
            {
                "Time": rfc3339(time.time()),
                "Service": self._settings.name,
                "Instance": self._registrar.instance_id,
                "Level": "info",
                "Message": message,
            }
        )
        self._on_line()
        return Response(200)

    def _ready(self, request: Request) -> Response:
        ready, checks = self._readiness.report()
        return Response(200 if ready else 503, _json({"Status": "ok" if ready else "not ready", "Checks": checks}))

    def _status(self, request: Request) -> Response:
        return Response(
            200,
            _json(
                {
                    "Name": self._settings.name,
                    "InstanceID": self._registrar.instance_id,
                    "App": {"State": "up" if self._check.well else "down", "Reason": self._check.reason or None},
                    "Registry": {
                        "Registered": self._registrar.registered,
                        "Fault": self._registrar.fault or None,
                        "HeardSecondsAgo": round(self._registrar.silent_s, 1),
                        "Stale": self._registrar.stale,
                    },
                    "Missing": self._table.missing(),
                    "Spool": {"Waiting": self._spool.waiting, "Bytes": self._spool.size, "Dropped": self._spool.dropped},
                }
            ),
        )


def guard_local(handler: Handler, hosts: Callable[[], frozenset[bytes]]) -> Handler:
    """Let pass only what names this listener and does not come from a foreign page in a browser (DNS rebinding, cross-site requests).

    Args:
        hosts: the Host headers that name the listener, e.g. 127.0.0.1:7071.
    """

    def guarded(request: Request) -> Response | Awaitable[Response]:
        host = request.header(b"host")
        if host.lower() not in hosts():
            raise WrongHost(f"the Host header {host.decode('latin-1')!r} does not name this listener; use 127.0.0.1 or localhost")
        site = request.header(b"sec-fetch-site")
        if site in (b"cross-site", b"same-site") or request.header(b"origin") not in (b"", b"http://" + host):
            raise Forbidden("requests from another site's page are refused here", code="cross_site")
        return handler(request)

    return guarded


def _shown(entry: ProviderEntry) -> dict[str, object]:
    return {"Name": entry.name, "URL": entry.url, "InstanceID": entry.instance_id, "Zone": entry.zone, "Version": entry.version}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
