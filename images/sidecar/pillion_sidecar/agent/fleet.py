"""All instances this agent stands in for: carries plans out, one withdrawal before the next registration at the same URL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

from pillion_common.logs import EventLog
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_sidecar.agent.containers import SHORT_ID
from pillion_sidecar.agent.instance import Instance
from pillion_sidecar.agent.plan import Plan, Spec, make_plan

_log = EventLog("fleet")

CLOSE_S = 3.0


class Fleet:
    """The instances, by handle.

    Args:
        most: instances.
        heartbeat_host: under which the registry reaches the peer listener; empty is our address on the route there.
        tasks: own what runs here.
    """

    def __init__(self, token: Token | None, *, most: int, heartbeat_host: str, tasks: Supervisor) -> None:
        self._token = token
        self._most = most
        self._heartbeat_host = heartbeat_host
        self._tasks = tasks
        self._instances: dict[str, Instance] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}  # by URL
        self.peer_port = 0
        self.beyond: tuple[Spec, ...] = ()

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def __len__(self) -> int:
        return len(self._instances)

    def get(self, handle: str) -> Instance | None:
        """Return an instance."""
        return self._instances.get(handle)

    def apply(self, wanted: Mapping[str, Spec]) -> Plan:
        """Make the instances those that are wanted; returns what was done."""
        known = {handle: instance.spec for handle, instance in self._instances.items()}
        plan = make_plan(wanted, known, self._most)
        for handle in plan.drop:
            self._drop(handle)
        for spec in plan.keep:
            self._instances[spec.handle].update(spec)
        for spec in plan.add:
            self._add(spec)
        if len(plan.beyond) > len(self.beyond):
            many = "1 instance" if len(plan.beyond) == 1 else f"{len(plan.beyond)} instances"
            what = f"{many} more than PILLION_MAX_CONTAINERS allows, {self._most}"
            _log.warning("too_many", f"{what}; raise it, or name fewer with PILLION_ONLY. Left out: {plan.beyond[0].container.name}, ...")
        self.beyond = plan.beyond
        return plan

    def dead(self, container_id: str) -> None:
        """Withdraw the instances of a container that has ended."""
        for instance in self._of(container_id):
            self._drop(instance.spec.handle)

    def signalled(self, container_id: str, number: int) -> None:
        """Withdraw the instances of a container that is being stopped, and keep them until it has ended."""
        for instance in self._of(container_id):
            instance.signalled(number)

    async def close(self) -> None:
        """Withdraw all, for at most CLOSE_S."""
        count = len(self._instances)
        for handle in list(self._instances):
            self._drop(handle)
        leaving = list(self._leaving.values())
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=CLOSE_S)
            after = f"; {len(late)} of them the registry will find out by itself" if late else ""
            _log.info("withdrawn", f"withdrew all {count} instances, which go on working; a new agent registers them again{after}")

    def _of(self, container_id: str) -> list[Instance]:
        short = container_id[:SHORT_ID]
        return [instance for instance in self if instance.spec.container.short_id == short]

    def _add(self, spec: Spec) -> None:
        instance = self._instances[spec.handle] = Instance(
            spec,
            self._token,
            peer_port=self.peer_port,
            heartbeat_host=self._heartbeat_host,
            tasks=self._tasks,
            now=time.monotonic,
            on_fault=self._failed,
        )
        instance.start(self._leaving.get(spec.url))

    def _drop(self, handle: str) -> None:
        instance = self._instances.pop(handle)
        instance.stop()
        url = instance.spec.url
        name, container = instance.spec.settings.name, instance.spec.container.name
        _log.info("instance_gone", f"{name} in {container} is withdrawn", container=container, url=url)
        task = self._tasks.spawn(f"withdrawal of {handle}", self._withdraw(instance, self._leaving.get(url)))
        self._leaving[url] = task
        task.add_done_callback(lambda _: self._left(url, task))

    async def _withdraw(self, instance: Instance, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait((after,))
        await instance.close()

    def _left(self, url: str, task: asyncio.Task[None]) -> None:
        if self._leaving.get(url) is task:
            del self._leaving[url]

    def _failed(self, handle: str) -> None:
        """Give up an instance because of a fault of ours; it comes back with the next plan."""
        if handle in self._instances:
            self._drop(handle)
