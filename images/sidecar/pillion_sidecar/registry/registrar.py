"""Keeps the app registered: registers, registers again when there is doubt whether the registry knows us, reports, drains, deregisters.

Doubt arises when the registry closes the connection or says that it does not know us, when it is silent for long, and when what it shows
differs from what it told us. Registering again is harmless: a healthy instance stays offered, and is sent the whole table. A classic
registry, which has only POST and DELETE /services, appends what it is told; it is asked only when it was surely restarted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError, PeerRefused
from pillion_common.http.answers import Answer
from pillion_common.http.client import Channel
from pillion_common.logs import EventLog
from pillion_common.names import derive_id
from pillion_common.trust import Token
from pillion_sidecar.registry.registration import StandIn, describe
from pillion_sidecar.settings import Settings
from pillion_sidecar.wire import Drained, decode_drained, decode_registered, encode

_log = EventLog("registrar")

TIMEOUT_S = 3.0
BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 3.0
ROTATE_S = 0.1  # between two registries of the list
SPREAD_S = 1.5  # over which a crowd comes back after a registry's end
MAX_ANSWER_BYTES = 1024 * 1024  # of what the registry shows of one service
# A classic registry's round over all its services takes as long as it has services; it is asked again only after a long silence.
CLASSIC_INTERVAL_S = 30.0


class Registrar:
    """Owns this sidecar's place in the registry.

    Args:
        incarnation: see registration.next_incarnation.
        stand_in: what differs where an agent stands in for a sidecar.
        clock: monotonic seconds.
        rand: a number from 0 to below 1.
        on_registered: called after each registration.
        on_forgotten: called before it registers again with a classic registry, which will then send all providers there are.
    """

    def __init__(
        self,
        settings: Settings,
        token: Token | None,
        *,
        incarnation: int | None = None,
        stand_in: StandIn | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
        on_registered: Callable[[], None] = lambda: None,
        on_forgotten: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_registered = on_registered
        self._on_forgotten = on_forgotten
        self._settings = settings
        self._incarnation = incarnation
        self._stand_in = stand_in
        self._peer_port = settings.listen.port
        self._clock = clock
        self._rand = rand
        self._headers = ("Content-Type: application/json", *((token.header,) if token else ()))
        self._registries = list(settings.registry)
        self._channel: Channel | None = None
        self._started_at = self._heard_at = clock()
        self._unreachable_at: float | None = None
        self._undeclared: tuple[str, ...] = ()
        self._hint = asyncio.Event()
        self._closed = False
        self._doubt = ""
        self._patience_s = _patience(CLASSIC_INTERVAL_S)
        self._registration: dict[str, Any] | None = None
        self.owes_report = False  # the app changed while the registry could not be told
        self.classic = False
        self.draining = False
        self.registered = False  # as far as we know it has us now
        self.admitted = False  # it has taken us once, and has not refused us since
        self.fault = "it has not registered yet"
        self.instance_id = f"{settings.name}-unregistered"

    # How it stands.

    @property
    def tried(self) -> bool:
        """Return whether the first try to register has ended."""
        return self.admitted or self._unreachable_at is not None

    @property
    def silent_s(self) -> float:
        """Return seconds since the registry was last heard."""
        return self._clock() - self._heard_at

    @property
    def unreachable_s(self) -> float:
        """Return for how many seconds every try to register has failed; 0 if the last one did not."""
        return 0.0 if self._unreachable_at is None else self._clock() - self._unreachable_at

    @property
    def stale(self) -> bool:
        """Return whether what the registry told us may be old: it cannot be reached, or it has been silent for too long."""
        return bool(self.fault) or self._clock() - self._heard_at > self._patience_s

    def heard(self) -> None:
        """Note a heartbeat or a patch: the registry knows us."""
        self._heard_at = self._clock()

    # What it does.

    async def run(self, peer_port: int) -> None:
        """Register, and again whenever there is doubt.

        Args:
            peer_port: the real port of the peer listener, where heartbeats and patches arrive.
        """
        self._peer_port = peer_port
        while True:
            await self._until_registered()
            await self._until_doubt()
            _log.info("registering_again", f"the registry {self._doubt}: registering again")
            if self.classic:
                self._on_forgotten()
                await self.deregister(TIMEOUT_S)  # it appends what it has already; so it must not have it

    def doubt(self, why: str) -> None:
        """Register again soon.

        Args:
            why: reads well after "the registry".
        """
        self._doubt = self._doubt or why
        self._hint.set()

    def require(self, name: str) -> bool:
        """Ask for one more service than was required; False with a classic registry, which has to be told of all at once."""
        if self.registered and self.classic:
            return False
        if name not in self._undeclared:
            self._undeclared += (name,)
            self.doubt(f"has to be told that {name} is looked up here")
        return True

    async def read(self, target: str, headers: tuple[str, ...] = (), timeout_s: float = TIMEOUT_S) -> Answer:
        """Read from the registry.

        Raises:
            PeerError: it did not answer, or none was reached yet.
        """
        if self._channel is None:
            raise PeerError(self.fault)
        return await self._channel.request("GET", target, headers=headers, timeout_s=timeout_s)

    async def report(self, well: bool, reason: str) -> None:
        """Tell the registry a change of the app's state before it asks. A classic one has no ear for it: it will ask."""
        self.owes_report = not self.registered
        if self.classic or not self.registered:
            return
        body = encode({"State": "up" if well else "down", "Reason": reason or None})
        try:
            answer = await self._ask("POST", f"/services/{self.instance_id}/state", body, TIMEOUT_S)
        except PeerError as exc:
            _log.debug("report_failed", f"the registry was not told: {exc.message}")
        else:
            if answer.status == 404:
                self.doubt("does not know us")

    async def drain(self, timeout_s: float, reason: str) -> Drained | None:
        """Withdraw the app, which goes on working, and wait until every dependent has acknowledged it.

        Returns:
            Who acknowledged; None if that cannot be told: a classic registry, one that cannot be reached, or we are not registered.
        """
        self.draining = True
        if self.classic and self.registered:
            await self.deregister(timeout_s)
        if not self.registered:
            return None
        body = encode({"Timeout": timeout_s, "Reason": reason})
        try:
            answer = await self._ask("POST", f"/services/{self.instance_id}/drain", body, timeout_s + 1.0)
        except PeerError as exc:
            _log.warning("drain_failed", f"the registry was not told that the app drains: {exc.message}")
            return None
        if answer.status in (404, 405):
            await self.deregister(timeout_s)
        elif answer.status == 200:
            return decode_drained(answer.body)
        else:
            _log.warning("drain_failed", f"the registry answered {answer.status} to the drain: {_text(answer)}")
        return None

    async def undrain(self) -> str:
        """Let a drained app come back; return what went wrong, or nothing."""
        self.draining = False
        if not self.registered:
            self.doubt("has to be told that the app is back")
            return ""
        try:
            answer = await self._ask("POST", f"/services/{self.instance_id}/undrain", b"", TIMEOUT_S)
        except PeerError as exc:
            return exc.message
        return "" if answer.status == 200 else f"the registry answered {answer.status}: {_text(answer)}"

    async def deregister(self, timeout_s: float) -> None:
        """Withdraw from the registry; gives up after timeout_s, for the registry finds out by itself."""
        if self._registration is None:
            return
        self.registered = False
        try:
            answer = await self._ask("DELETE", "/services", self._registration["ServiceURL"].encode(), timeout_s)
        except PeerError as exc:
            _log.warning("deregister_failed", f"not withdrawn from the registry: {exc.message}")
            return
        if answer.status not in (200, 404):
            _log.warning("deregister_failed", f"the registry answered {answer.status} to the withdrawal: {_text(answer)}")

    def close(self) -> None:
        """Close the connection to the registry."""
        if self._channel is not None:
            self._channel.close()

    # Inside.

    async def _until_registered(self) -> None:
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, self._rand)
        tried = 0
        while fault := await self._register():
            if fault != self.fault:
                _log.warning("register_failed", f"not registered: {fault}; trying again")
            self.fault = fault
            if self._unreachable_at is None:
                self._unreachable_at = self._clock()
            self._registries.append(self._registries.pop(0))
            tried += 1
            await asyncio.sleep(ROTATE_S * self._rand() if tried % len(self._registries) else backoff.next_delay())
        self.fault, self._unreachable_at, self.registered, self.admitted = "", None, True, True
        self.heard()
        self._on_registered()
        if self.draining and not self.classic:
            await self.drain(0.0, "it was draining before")

    async def _until_doubt(self) -> None:
        while not self._doubt:
            left_s = self._patience_s - self.silent_s
            if self.classic and self.draining:
                left_s = self._patience_s  # it has us no more, and nothing is to be heard
            if left_s <= 0:
                self._doubt = f"was silent for {self.silent_s:.0f} s"
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._hint.wait()
            except TimeoutError:
                continue
            self._hint.clear()
            if self._closed and not self._doubt:
                await self._look_at_close()

    async def _look_at_close(self) -> None:
        self._closed = False
        if self.classic:
            # It may have closed an idle connection. Only when nobody listens there any more has it surely lost its memory.
            try:
                await self.read("/services")
            except PeerRefused:
                self._doubt = "was restarted"
            except PeerError:
                pass
        else:
            await asyncio.sleep(SPREAD_S * self._rand())
            self._doubt = self._doubt or "closed the connection"

    def _lost(self) -> None:
        self._closed = True
        self._hint.set()

    async def _register(self) -> str:
        """Return what went wrong, or nothing."""
        self.close()
        registry = self._registries[0]
        self._channel = Channel(registry, on_closed=self._lost, max_answer=MAX_ANSWER_BYTES)
        self._doubt, self._closed = "", False
        try:
            self._registration = await describe(
                self._settings, registry, self._peer_port, self._undeclared, self._incarnation, self._stand_in
            )
            answer = await self._ask("POST", "/services", encode(self._registration), TIMEOUT_S)
        except PeerError as exc:
            return exc.message
        if answer.status == 409:
            await self.deregister(TIMEOUT_S)  # our clock went back and the number of the last life is lost: that life is over
        if answer.status != 200:
            if 400 <= answer.status < 500:
                self.registered = self.admitted = False
            return f"{registry.authority} answered {answer.status}: {_text(answer)}"
        self._understand(answer)
        kind = "classic registry" if self.classic else "registry"
        _log.info(
            "registered", f"registered {self._settings.name} at {self._registration['ServiceURL']} with the {kind} {registry.authority}"
        )
        return ""

    def _understand(self, answer: Answer) -> None:
        assert self._registration is not None
        registered = decode_registered(answer.body)
        if registered is None:
            self.classic, self._patience_s = True, _patience(CLASSIC_INTERVAL_S)
            self.instance_id = derive_id(self._settings.name, self._registration["ServiceURL"])
        else:
            self.classic, self._patience_s = False, _patience(registered.heartbeat_interval)
            self.instance_id = registered.instance_id

    async def _ask(self, method: str, target: str, body: bytes, timeout_s: float) -> Answer:
        assert self._channel is not None
        return await self._channel.request(method, target, body=body, headers=self._headers, timeout_s=timeout_s)


def _patience(interval_s: float) -> float:
    """Return after how much silence a registry that calls at this interval must have forgotten us."""
    return 2 * interval_s + 2.0


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace").strip()[:300]
