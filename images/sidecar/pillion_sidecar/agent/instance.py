"""One instance: its check, its place in the registry, and what the engine says of its container, put together into up or down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pillion_common.logs import EventLog
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_sidecar.agent.containers import Container
from pillion_sidecar.agent.plan import Spec
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.registry.registration import StandIn
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Patch

_log = EventLog("instance")

DRAIN_S = 5.0  # most that is waited for the dependents' word; the container goes on stopping meanwhile
DEREGISTER_S = 2.0
PATH = "/instances/"
CONTAINER = "pillion.dev/container"  # the key of Metadata that names the container


class Instance:
    """One instance of a service, as the agent stands in for it.

    Args:
        spec: what it is.
        token: for the registry.
        peer_port: the port of the agent's peer listener.
        heartbeat_host: under which the registry reaches it; empty is our address on the route there.
        tasks: own what runs here.
        now: monotonic seconds.
        on_fault: told when something in here ended that should not have.
    """

    def __init__(
        self,
        spec: Spec,
        token: Token | None,
        *,
        peer_port: int,
        heartbeat_host: str,
        tasks: Supervisor,
        now: Callable[[], float],
        on_fault: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self._tasks = tasks
        self._peer_port = peer_port
        self._now = now
        self._on_fault = on_fault
        self._stopping_since: float | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._seen_well = False
        self._said_ill = False  # by the last heartbeat
        settings = spec.settings
        self._table = ProviderTable(settings.requires) if settings.requires else None
        stand_in = StandIn(spec.instance_id, PATH + spec.handle, heartbeat_host, {CONTAINER: spec.container.name})
        self.registrar = Registrar(
            settings, token, incarnation=spec.container.started_ms, stand_in=stand_in, on_registered=self._registered
        )
        self.check = self._make_check()
        self._checking: asyncio.Task[None] | None = None
        self.was_well = False

    # How it stands.

    @property
    def well(self) -> bool:
        """Return whether it can serve."""
        return self.check.well and not engine_fault(self.spec.container)

    @property
    def reason(self) -> str:
        """Return why it cannot; empty when it can. What the engine says of it goes first: it explains the rest."""
        return engine_fault(self.spec.container) or self.check.reason

    @property
    def state(self) -> str:
        """Return its state by the protocol's names, as far as it can be told here."""
        if self.registrar.draining:
            return "draining"
        return "up" if self.well else "down" if self.was_well else "starting"

    def missing(self) -> dict[str, str]:
        """Return what it requires and is not there, e.g. {"Db": "1 of 2"}."""
        return self._table.missing() if self._table is not None else {}

    # What is done with it.

    def start(self, after: asyncio.Task[None] | None) -> None:
        """Check it from now on, and register it.

        Args:
            after: the withdrawal of what was at the same URL: it would take this registration along.
        """
        self._checking = self._keep("check", self.check.run())
        self._keep("registrar", self._register(after))

    def update(self, spec: Spec) -> None:
        """Take in how the container is doing; lets an instance back whose container was told to stop long ago and did not."""
        self.spec = spec
        self._look()
        if self._stopping_since is not None and self._now() - self._stopping_since > _patience_s(spec.container):
            _log.info("not_stopped", f"{spec.container.name} was told to stop and runs on: letting {spec.settings.name} back")
            self._stopping_since = None
            self.check = self._make_check()
            self._checking = self._keep("check", self.check.run())
            self._spawn("undrain", self._undrain())

    def signalled(self, number: int) -> None:
        """Withdraw it if this is the signal its container is stopped with.

        It is checked no more: a server that stops in good order waits for the connections it has, and ours must not be one.
        """
        if number == self.spec.container.stop_signal and self._stopping_since is None:
            self._stopping_since = self._now()
            if self._checking is not None:
                self._checking.cancel()
            self.check.close()
            self._spawn("drain", self._drain())

    def beat(self) -> tuple[bool, str]:
        """Take a heartbeat; return what to answer: whether it is well, and why not."""
        self.registrar.heard()
        self._said_ill = not self.well
        return self.well, self.reason

    def apply(self, patch: Patch) -> None:
        """Take a patch in.

        Raises:
            Conflict: there is a gap.
        """
        self.registrar.heard()
        if self._table is not None:
            self._table.apply(patch)

    def stop(self) -> None:
        """Check it no more, do not register it again, and wait for no answer: the withdrawal goes first. `close` is to follow."""
        self._stopped = True
        for task in self._running:
            task.cancel()
        self.check.close()

    async def close(self) -> None:
        """Withdraw it, for at most DEREGISTER_S, and let go."""
        if self._running:
            await asyncio.wait(self._running, timeout=DEREGISTER_S)
        await self.registrar.deregister(DEREGISTER_S)
        self.registrar.close()

    # Inside.

    def _make_check(self) -> AppCheck:
        return AppCheck(self.spec.settings, lambda well, reason: self._look())

    def _keep(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that only cancellation may end."""
        task = self._spawn(name, coroutine)
        task.add_done_callback(self._ended)
        return task

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.spawn(f"{name} of {self.spec.handle}", coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._stopped and not task.cancelled():
            self._on_fault(self.spec.handle)  # its supervisor has logged why

    async def _register(self, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait((after,))
        await self.registrar.run(self._peer_port)

    def _look(self) -> None:
        """Tell the registry what has changed, before it asks."""
        well, reason = self.well, self.reason
        before, self._seen_well = self._seen_well, well
        self.was_well = self.was_well or well
        if before is not well:
            name, container = self.spec.settings.name, self.spec.container.name
            what = f"{name} in {container} is {'up' if well else 'down'}"
            _log.info("instance_up" if well else "instance_down", f"{what}: {reason}" if reason else what, container=container)
            self._report()

    def _registered(self) -> None:
        """Report what came true while the registration was under way: its first heartbeat may have come before."""
        if self.well and self._said_ill:
            self._report()

    def _report(self) -> None:
        self._spawn("report", self.registrar.report(self.well, self.reason))

    async def _drain(self) -> None:
        container = self.spec.container.name
        _log.info("draining", f"{container} is told to stop: withdrawing {self.spec.settings.name}", container=container)
        drained = await self.registrar.drain(DRAIN_S, "its container is being stopped")
        if drained is not None and drained.waiting:
            _log.warning("drain_unacknowledged", f"{len(drained.waiting)} dependents do not know yet that {container} stops")

    async def _undrain(self) -> None:
        if fault := await self.registrar.undrain():
            _log.warning("undrain_failed", f"{self.spec.container.name} was not let back: {fault}")


def engine_fault(container: Container) -> str:
    """Return what the engine says that keeps a container from serving; empty if nothing."""
    if container.paused:
        return "its container is paused"
    if container.health == "starting":
        return "its HEALTHCHECK has not passed yet"
    if container.health == "unhealthy":
        said = container.health_said
        return f"its HEALTHCHECK fails: {said}" if said else "its HEALTHCHECK fails"
    return ""


def _patience_s(container: Container) -> float:
    """Return for how long a container may take to stop: the engine kills it far earlier, unless it was told to wait longer."""
    return max(60.0, 3 * container.stop_timeout_s)
