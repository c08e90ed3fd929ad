"""Containers as the engine shows them, read from its answers, which are taken for no more than JSON of unknown shape. Pure.

{"Id":"3f2a91c04b7d…","Name":"/shop-web-1","State":{"Running":true,"StartedAt":"…","Health":{"Status":"healthy"}},"Config":{…},…}
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pillion_common.clock import parse_rfc3339
from pillion_sidecar.agent.labels import wanted_label

SHORT_ID = 12
MAX_LABELS = 256
MAX_TEXT = 1024
SIDECAR = "pillion sidecar"  # in the command of one
STOP_TIMEOUT_S = 10.0  # the engine's own default


class Container(NamedTuple):
    """One running container, as far as it matters here."""

    id: str
    name: str
    paused: bool = False
    started_ms: int | None = None  # since 1970
    health: str = ""  # of its HEALTHCHECK: starting, healthy, unhealthy; empty: it has none
    health_said: str = ""  # its last output
    labels: Mapping[str, str] = {}
    environ: Mapping[str, str] = {}
    ports: tuple[int, ...] = ()  # exposed, TCP
    published: Mapping[int, tuple[str, int]] = {}  # port -> the host's address and port
    network_mode: str = ""
    addresses: Mapping[str, str] = {}  # network -> IP address
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = STOP_TIMEOUT_S
    has_terminal: bool = False

    @property
    def short_id(self) -> str:
        """Return the id as people know it."""
        return self.id[:SHORT_ID]


class Listed(NamedTuple):
    """One running container, whichever it is: enough to know whose network is whose, and who has a sidecar."""

    network_mode: str
    addresses: Mapping[str, str]
    is_sidecar: bool


def read_list(answer: Any) -> dict[str, Listed]:
    """Read the answer to /containers/json: id -> container. What has no id is left out."""
    found = {}
    for item in answer if isinstance(answer, list) else ():
        one = _mapping(item)
        if container_id := _text(one.get("Id")):
            found[container_id] = Listed(_network_mode(one), _addresses(one), SIDECAR in _text(one.get("Command")))
    return found


def read_listed(answer: Any) -> Listed | None:
    """Read the same of the answer to /containers/{id}/json; None if it does not run."""
    shown = _mapping(answer)
    if _mapping(shown.get("State")).get("Running") is not True:
        return None
    arguments = shown.get("Args")
    words = [_text(shown.get("Path")), *(arguments if isinstance(arguments, list) else ())]
    return Listed(_network_mode(shown), _addresses(shown), SIDECAR in " ".join(map(_text, words)))


def read_container(answer: Any, only: Iterable[str] = ()) -> Container | None:
    """Read the answer to /containers/{id}/json; None if it does not run.

    Args:
        only: labels to remember besides Pillion's and Registrator's.
    """
    shown = _mapping(answer)
    state, given = _mapping(shown.get("State")), _mapping(shown.get("Config"))
    container_id = _text(shown.get("Id"))
    if not container_id or state.get("Running") is not True or state.get("Restarting") is True:
        return None
    kept = set(only)
    health = _mapping(state.get("Health"))
    stop_timeout = given.get("StopTimeout")
    return Container(
        id=container_id,
        name=_text(shown.get("Name")).lstrip("/") or container_id[:SHORT_ID],
        paused=state.get("Paused") is True,
        started_ms=_millis(_text(state.get("StartedAt"))),
        health=_health(health),
        health_said=_last_output(health),
        labels={label: text for label, text in _texts(given.get("Labels")).items() if wanted_label(label) or label in kept},
        environ=_environ(given.get("Env")),
        ports=_exposed(given.get("ExposedPorts")),
        published=_published(_mapping(shown.get("NetworkSettings")).get("Ports")),
        network_mode=_network_mode(shown),
        addresses=_addresses(shown),
        stop_signal=_signal_number(_text(given.get("StopSignal"))),
        stop_timeout_s=float(stop_timeout) if isinstance(stop_timeout, int) and stop_timeout >= 0 else STOP_TIMEOUT_S,
        has_terminal=given.get("Tty") is True,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> dict[str, str]:
    pairs = [(key, text[:MAX_TEXT]) for key, text in _mapping(value).items() if isinstance(text, str)]
    return dict(sorted(pairs, key=lambda pair: not wanted_label(pair[0]))[:MAX_LABELS])


def _environ(value: Any) -> dict[str, str]:
    lines = [line.partition("=") for line in value if isinstance(line, str)] if isinstance(value, list) else []
    return {key: text[:MAX_TEXT] for key, _, text in lines[:MAX_LABELS] if wanted_label(key)}


def _network_mode(shown: Mapping[str, Any]) -> str:
    return _text(_mapping(shown.get("HostConfig")).get("NetworkMode"))


def _addresses(shown: Mapping[str, Any]) -> dict[str, str]:
    networks = _mapping(_mapping(shown.get("NetworkSettings")).get("Networks"))
    found = {name: _text(_mapping(one).get("IPAddress")) or _text(_mapping(one).get("GlobalIPv6Address")) for name, one in networks.items()}
    return {name: address for name, address in found.items() if address}


def _exposed(value: Any) -> tuple[int, ...]:
    return tuple(sorted(port for key in _mapping(value) if (port := _tcp_port(key))))


def _published(value: Any) -> dict[int, tuple[str, int]]:
    found = {}
    for key, bindings in _mapping(value).items():
        first = _mapping(bindings[0]) if isinstance(bindings, list) and bindings else {}
        host_port = _text(first.get("HostPort"))
        if (port := _tcp_port(key)) and host_port.isdecimal():
            found[port] = (_text(first.get("HostIp")), int(host_port))
    return found


def _tcp_port(key: str) -> int:
    """Return the port of `8080/tcp`; 0 for any other kind."""
    number, _, kind = key.partition("/")
    return int(number) if number.isdecimal() and kind in ("tcp", "") else 0


def _millis(text: str) -> int | None:
    try:
        millis = int(parse_rfc3339(text) * 1000)
    except (ValueError, OverflowError):
        return None
    return millis if millis > 0 else None  # the year 1: it never ran


def _health(health: Mapping[str, Any]) -> str:
    status = _text(health.get("Status"))
    if status == "unhealthy" and health.get("FailingStreak") == 0:
        return "healthy"  # the engine says so of one that was paused until its next run, though no run has failed
    return "" if status == "none" else status


def _last_output(health: Mapping[str, Any]) -> str:
    runs = health.get("Log")
    last = _mapping(runs[-1]) if isinstance(runs, list) and runs else {}
    return " ".join(_text(last.get("Output")).split())[:100]


def _signal_number(text: str) -> int:
    """Return the number of `SIGQUIT`, `QUIT` or `3`; SIGTERM's for what is none."""
    if text.isdecimal():
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    base, plus, offset = name.partition("+")
    try:
        return signal.Signals[base] + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        return signal.SIGTERM
