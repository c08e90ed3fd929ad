"""The registry's options (one table; see pillion_common.config)."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from pillion_common.config import (
    Address,
    Network,
    option,
    parse_address,
    parse_count,
    parse_level,
    parse_networks,
    parse_share,
    parse_size,
    parse_text,
    parse_time,
)
from pillion_common.names import check_name
from pillion_common.networks import EVERYWHERE, LOOPBACK, PRIVATE, within

PROGRAM = "registry"
DESCRIPTION = "Keeps the catalogue of services, checks them, and tells each what it requires."


def parse_service(text: str) -> str:
    """Return a service's name, or an empty text."""
    return check_name(text, "name") if text else text


def parse_member(text: str) -> str:
    """Return a member's name, or an empty text."""
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", text):
        raise ValueError("is not a name of up to 40 letters, digits, - and _")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything the registry can be told."""

    listen: Address = option("0.0.0.0:3000", parse_address, "HOST:PORT to listen on")
    store: str = option(
        "sqlite:registry.db", parse_text, "where the catalogue is kept: sqlite:PATH, memory: or nats://HOST:PORT,…", required=True
    )
    store_token_file: str = option("", parse_text, "file with the token that the NATS servers ask for; empty where they ask for none")
    member: str = option("", parse_member, "name of this registry among those that share a catalogue in NATS; default: the host's")
    token_file: str = option("", parse_text, "file with the shared token; without it everybody may register")
    classic_networks: tuple[Network, ...] = option(
        "", parse_networks, "networks whose clients need no token, comma-separated; all while no token is set, none once one is"
    )
    targets: tuple[Network, ...] = option(
        "",
        parse_networks,
        "networks in which heartbeat and update URLs may lie besides the registrant's own address; default: the private ones",
    )
    heartbeat_interval: float = option("3s", parse_time, "time between two checks of an instance")
    heartbeat_timeout: float = option("2s", parse_time, "time an instance has to answer a check or a patch")
    heartbeat_misses: int = option(
        "2", parse_count(1, 10), "time-outs in a row that make an instance down; a refused connection does at once"
    )
    guard_share: float = option(
        "0.5",
        parse_share,
        "share of a service's instances (4 or more) that time out at once, from which on they are kept: it is likelier the network; 0: off",
    )
    guard_time: float = option("60s", parse_time, "most time for which the guard keeps an instance that does not answer")
    flap_changes: int = option(
        "6", parse_count(0, 100), "changes of an instance within a minute that are borne; one more and it is held down a while; 0: any"
    )
    forget_after: float = option("1h", parse_time, "time after which an instance that stays down is forgotten")
    drain_timeout: float = option("5s", parse_time, "most time a drain waits for its dependents, if the request does not say")
    journal_size: int = option("64M", parse_size, "most bytes of events kept beside the store, about; the oldest go first")
    journal_age: float = option("7d", parse_time, "how long events are kept")
    max_instances: int = option("20000", parse_count(1, 1_000_000), "most instances the registry takes in")
    log_to: str = option("LogService", parse_service, "service whose providers are sent what happens here, as log entries; empty: none")
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")

    def allowed_targets(self) -> tuple[Network, ...]:
        """Return the networks of PILLION_TARGETS, or the default: private ones, and loopback where the registry itself is on loopback."""
        if self.targets:
            return self.targets
        on_loopback = self.listen.host == "localhost" or within(self.listen.host, LOOPBACK)
        return PRIVATE + LOOPBACK if on_loopback else PRIVATE

    def journal_path(self) -> Path | None:
        """Return the file for events, beside the store's own: registry-events.db beside registry.db; None for one in memory."""
        kind, _, rest = self.store.partition(":")
        return Path(rest).with_name(f"{Path(rest).stem}-events.db") if kind == "sqlite" and rest not in ("", ":memory:") else None

    def member_name(self) -> str:
        """Return this registry's name among those that share a catalogue."""
        return self.member or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40]

    def exempt_networks(self) -> tuple[Network, ...]:
        """Return the networks whose clients need no token."""
        return self.classic_networks if self.token_file else EVERYWHERE
