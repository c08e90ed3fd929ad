"""Keeps the app registered: registers, registers again when the registry fell silent, reports changes, deregisters at the end.

Speaks to Pillion's registry and to a classic one, which has only POST and DELETE /services.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import msgspec

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.http.client import Answer, Channel
from pillion_common.logs import EventLog
from pillion_common.models import Registered, Registration, State, StateReport, encode
from pillion_common.names import Url, address_of, derive_id
from pillion_common.trust import Token
from pillion_sidecar.settings import Settings

_log = EventLog("registrar")

TIMEOUT_S = 3.0
BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 5.0
# A classic registry's round over all its services takes as long as it has services; it is asked again only after a long silence.
CLASSIC_INTERVAL_S = 30.0


class Registrar:
    """Owns this sidecar's place in the registry.

    Args:
        clock: monotonic seconds.
        on_forgotten: called before it registers again with a classic registry, which will then send all providers there are.
    """

    def __init__(
        self,
        settings: Settings,
        token: Token | None,
        clock: Callable[[], float] = time.monotonic,
        on_forgotten: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_forgotten = on_forgotten
        self._settings = settings
        self._peer_port = settings.listen.port
        self._clock = clock
        self._headers = ("Content-Type: application/json", *((token.header,) if token else ()))
        self._registries = list(settings.registry)
        self._channel: Channel | None = None
        self._heard_at = clock()
        self._forgotten = asyncio.Event()
        self._interval_s = CLASSIC_INTERVAL_S
        self._classic = False
        self._registration: Registration | None = None
        self.registered = False
        self.fault = "it has not registered yet"
        self.instance_id = derive_id(settings.name, "unregistered")

    async def run(self, peer_port: int) -> None:
        """Register, and again whenever the registry has been silent for so long that it must have forgotten us.

        Args:
            peer_port: the real port of the peer listener, where heartbeats and patches arrive.
        """
        self._peer_port = peer_port
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        while True:
            before, self.fault = self.fault, await self._register()
            if self.fault:
                self.registered = False
                if self.fault != before:
                    _log.warning("register_failed", f"not registered: {self.fault}; trying again")
                self._registries.append(self._registries.pop(0))
                await asyncio.sleep(backoff.next_delay())
                continue
            backoff.reset()
            self.registered = True
            await self._silence()

    def heard(self) -> None:
        """Note a heartbeat or a patch: the registry knows us."""
        self._heard_at = self._clock()

    @property
    def silent_s(self) -> float:
        """Return seconds since the registry was last heard."""
        return self._clock() - self._heard_at

    @property
    def stale(self) -> bool:
        """Return whether the registry has been silent for so long that what it told us may be old."""
        return not self.registered or self.silent_s > self._patience_s

    async def report(self, well: bool, reason: str) -> None:
        """Tell the registry a change of the app's state before it asks. A classic one has no ear for it: it will ask."""
        if self._registration is None or self._classic or not self.registered:
            return
        body = encode(StateReport(State.UP if well else State.DOWN, reason or None))
        try:
            answer = await self._ask("POST", f"/services/{self.instance_id}/state", body, TIMEOUT_S)
        except PeerError as exc:
            _log.debug("report_failed", f"the registry was not told: {exc.message}")
        else:
            if answer.status == 404:
                self._forgotten.set()

    async def deregister(self, timeout_s: float) -> None:
        """Withdraw from the registry; gives up after timeout_s, for the registry finds out by itself."""
        if self._registration is None:
            return
        self.registered = False
        try:
            answer = await self._ask("DELETE", "/services", self._registration.service_url.encode(), timeout_s)
        except PeerError as exc:
            _log.warning("deregister_failed", f"not withdrawn from the registry: {exc.message}")
            return
        if answer.status != 200:
            _log.warning("deregister_failed", f"the registry answered {answer.status} to the withdrawal: {_text(answer)}")

    def close(self) -> None:
        """Close the connection to the registry."""
        if self._channel is not None:
            self._channel.close()

    @property
    def _patience_s(self) -> float:
        return 2 * self._interval_s + 2.0

    async def _silence(self) -> None:
        self.heard()
        self._forgotten.clear()
        while (left := self._patience_s - self.silent_s) > 0 and not self._forgotten.is_set():
            try:
                async with asyncio.timeout(left):
                    await self._forgotten.wait()
            except TimeoutError:
                pass
        why = "does not know us" if self._forgotten.is_set() else f"was silent for {self.silent_s:.0f} s"
        _log.info("registry_forgot", f"the registry {why}: registering again")
        if self._classic:
            self._on_forgotten()
            await self.deregister(TIMEOUT_S)  # it appends what it has already; so it must not have it
        self.registered = False

    async def _register(self) -> str:
        """Return what went wrong, or nothing."""
        self.close()
        registry = self._registries[0]
        self._channel = Channel(registry)
        try:
            self._registration = await self._describe(registry)
            answer = await self._ask("POST", "/services", encode(self._registration), TIMEOUT_S)
        except PeerError as exc:
            return exc.message
        if answer.status != 200:
            return f"{registry.authority} answered {answer.status}: {_text(answer)}"
        self._understand(answer)
        kind = "classic registry" if self._classic else "registry"
        _log.info(
            "registered", f"registered {self._settings.name} at {self._registration.service_url} with the {kind} {registry.authority}"
        )
        return ""

    def _understand(self, answer: Answer) -> None:
        assert self._registration is not None
        self.instance_id = derive_id(self._settings.name, self._registration.service_url)
        try:
            registered = msgspec.json.decode(answer.body, type=Registered)
        except msgspec.MsgspecError:
            self._classic, self._interval_s = True, CLASSIC_INTERVAL_S
        else:
            self._classic, self._interval_s = False, registered.heartbeat_interval
            self.instance_id = registered.instance_id

    async def _ask(self, method: str, target: str, body: bytes, timeout_s: float) -> Answer:
        assert self._channel is not None
        return await self._channel.request(method, target, body=body, headers=self._headers, timeout_s=timeout_s)

    async def _describe(self, registry: Url) -> Registration:
        settings = self._settings
        host = settings.advertise or await route_source(registry, _family(settings.listen.host))
        shown = f"[{host}]" if ":" in host else host
        peer = f"http://{shown}:{self._peer_port}"
        return Registration(
            service_name=settings.name,
            service_url=f"http://{shown}:{settings.port}",
            required_services=settings.all_required,
            service_update_url=f"{peer}/services",
            heartbeat_url=f"{peer}/heartbeat",
            version=settings.version or None,
            zone=settings.zone or None,
            weight=settings.weight,
            tags=settings.tags or None,
            protocol=2,
        )


async def route_source(peer: Url, family: socket.AddressFamily = socket.AF_INET) -> str:
    """Return the address of ours from which a peer would be reached: the one under which it reaches us.

    Args:
        family: the kind of address to prefer: the one on which we listen.

    Raises:
        PeerError: its name does not resolve, or there is no route.
    """
    loop = asyncio.get_running_loop()
    try:
        infos = await asyncio.wait_for(loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM), TIMEOUT_S)
        found, kind, _, _, address = min(infos, key=lambda info: info[0] != family)
        with socket.socket(found, kind) as probe:
            probe.connect(address)  # of a datagram socket: sends nothing, asks only the routing table
            return str(probe.getsockname()[0])
    except TimeoutError as exc:
        raise PeerError(f"{peer.host} cannot be reached: its name did not resolve in time") from exc
    except OSError as exc:
        raise PeerError(f"{peer.host} cannot be reached: {exc}") from exc


def _family(host: str) -> socket.AddressFamily:
    address = address_of(host)
    return socket.AF_INET6 if address is not None and address.version == 6 else socket.AF_INET


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace").strip()[:300]
