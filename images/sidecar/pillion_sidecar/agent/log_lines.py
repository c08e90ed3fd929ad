"""The log lines of all containers an agent stands in for: who is followed, the spool, and where the lines go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping

from pillion_common.errors import PeerError
from pillion_common.http.client import Channel
from pillion_common.logs import EventLog
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.log_follower import PREFIX, Follower
from pillion_sidecar.agent.plan import Spec
from pillion_sidecar.agent.settings import Settings
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.forwarder import Forwarder
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Patch, Provider, decode_shown

_log = EventLog("container_logs")

LOOK_S = 5.0  # between two questions for log services
LOOK_NONE_S = 1.0
ASK_S = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
BEGAN = "began"  # the key of the position that says since when logs are followed here
MAX_POSITIONS = 1000  # of containers; those that ended longest ago are forgotten
FLUSH_S = 1.0
END_S = 10.0  # for the rest of a log whose container has ended
START_LAG_S = 5.0  # by which a container's first lines may be older than its start: the engine notes the start when it comes round to it
LEAD_S = 60.0  # before the first agent's start, of which containers that start together with it are read


class LogLines:
    """Follows containers' logs.

    Args:
        tasks: own what runs here.

    Raises:
        ConfigError: the spool's folder cannot be used.
    """

    def __init__(self, settings: Settings, engine: Engine, token: Token | None, tasks: Supervisor) -> None:
        self._settings = settings
        self._engine = engine
        self._tasks = tasks
        self._spool = Spool(os.path.join(settings.state_dir, "spool"), settings.spool_size)
        self._table = ProviderTable({settings.log_to: 0})
        self._forwarder = Forwarder(self._spool, self._table, settings.log_to, token)
        self._sink = Sink(self._spool, self._forwarder.nudge)
        self._channels = [Channel(url, max_answer=MAX_ANSWER_BYTES) for url in settings.registry]
        self._followers: dict[str, tuple[Follower, asyncio.Task[None]]] = {}
        self._began_s = self._first_start_s()

    @property
    def waiting(self) -> int:
        """Return how many lines wait to be forwarded."""
        return self._spool.waiting

    def start(self) -> None:
        """Forward what there is, and what comes."""
        self._tasks.keep("forwarder", self._forwarder.run())
        self._tasks.keep("log services", self._look_for_services())

    def follow(self, specs: Mapping[str, Spec]) -> None:
        """Follow the logs of these instances' containers; the log service's own is left out, for it would hear itself."""
        wanted = {spec.container.id: spec for spec in reversed(list(specs.values())) if spec.settings.name != self._settings.log_to}
        for container_id, (follower, _) in self._followers.items():
            if container_id not in wanted and not follower.ending:
                follower.ending = True
                asyncio.get_running_loop().call_later(END_S, self._give_up, container_id, follower)
        for container_id, spec in wanted.items():
            known = self._followers.get(container_id)
            if known is None or known[1].done():
                self._start(container_id, spec)
            else:
                known[0].ending = False

    async def close(self) -> None:
        """Send what is left and let go."""
        await self._forwarder.flush(FLUSH_S)
        self._forwarder.close()
        for channel in self._channels:
            channel.close()
        self._spool.close()

    def _start(self, container_id: str, spec: Spec) -> None:
        started_s = (spec.container.started_ms or 0) / 1000
        follower = Follower(
            container_id,
            self._engine,
            EntryMaker(spec.settings.name, lambda: spec.instance_id, time.time),
            self._sink,
            # What ran before there was an agent may have written for weeks: that is not asked for.
            begin_s=max(started_s - START_LAG_S, self._began_s),
            has_terminal=spec.container.has_terminal,
            join=self._settings.log_join,
        )
        task = self._tasks.spawn(f"log of {spec.container.short_id}", follower.run())
        task.add_done_callback(lambda _: self._ended(container_id, follower))
        self._followers[container_id] = follower, task
        self._forget()

    def _first_start_s(self) -> float:
        """Return from when on logs are followed here, seconds since 1970: a little before the first agent's start."""
        known = self._sink.positions.get(BEGAN)
        if known is None:
            known = f"{time.time() - LEAD_S:.3f}"
            self._sink.keep((), {BEGAN: known})
        return float(known)

    def _give_up(self, container_id: str, follower: Follower) -> None:
        found = self._followers.get(container_id)
        if found is not None and found[0] is follower and follower.ending:
            found[1].cancel()
            self._ended(container_id, follower)

    def _ended(self, container_id: str, follower: Follower) -> None:
        if (found := self._followers.get(container_id)) is not None and found[0] is follower:
            del self._followers[container_id]

    def _forget(self) -> None:
        """Forget how far the logs of those were read that ended longest ago."""
        known = [key for key in self._sink.positions if key.startswith(PREFIX)]
        followed = {PREFIX + container_id[:12] for container_id in self._followers}
        spare = [key for key in known if key not in followed][: max(0, len(known) - MAX_POSITIONS)]
        if spare:
            self._sink.keep((), dict.fromkeys(spare))

    async def _look_for_services(self) -> None:
        while True:
            if self._settings.log_to and (found := await self._ask()) is not None:
                before = self._table.all(self._settings.log_to)
                self._table.apply(Patch(added=found, full=True, services=(self._settings.log_to,)))
                if self._table.all(self._settings.log_to) != before:
                    self._forwarder.try_now()
            await asyncio.sleep(LOOK_S if self._table.all(self._settings.log_to) else LOOK_NONE_S)

    async def _ask(self) -> tuple[Provider, ...] | None:
        """Return the log services that are up; None if no registry can be asked."""
        for channel in self._channels:
            try:
                answer = await channel.request("GET", f"/services/{self._settings.log_to}?state=up", timeout_s=ASK_S)
            except PeerError as exc:
                _log.debug("log_services_unknown", exc.message)
                continue
            if answer.status == 404:
                return ()
            said = decode_shown(answer.body) if answer.status == 200 else None
            if said is not None:
                urls = [one.get("ServiceURL") for one in said[1]]
                return tuple(Provider(self._settings.log_to, url) for url in urls if isinstance(url, str))
        return None
