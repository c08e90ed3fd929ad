"""What the end of a check makes of an instance: the catalogue's rules, and those that keep it from a wrong withdrawal or a hasty return.

Evidence of death (refused, 503, its own report) withdraws at once. Silence does after as many time-outs as `patience` asks for, unless the
registry still warms up or the guard keeps the instance, which is then shown as suspect. Who flaps is held down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from pillion_common.clock import rfc3339
from pillion_common.logs import EventLog
from pillion_registry import events
from pillion_registry.catalog import Catalog, Instance, Transition
from pillion_registry.events import Events
from pillion_registry.flaps import Flaps
from pillion_registry.guard import WHOLE, Guard, Turn
from pillion_registry.patience import Patience
from pillion_registry.settings import Settings
from pillion_registry.warmup import Warmup

WARMING = "nobody is withdrawn for silence before each was asked once since the registry started"

TICK_S = 0.5
TIDY_S = 10.0

_log = EventLog("health")


class Health:
    """Takes in what checks end with.

    Args:
        journal: where what changes nobody's state is recorded.
        ask: asks these instances soon, before their turn.
        clock: seconds since 1970, for what is shown. monotonic: seconds, for what is measured.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        journal: Events,
        ask: Callable[[Iterable[str]], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._ask = ask
        self._clock = clock
        self._monotonic = monotonic
        share = settings.guard_share
        self._round_s = settings.heartbeat_interval + settings.heartbeat_timeout
        self.guard = Guard(catalog.offers, share, settings.guard_time, settings.heartbeat_interval, settings.heartbeat_timeout)
        self.patience = Patience(settings.heartbeat_misses, adapts=share > 0)
        self.flaps = Flaps(settings.flap_changes)
        self._warmup = Warmup((), 0.0)
        self._tidied_at = monotonic()

    def begin(self, spread_s: float) -> None:
        """Warm up: all there are now will be asked for the first time within spread_s."""
        ids = (one.record.instance_id for one in self._catalog)
        self._warmup = Warmup(ids, self._monotonic() + spread_s + self._round_s)

    def passed(self, instance: Instance) -> Transition | None:
        """Note a check that passed; it may be held down all the same."""
        now = self._monotonic()
        instance_id = instance.record.instance_id
        self._heard(instance_id)
        self.patience.heard(0 if instance.suspect else instance.misses, now)
        if instance.comes_up:
            left_s, begins = self.flaps.hold(instance_id, now)
            if left_s:
                self._hold(instance, left_s, begins)
                return None
        transition = self._catalog.passed(instance, self._clock())
        if transition is not None:
            self.flaps.rose(instance_id, now)
        return transition

    def failed(self, instance: Instance, reason: str) -> Transition | None:
        """Note evidence that an instance cannot serve."""
        self._heard(instance.record.instance_id)
        return self._fallen(instance, self._catalog.failed(instance, reason, self._clock()))

    def missed(self, instance: Instance, reason: str) -> Transition | None:
        """Note a check that was not answered in time."""
        now = self._monotonic()
        instance_id, name = instance.record.instance_id, instance.name
        self._warmup.asked(instance_id)
        self.patience.missed(now)
        if not instance.offered:
            self.guard.heard(instance_id)
            return self._catalog.missed(instance, reason, 1, self._clock())
        missed = self.guard.missed(name, instance_id, now)
        for turn in missed.turns:
            self._turned(turn)
        for group in missed.rounds:
            others = self._catalog if group == WHOLE else self._catalog.named(group)
            self._ask([one.record.instance_id for one in others if one.offered and one is not instance])
        if instance.misses + 1 < self.patience.limit(now) or self._keeps(instance, reason, now):
            return self._catalog.missed(instance, reason, None, self._clock())
        kept_s = self.guard.kept_s(instance_id, now)
        self.guard.heard(instance_id)
        said = f"{reason} ({instance.misses + 1} times in a row" + (")" if kept_s is None else f"; the guard kept it for {kept_s:.0f} s)")
        transition = self._fallen(instance, self._catalog.silent(instance, said, self._clock()))
        instance.outlasted_guard = kept_s is not None
        return transition

    def forget(self, instance_id: str) -> None:
        """Note that an instance is gone."""
        self._heard(instance_id)

    async def run(self) -> None:
        """Look whether a time is over, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Look whether a time is over."""
        now = self._monotonic()
        for turn in self.guard.tick(now):
            self._turned(turn)
        if now - self._tidied_at >= TIDY_S:
            self._tidied_at = now
            self.flaps.tidy(now)

    # Inside.

    def _heard(self, instance_id: str) -> None:
        self._warmup.asked(instance_id)
        self.guard.heard(instance_id)

    def _keeps(self, instance: Instance, reason: str, now: float) -> bool:
        """Return whether a silent instance is kept, and mark it as suspect unless it is for a moment only."""
        warming_s = self._warmup.left_s(now)
        keeping = self.guard.keeps(instance.record.instance_id, now)
        if keeping is not None and keeping.reason:
            self._catalog.suspect(instance, f"{reason}; kept by the guard: {keeping.reason}", self._clock() + keeping.left_s)
        elif warming_s:
            self._catalog.suspect(instance, f"{reason}; {WARMING}", self._clock() + warming_s)
        return keeping is not None or warming_s > 0

    def _fallen(self, instance: Instance, transition: Transition | None) -> Transition | None:
        if transition is not None:
            self.flaps.fell(instance.record.instance_id, self._monotonic())
        return transition

    def _hold(self, instance: Instance, left_s: float, begins: bool) -> None:
        shown_s = None if begins else instance.held_until_s
        until_s = self._clock() + left_s if shown_s is None else shown_s
        reason = f"held down for flapping: more than {self.flaps.most} changes within a minute, or down again soon after a hold"
        reason += f"; offered again from {rfc3339(until_s)} on, if it answers then"
        self._catalog.hold(instance, reason, until_s)
        if begins:
            self._tell(events.HELD, instance.name, reason, instance)

    def _turned(self, turn: Turn) -> None:
        self._tell(events.GUARD_ON if turn.on else events.GUARD_OFF, turn.name, turn.reason)

    def _tell(self, kind: str, name: str, reason: str, instance: Instance | None = None) -> None:
        self._journal.note(kind, reason, self._catalog.revision, name, instance.record if instance else None)
        _log.warning(kind.replace(" ", "_"), f"{name or 'all services'}: {kind}: {reason}", service=name)
