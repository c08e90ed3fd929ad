"""The sidecar as a whole: puts its parts together and gives them their life, beside a container or beside a local command."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pillion_common import lifecycle
from pillion_common.http.server import Server
from pillion_common.logs import EventLog
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.app_check import AppCheck
from pillion_sidecar.forwarder import Forwarder
from pillion_sidecar.listeners import LocalFace, guard_local, peer_routes
from pillion_sidecar.namespace import NamespaceWatch
from pillion_sidecar.providers import ProviderTable
from pillion_sidecar.registrar import Registrar
from pillion_sidecar.settings import Settings
from pillion_sidecar.spool import Spool

_log = EventLog("sidecar")

DEREGISTER_S = 2.0
FLUSH_S = 2.0
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Sidecar:
    """One sidecar (a lifecycle.Program)."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None, spool: Spool) -> None:
        self._life = life
        self._settings = settings
        self._spool = spool
        self._local_hosts: frozenset[bytes] = frozenset()
        self._table = ProviderTable({**dict.fromkeys(settings.all_required, 0), **settings.requires})
        self._registrar = Registrar(settings, token, on_forgotten=self._table.expect_afresh)
        self._check = AppCheck(
            settings.check,
            settings.host,
            settings.port,
            interval_s=settings.check_interval,
            timeout_s=settings.check_timeout,
            on_change=self._app_changed,
        )
        self._forwarder = Forwarder(spool, self._table, settings.log_to, token)
        self._namespace = NamespaceWatch()
        self._readiness = lifecycle.Readiness()
        self._readiness.add("registered", lambda: None if self._registrar.registered else self._registrar.fault)
        self._readiness.add("app", lambda: None if self._check.well else self._check.reason)
        face = LocalFace(settings, self._table, self._registrar, self._check, spool, self._readiness, self._forwarder.nudge)
        self._peer = Server(peer_routes(self._check, self._table, self._registrar, token, self._providers_changed))
        self._local = Server(guard_local(face.routes(), lambda: self._local_hosts))
        self._registering: asyncio.Task[None] | None = None
        self.local_url = ""
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Serve localhost first: the app may ask before the registry has answered."""
        if not self._settings.token_file:
            _log.warning("no_token", "PILLION_TOKEN_FILE is not set: everybody who reaches the peer listener may push patches")
        self.local_url = await self._local.listen(self._settings.local)
        port = parse_url(self.local_url, "local").port
        self._local_hosts = frozenset(f"{name}:{port}".encode() for name in (*LOCAL_NAMES, self._settings.local.host.lower()))
        peer_url = await self._peer.listen(self._settings.listen)
        tasks = self._life.tasks
        tasks.keep("app check", self._check.run())
        self._registering = tasks.keep("registrar", self._registrar.run(parse_url(peer_url, "listen").port))
        tasks.keep("forwarder", self._forwarder.run())
        tasks.spawn("namespace watch", self._watch_namespace())
        return [peer_url, self.local_url]

    async def stop(self) -> None:
        """Withdraw, send what log lines are left, let go."""
        self._readiness.close()
        if self._registering is not None:
            self._registering.cancel()  # it must not register again what is being withdrawn
            await asyncio.wait((self._registering,), timeout=DEREGISTER_S)
        if not self._namespace.lost:
            await self._registrar.deregister(DEREGISTER_S)
        await self._life.tasks.stop()
        if not self._namespace.lost:
            await self._forwarder.flush(FLUSH_S)
        await self._local.close()
        await self._peer.close()
        self._check.close()
        self._registrar.close()
        self._forwarder.close()
        self._spool.close()

    def _app_changed(self, well: bool, reason: str) -> None:
        what = f"{self._settings.name} is {'up' if well else 'down'}"
        _log.info("app_up" if well else "app_down", f"{what}: {reason}" if reason else what)
        self._life.tasks.spawn("report", self._registrar.report(well, reason))

    def _providers_changed(self, names: list[str]) -> None:
        for name in names:
            urls = [entry.url for entry in self._table.all(name)]
            _log.info("providers", f"{name}: {', '.join(urls) or 'none'}", service=name, urls=urls)
        if self._settings.log_to in names:
            self._forwarder.try_now()

    async def _watch_namespace(self) -> None:
        await self._namespace.until_replaced()
        _log.warning("namespace_replaced", "the app has a new network; ending, so that the restart policy joins this sidecar to it")
        self.exit_code = lifecycle.EXIT_FAILED
        self._life.stop.set()


def open_spool(settings: Settings) -> Spool:
    """Return the spool in the state folder.

    Raises:
        ConfigError: the folder cannot be used.
    """
    return Spool(Path(settings.state_dir) / "spool", settings.spool_size)
