"""The agent as a whole: puts its parts together and gives them their life."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pillion_common import lifecycle
from pillion_common.errors import PeerError
from pillion_common.http.interfaces import Limits
from pillion_common.http.server import Server
from pillion_common.logs import EventLog
from pillion_common.names import Url, parse_url
from pillion_common.trust import Token
from pillion_sidecar.agent.containers import Container, Listed
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.faces import Status, peer_route
from pillion_sidecar.agent.fleet import Fleet
from pillion_sidecar.agent.plan import Rules, Wanted, find_wanted
from pillion_sidecar.agent.settings import Settings
from pillion_sidecar.agent.watch import Watch
from pillion_sidecar.local.listeners import guard_local
from pillion_sidecar.registry.registration import route_source

if TYPE_CHECKING:
    from pillion_sidecar.agent.log_lines import LogLines

_log = EventLog("agent")

CLOSE_S = 1.0
ROUTE_S = 30.0  # between two looks at which address of ours the registry sees
NO_ROUTE_S = 2.0
SPARE_CONNECTIONS = 64
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Agent:
    """One agent (a lifecycle.Program)."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None) -> None:
        self._life = life
        self._settings = settings
        self._rules = rules_of(settings)
        self._left_out: Mapping[str, str] = {}
        self._local_hosts: frozenset[bytes] = frozenset()
        self._seen: tuple[Mapping[str, Container], Mapping[str, Listed]] = ({}, {})
        self._fleet = Fleet(token, most=settings.max_containers, heartbeat_host=settings.heartbeat_host, tasks=life.tasks)
        self._watch = Watch(
            Engine(settings.docker),
            resync_s=settings.resync,
            only=[label for label, _ in settings.only],
            on_picture=self._pictured,
            on_dead=self._fleet.dead,
            on_signal=self._fleet.signalled,
        )
        self._lines: LogLines | None = None
        if settings.logs:
            from pillion_sidecar.agent.log_lines import LogLines

            self._lines = LogLines(settings, Engine(settings.docker), token, life.tasks)
        self._readiness = self._make_readiness()
        # The registry holds one connection for each instance.
        limits = Limits(connections=settings.max_containers + SPARE_CONNECTIONS)
        self._peer = Server(route=peer_route(self._fleet, token), limits=limits)
        status = Status(self._fleet, self._watch, self._readiness, lambda: self._left_out)
        self._local = Server(route=guard_local(status.routes(), lambda: self._local_hosts))
        self._watching: list[asyncio.Task[None]] = []
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Listen, then follow the engine."""
        if not self._settings.token_file:
            _log.warning("no_token", "PILLION_TOKEN_FILE is not set: everybody who reaches the peer listener may push patches")
        local_url = await self._local.listen(self._settings.local)
        port = parse_url(local_url, "local").port
        self._local_hosts = frozenset(f"{name}:{port}".encode() for name in (*LOCAL_NAMES, self._settings.local.host.lower()))
        peer_url = await self._peer.listen(self._settings.listen)
        self._fleet.peer_port = parse_url(peer_url, "listen").port
        await self._find_ours()
        tasks = self._life.tasks
        if self._lines is not None:
            self._lines.start()
        self._watching = [tasks.keep("route", self._keep_ours()), tasks.keep("events", self._watch.follow())]
        self._watching.append(tasks.keep("look", self._watch.look()))
        return [peer_url, local_url]

    async def stop(self) -> None:
        """Withdraw all: nobody answers for them any more."""
        self._readiness.close()
        for task in self._watching:
            task.cancel()
        await self._fleet.close()
        await self._life.tasks.stop()
        if self._lines is not None:
            await self._lines.close()
        await self._local.close(CLOSE_S)
        await self._peer.close(CLOSE_S)

    def _make_readiness(self) -> lifecycle.Readiness:
        readiness = lifecycle.Readiness()
        readiness.add("engine", lambda: self._watch.fault or None)
        readiness.add("registered", self._not_admitted)
        return readiness

    def _not_admitted(self) -> str | None:
        faults = [instance.registrar.fault for instance in self._fleet if not instance.registrar.admitted]
        are = "instance is" if len(self._fleet) == 1 else "instances are"
        return f"{len(faults)} of {len(self._fleet)} {are} not registered: {faults[0]}" if faults else None

    def _pictured(self, containers: Mapping[str, Container], listed: Mapping[str, Listed]) -> None:
        self._seen = containers, listed
        wanted = find_wanted(containers.values(), listed, self._rules)
        self._fleet.apply(wanted.specs)
        if self._lines is not None:
            self._lines.follow(wanted.specs)
        self._warn(wanted)

    def _warn(self, wanted: Wanted) -> None:
        """Warn once of each container, and again when something else is wrong with it."""
        for container, why in wanted.left_out.items():
            if self._left_out.get(container) != why:
                _log.warning("left_out", f"container {container}: {why}", container=container)
        self._left_out = wanted.left_out

    async def _keep_ours(self) -> None:
        while True:
            await asyncio.sleep(ROUTE_S if self._rules.ours else NO_ROUTE_S)
            if await self._find_ours():
                self._pictured(*self._seen)

    async def _find_ours(self) -> bool:
        """Find out which address of ours the registry sees; return whether it is another than before. What is known is kept."""
        ours = await find_ours(self._settings.registry)
        if not ours or ours == self._rules.ours:
            return False
        self._rules = self._rules._replace(ours=ours)
        return True


async def find_ours(registries: tuple[Url, ...]) -> str:
    """Return our address on the route to the first registry whose name resolves; empty if there is none."""
    for registry in registries:
        try:
            return await route_source(registry)
        except PeerError as exc:
            _log.debug("no_route", exc.message)
    return ""


def rules_of(settings: Settings) -> Rules:
    """Return how containers become instances."""
    return Rules(
        fixed={
            "registry": ",".join(f"{url.scheme}://{url.authority}" for url in settings.registry),
            "listen": str(settings.listen),
            "check_interval": f"{settings.check_interval:f}s",
            "check_timeout": f"{settings.check_timeout:f}s",
            "zone": settings.zone,
            "log_to": "",  # the agent forwards log lines for all
        },
        network=settings.network,
        publish=settings.publish,
        advertise=settings.advertise,
        registrator=settings.registrator,
        only=settings.only,
    )
