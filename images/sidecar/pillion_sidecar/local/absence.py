"""Why there is no provider: asks the registry, so that a 404 says what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pillion_common.errors import NotFound, PeerError
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.table.choice import Wish
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import decode_shown

TIMEOUT_S = 1.0
KEEP_S = 1.0  # an app that asks in a loop is no reason to ask the registry in one
MAX_KEPT = 128


class Absence:
    """Explains why a look-up found nothing.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, table: ProviderTable, registrar: Registrar, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._registrar = registrar
        self._clock = clock
        self._kept: dict[str, tuple[float, NotFound]] = {}
        self._asking: dict[str, asyncio.Future[NotFound]] = {}

    async def explain(self, name: str, wish: Wish) -> NotFound:
        """Return the answer to a look-up that found nothing."""
        if there := len(self._table.all(name)):
            return NotFound(f"{there} providers of {name} are up, but none fits {_shown_filters(wish)}", code="none_fits")
        if not self._table.knows(name):
            return self._not_taken_in(name)
        if self._registrar.stale:
            return self._unreachable(name)
        if self._registrar.classic:
            return NotFound(f"no provider of {name} is up now", code="no_provider")
        kept = self._kept.get(name)
        if kept is not None and self._clock() - kept[0] <= KEEP_S:
            return kept[1]
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.ensure_future(self._ask_and_keep(name))
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(asking)  # others wait for the same answer

    async def _ask_and_keep(self, name: str) -> NotFound:
        found = await self._ask(name)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[name] = self._clock(), found
        return found

    def _not_taken_in(self, name: str) -> NotFound:
        known = ", ".join(self._table.names()) or "nothing"
        why = "this registry has to be told at once" if self._registrar.classic else "too many others were looked up without being so"
        return NotFound(f"{name} is not among what this app requires ({known}), and {why}; add it to PILLION_REQUIRES", code="not_required")

    def _unreachable(self, name: str) -> NotFound:
        registrar = self._registrar
        since = f"for {registrar.unreachable_s:.0f} s: {registrar.fault}" if registrar.fault else f"silent for {registrar.silent_s:.0f} s"
        if not registrar.tried:
            since = registrar.fault
        return NotFound(f"no provider of {name} is known, and the registry cannot be reached ({since})", code="registry_unreachable")

    async def _ask(self, name: str) -> NotFound:
        try:
            answer = await self._registrar.read(f"/services/{name}", timeout_s=TIMEOUT_S)
        except PeerError as exc:
            message = f"no provider of {name} is known, and the registry cannot be asked: {exc.message}"
            return NotFound(message, code="registry_unreachable")
        if answer.status == 404:
            message = f"no service named {name} was ever registered; is it spelled right, and does it have a sidecar?"
            return NotFound(message, code="never_registered")
        said = decode_shown(answer.body)
        return _tell(name, said[1] if said else [])


def _tell(name: str, services: list[dict[str, Any]]) -> NotFound:
    states = Counter(str(one.get("State")) for one in services)
    if states and set(states) == {"draining"}:
        return NotFound(f"no provider of {name} is up: all {len(services)} are draining", code="all_draining")
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "none is registered now"
    reason = next((f"; {one.get('ServiceURL')}: {one['Reason']}" for one in services if one.get("Reason")), "")
    return NotFound(f"no provider of {name} is up: {counts}{reason}", code="no_provider")


def _shown_filters(wish: Wish) -> str:
    filters = [f"tag={tag}" for tag in sorted(wish.tags)] + ([f"version={wish.version}"] if wish.version else [])
    return "&".join(filters)
