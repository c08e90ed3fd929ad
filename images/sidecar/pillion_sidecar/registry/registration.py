"""What this sidecar tells the registry of itself: the registration, the address others reach it under, and its incarnation."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any, NamedTuple

from pillion_common.errors import PeerError
from pillion_common.logs import EventLog
from pillion_common.names import Url, is_address
from pillion_sidecar.settings import Settings

_log = EventLog("registration")

RESOLVE_S = 3.0
UNDECLARED = "pillion.dev/undeclared"  # the key of Metadata that names what was looked up without having been required


class StandIn(NamedTuple):
    """How an instance registers whose heartbeats an agent answers, among those of others at the same peer listener.

    `path` goes before /heartbeat and /services; `host` is the agent's own, empty for its address on the route to the registry.
    """

    instance_id: str
    path: str
    host: str = ""
    metadata: dict[str, str] | None = None


async def describe(
    settings: Settings,
    registry: Url,
    peer_port: int,
    undeclared: tuple[str, ...] = (),
    incarnation: int | None = None,
    stand_in: StandIn | None = None,
) -> dict[str, Any]:
    """Return the registration, by its keys in the protocol.

    Args:
        registry: where it goes; our address is the one on the route to there.
        peer_port: the real port of the peer listener.
        undeclared: names that were looked up without having been required.
        incarnation: a later life of this sidecar has a higher one.
        stand_in: of an instance that has no sidecar, but an agent.

    Raises:
        PeerError: the registry's name does not resolve, or there is no route to it.
    """
    host = settings.advertise or await route_source(registry, _family(settings.listen.host))
    peer = _origin(host, peer_port)
    if stand_in is not None:
        peer = _origin(stand_in.host or await route_source(registry, _family(settings.listen.host)), peer_port) + stand_in.path
    metadata = dict(stand_in.metadata or {}) if stand_in else {}
    if undeclared:
        metadata[UNDECLARED] = ",".join(undeclared)
    return {
        "ServiceName": settings.name,
        "ServiceURL": _origin(host, settings.port),
        "RequiredServices": [*settings.all_required, *undeclared],
        "ServiceUpdateURL": f"{peer}/services",
        "HeartbeatURL": f"{peer}/heartbeat",
        "Version": settings.version or None,
        "Zone": settings.zone or None,
        "Weight": settings.weight,
        "Tags": settings.tags or None,
        "Metadata": metadata or None,
        "Protocol": 2,
        "Incarnation": incarnation,
        "Needs": settings.needs(undeclared) or None,
        "InstanceID": stand_in.instance_id if stand_in else None,
    }


async def route_source(peer: Url, family: socket.AddressFamily = socket.AF_INET) -> str:
    """Return the address of ours from which a peer would be reached: the one under which it reaches us.

    Args:
        family: the kind of address to prefer: the one on which we listen.

    Raises:
        PeerError: its name does not resolve, or there is no route.
    """
    try:
        infos = await _resolve(peer)
        found, kind, _, _, address = min(infos, key=lambda info: info[0] != family)
        with socket.socket(found, kind) as probe:
            probe.connect(address)  # of a datagram socket: sends nothing, asks only the routing table
            return str(probe.getsockname()[0])
    except TimeoutError as exc:
        raise PeerError(f"{peer.host} cannot be reached: its name did not resolve in time") from exc
    except OSError as exc:
        raise PeerError(f"{peer.host} cannot be reached: {exc}") from exc


async def _resolve(peer: Url) -> list[Any]:
    host = peer.host.encode("ascii")  # a text would load the codec for IDNA
    if is_address(peer.host):  # costs no time, so it need not cost a thread
        return socket.getaddrinfo(host, peer.port, type=socket.SOCK_DGRAM)
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.getaddrinfo(host, peer.port, type=socket.SOCK_DGRAM), RESOLVE_S)


def next_incarnation(state_dir: str, now_s: float | None = None) -> int:
    """Return a number higher than that of every earlier life in this folder: milliseconds since 1970, or one more than the last.

    A disk that does not take it is no reason not to start: then the clock alone has to be right.
    """
    path = os.path.join(state_dir, "incarnation")
    try:
        with open(path, encoding="ascii") as file:
            last = int(file.read(32))
    except (OSError, ValueError):
        last = 0
    incarnation = max(last + 1, int((time.time() if now_s is None else now_s) * 1000))
    try:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(incarnation))
        os.replace(f"{path}.new", path)
    except OSError as exc:
        _log.warning("incarnation_not_kept", f"{path} was not written: {exc}")
    return incarnation


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
