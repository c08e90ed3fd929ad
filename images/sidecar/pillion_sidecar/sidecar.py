"""The sidecar as a whole: puts its parts together and gives them their life, beside a container or beside a local command."""

from __future__ import annotations

import asyncio
import os
import time

from pillion_common import lifecycle
from pillion_common.http.interfaces import Route
from pillion_common.http.server import Server
from pillion_common.logs import EventLog
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.local.departure import Departure
from pillion_sidecar.local.listeners import guard_local, local_routes, peer_routes
from pillion_sidecar.local.lookups import Lookups
from pillion_sidecar.local.status import Status
from pillion_sidecar.logs.forwarder import Forwarder
from pillion_sidecar.logs.intake import Intake
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.namespace import NamespaceWatch
from pillion_sidecar.outlets import Outlets
from pillion_sidecar.registry.audit import Audit
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.registry.registration import next_incarnation
from pillion_sidecar.settings import Settings
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Drained

_log = EventLog("sidecar")

# Together with the drain's time-out and grace they stay below the 10 s after which an engine kills what it stops.
DEREGISTER_S = 1.0
FLUSH_S = 1.0
CLOSE_S = 1.0
OUTLIVE_TICK_S = 0.1
UNCONFIRMED_S = 15.0  # within which providers register again with a registry that has lost its memory
SILENCE_S = 3.0  # after which what a classic registry has not told of is not there
SHOWN = 5  # providers that a line of the log names
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Sidecar:
    """One sidecar (a lifecycle.Program)."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None, spool: Spool) -> None:
        self._life = life
        self._settings = settings
        self._spool = spool
        self._local_hosts: frozenset[bytes] = frozenset()
        self._table = ProviderTable({**dict.fromkeys(settings.all_required, 0), **settings.requires}, settings.zone)
        self._registrar = Registrar(
            settings,
            token,
            incarnation=next_incarnation(settings.state_dir),
            on_registered=self._registered,
            on_forgotten=self._table.expect_afresh,
        )
        self._check = AppCheck(settings, self._app_changed)
        self._forwarder = Forwarder(spool, self._table, settings.log_to, token)
        self._namespace = NamespaceWatch()
        self._outlets = Outlets(settings, self._table, lambda: self._registrar.stale)
        self._readiness = self._make_readiness()
        self._departure = Departure(settings.drain_timeout)
        self._status = Status(settings.name, self._table, self._registrar, self._check, spool, self._readiness)
        peer = peer_routes(self._check, self._table, self._registrar, token, self._patched, self._status, self._departure)
        self._peer = Server(route=peer)
        self._local = Server(route=self._make_local_route(), streaming=self._outlets.events)
        self._registering: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._confirming: asyncio.TimerHandle | None = None
        self.local_url = ""
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Serve localhost first: the app may ask before the registry has answered."""
        if not self._settings.token_file:
            _log.warning("no_token", "PILLION_TOKEN_FILE is not set: everybody who reaches the peer listener may push patches")
        more_urls = await self._outlets.start()
        self.local_url = await self._local.listen(self._settings.local)
        port = parse_url(self.local_url, "local").port
        self._local_hosts = frozenset(f"{name}:{port}".encode() for name in (*LOCAL_NAMES, self._settings.local.host.lower()))
        peer_url = await self._peer.listen(self._settings.listen)
        tasks = self._life.tasks
        tasks.keep("app check", self._check.run())
        self._registering = tasks.keep("registrar", self._registrar.run(parse_url(peer_url, "listen").port))
        tasks.keep("audit", Audit(self._registrar, self._table).run())
        tasks.keep("forwarder", self._forwarder.run())
        tasks.spawn("namespace watch", self._watch_namespace())
        return [peer_url, self.local_url, *more_urls]

    async def stop(self) -> None:
        """Withdraw, send what log lines are left, let go."""
        await self.withdraw()
        await self.close()

    async def withdraw(self) -> None:
        """Let nobody come any more: returns when every dependent knows, and the requests under way have had their time."""
        self._readiness.close()
        if self._registering is not None:
            self._registering.cancel()  # it must not register again what is being withdrawn
            await asyncio.wait((self._registering,), timeout=DEREGISTER_S)
        if self._namespace.lost:
            return
        await asyncio.sleep(self._grace_s(await self.drain()))
        self._check.let_go()
        await self._outlive()
        await self._registrar.deregister(DEREGISTER_S)

    async def close(self) -> None:
        """Send what log lines are left, let go."""
        self._outlets.events.close()
        for timer in (self._ending, self._confirming):
            if timer is not None:
                timer.cancel()
        await self._life.tasks.stop()
        if not self._namespace.lost:
            await self._forwarder.flush(FLUSH_S)
        await self._local.close(CLOSE_S)
        await self._peer.close(CLOSE_S)
        self._check.close()
        self._registrar.close()
        self._forwarder.close()
        self._outlets.close()
        self._spool.close()

    async def drain(self) -> Drained | None:
        """Withdraw the app, which goes on working; see Registrar.drain."""
        drained = await self._registrar.drain(self._settings.drain_timeout, "its sidecar withdraws it")
        if drained is not None:
            late = f"; these have not answered: {', '.join(drained.waiting[:5])}" if drained.waiting else ""
            what = f"{self._settings.name} is withdrawn; {drained.acknowledged} dependents know{late}"
            (_log.warning if late else _log.info)("drained", what, acknowledged=drained.acknowledged, waiting=len(drained.waiting))
        self._departure.note(self._grace_s(drained))
        return drained

    async def undrain(self) -> str:
        """Let a drained app come back; see Registrar.undrain."""
        self._departure.undo()
        return await self._registrar.undrain()

    def _grace_s(self, drained: Drained | None) -> float:
        """Return the time to leave to requests under way: none where nobody can have sent any."""
        known = self._registrar.classic or (drained is not None and (drained.acknowledged or drained.waiting))
        return self._settings.drain_grace if self._check.well and known else 0.0

    async def _outlive(self) -> None:
        """Stay while the app still serves, for what it does may need look-ups and log lines."""
        ends = time.monotonic() + self._settings.outlive
        while self._check.well and time.monotonic() < ends:
            await asyncio.sleep(OUTLIVE_TICK_S)

    def _make_readiness(self) -> lifecycle.Readiness:
        readiness = lifecycle.Readiness()
        # A registry that is away is no reason to take the app out of service: it is known, and so are its providers.
        readiness.add("registered", lambda: None if self._registrar.admitted else self._registrar.fault)
        readiness.add("app", lambda: None if self._check.well else self._check.reason)
        if self._settings.wait:
            readiness.add("required", self._still_missing)
        return readiness

    def _still_missing(self) -> str | None:
        missing = self._table.missing(self._settings.requires)
        return ", ".join(f"{name}: {what}" for name, what in missing.items()) or None

    def _make_local_route(self) -> Route:
        settings, registrar = self._settings, self._registrar
        lookups = Lookups(
            self._table, registrar, self._outlets.bell, strategy=settings.strategy, told_s=self._told_s, on_undeclared=self._undeclared
        )
        intake = Intake(self._spool, settings.name, lambda: registrar.instance_id, self._forwarder.nudge, settings.pod)
        routes = local_routes(
            lookups, self._outlets.events, intake, self._status, drain=self.drain, undrain=self.undrain, shut_down=self._life.stop.set
        )
        return guard_local(routes, lambda: self._local_hosts)

    def _told_s(self) -> float:
        """Return how old the table is."""
        if self._registrar.admitted or not self._outlets.table_file.saved_at:
            return self._registrar.silent_s
        return max(0.0, time.time() - self._outlets.table_file.saved_at)

    def _registered(self) -> None:
        self._confirm_later()
        if self._registrar.owes_report:
            self._life.tasks.spawn("report", self._registrar.report(self._check.well, self._check.reason))
        if self._registrar.classic:
            asyncio.get_running_loop().call_later(SILENCE_S, self._take_silence)

    def _take_silence(self) -> None:
        self._table.take_silence_as_none()
        self._patched([])

    def _confirm_later(self) -> None:
        """Give what the registry has not named again some time to come back."""
        if self._table.unconfirmed and self._confirming is None:
            self._confirming = asyncio.get_running_loop().call_later(UNCONFIRMED_S, self._confirm)

    def _confirm(self) -> None:
        self._confirming = None
        if self._registrar.stale:
            self._confirm_later()
        elif dropped := self._table.drop_unconfirmed():
            _log.info("unconfirmed_dropped", f"the registry has not named again what it forgot of {', '.join(dropped)}: dropped")
            self._patched(dropped)

    def _undeclared(self, name: str) -> None:
        self._outlets.heard([name])
        what = f"{name} is looked up here but not among PILLION_REQUIRES; it is watched from now on, and known sooner once it is added"
        _log.warning("undeclared", what, service=name)

    def _app_changed(self, well: bool, reason: str) -> None:
        what = f"{self._settings.name} is {'up' if well else 'down'}"
        _log.info("app_up" if well else "app_down", f"{what}: {reason}" if reason else what)
        self._life.tasks.spawn("report", self._registrar.report(well, reason))
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if not well and self._settings.end_with_app:  # it never changes to down without having been up
            self._ending = asyncio.get_running_loop().call_later(self._settings.end_with_app, self._end_with_app)

    def _end_with_app(self) -> None:
        _log.info("app_ended", f"{self._settings.name} has been gone for {self._settings.end_with_app:g} s: ending as well")
        self._life.stop.set()

    def _patched(self, names: list[str]) -> None:
        """Tell all who wait for the registry's word; `names` are the services whose providers changed."""
        self._outlets.heard(names)
        self._confirm_later()
        for name in names:
            found = self._table.all(name)
            few = ", ".join(entry.url for entry in found[:SHOWN]) or "none"
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            _log.info("providers", f"{name}: {few}{more}", service=name, providers=len(found))
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
    return Spool(os.path.join(settings.state_dir, "spool"), settings.spool_size)
