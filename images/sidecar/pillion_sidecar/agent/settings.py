"""The agent's options (one table; see pillion_common.config). What a container is called stands in its labels; see labels.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pillion_common.config import (
    Address,
    option,
    parse_address,
    parse_count,
    parse_level,
    parse_names,
    parse_size,
    parse_switch,
    parse_text,
    parse_time,
)
from pillion_common.names import Url
from pillion_sidecar.settings import parse_host, parse_join, parse_registries, parse_service

PROGRAM = "agent"
DESCRIPTION = (
    "Stands in for sidecars on one container engine: registers, checks and drains each container that has labels for it. "
    "With --once --dry-run it prints what it would register, and ends."
)
PLACES = ("container", "host")


class EngineAddress(NamedTuple):
    """Where the engine's API is: a socket file, or HOST:PORT."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"


def _parse_engine(text: str) -> EngineAddress:
    if text.startswith("unix:///"):
        return EngineAddress(path=text.removeprefix("unix://"))
    if text.startswith("tcp://"):
        try:
            host, port = parse_address(text.removeprefix("tcp://").rstrip("/"))
        except ValueError:
            host, port = "", 0
        if port:
            return EngineAddress(host=host, port=port)
    raise ValueError("is not an engine's address; write unix:///var/run/docker.sock or tcp://HOST:PORT")


def _parse_place(text: str) -> str:
    if text not in PLACES:
        raise ValueError(f"is not one of {', '.join(PLACES)}")
    return text


def _parse_only(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in parse_names(text):
        label, equals, value = part.partition("=")
        if not label or not equals:
            raise ValueError(f"has {part!r}; write LABEL=VALUE, e.g. com.docker.compose.project=shop")
        pairs.append((label, value))
    return tuple(pairs)


@dataclass(frozen=True)
class Settings:
    """Everything an agent can be told."""

    docker: EngineAddress = option(
        "unix:///var/run/docker.sock", _parse_engine, "the engine's API, of which only GET is used: unix:///PATH or tcp://HOST:PORT"
    )
    registry: tuple[Url, ...] = option(
        "http://registry:3000", parse_registries, "registry URLs, comma-separated; tried in turn", required=True
    )
    network: str = option(
        "",
        parse_text,
        "network whose addresses are registered; default: the one the agent reaches the registry on, or a container's only one",
    )
    publish: str = option(
        "container", _parse_place, "what is registered: container (its address and port) or host (advertise and the published port)"
    )
    advertise: str = option(
        "",
        parse_host,
        "this host as others reach it, for published ports and the host's network; default: our address towards the registry",
    )
    heartbeat_host: str = option("", parse_host, "the agent as the registry reaches it; default: our address towards the registry")
    registrator: bool = option("yes", parse_switch, "whether SERVICE_NAME and its like, as Registrator has them, are read as well")
    only: tuple[tuple[str, str], ...] = option("", _parse_only, "containers are looked at that have all of these LABEL=VALUE; default: all")
    max_containers: int = option("500", parse_count(1, 5000), "most instances; what is beyond is left out, and a warning tells")
    resync: float = option("30s", parse_time, "time between two looks at everything; between them the engine's events tell")
    check_interval: float = option("1s", parse_time, "time between two checks of a container; its closing a connection is seen at once")
    check_timeout: float = option("1s", parse_time, "time a container has to answer a check")
    zone: str = option("", parse_text, "where this host is, for containers whose labels do not say")
    listen: Address = option("0.0.0.0:7070", parse_address, "HOST:PORT for the registry's heartbeats")
    local: Address = option("127.0.0.1:7071", parse_address, "HOST:PORT for /livez, /readyz, /status and /metrics")
    logs: bool = option("no", parse_switch, "whether the log lines of all these containers are followed and forwarded")
    log_to: str = option("LogService", parse_service, "service to which log lines are forwarded")
    log_join: tuple[str, ...] = option("python,java,go,node", parse_join, "languages whose stack traces become one entry; empty: none")
    state_dir: str = option("/var/lib/pillion", parse_text, "folder for the log spool, used with logs alone; one agent each")
    spool_size: int = option("64M", parse_size, "about the most bytes of log lines kept on disk; beyond half of it no more are asked for")
    token_file: str = option("", parse_text, "file with the shared token")
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")
