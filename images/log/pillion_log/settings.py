"""The log service's options (one table; see pillion_common.config)."""

from __future__ import annotations

from dataclasses import dataclass

from pillion_common.config import (
    Address,
    Network,
    option,
    parse_address,
    parse_level,
    parse_networks,
    parse_size,
    parse_switch,
    parse_text,
    parse_time,
)
from pillion_common.networks import EVERYWHERE

PROGRAM = "log"
DESCRIPTION = "Collects the log lines of every service, and finds them again."

MIN_ROTATE_BYTES = 64 * 1024
MIN_RETAINED_BYTES = 256 * 1024
SYNC_MODES = ("always", "interval", "os")


def parse_syslog(text: str) -> Address | None:
    """Return where to take syslog in; None for an empty text."""
    return parse_address(text) if text else None


def parse_rotate(text: str) -> int:
    """Return the size of a file in bytes."""
    size = parse_size(text)
    if size < MIN_ROTATE_BYTES:
        raise ValueError("is less than 64K")
    return size


def parse_retained(text: str) -> int:
    """Return how many bytes are kept."""
    size = parse_size(text)
    if size < MIN_RETAINED_BYTES:
        raise ValueError("is less than 256K")
    return size


def parse_sync(text: str) -> str:
    """Return when an entry is acknowledged."""
    if text not in SYNC_MODES:
        raise ValueError(f"is not one of {', '.join(SYNC_MODES)}")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything the log service can be told."""

    listen: Address = option("0.0.0.0:4000", parse_address, "HOST:PORT to listen on")
    log_syslog: Address | None = option(
        "",
        parse_syslog,
        "HOST:PORT to take syslog in on, over TCP and UDP, such as 0.0.0.0:5514; empty: none. Syslog shows no token: with one set, "
        "only the classic networks may send",
    )
    store: str = option(
        "files:log-data",
        parse_text,
        "where entries are kept: files:DIR, nats://HOST:PORT,HOST:PORT,HOST:PORT (JetStream; several log services may share it) or memory:",
        required=True,
    )
    store_token_file: str = option("", parse_text, "file with the token that the NATS servers ask for; empty where they ask for none")
    token_file: str = option("", parse_text, "file with the shared token; without it everybody may write; reading is open to all")
    classic_networks: tuple[Network, ...] = option(
        "",
        parse_networks,
        "networks whose clients may write without the token, as classic clients do, comma-separated; "
        "all while no token is set, none once one is",
    )
    log_rotate: int = option("64M", parse_rotate, "size at which a file of the log ends and a new one begins")
    log_rotate_age: float = option("1d", parse_time, "age at which a file of the log ends and a new one begins")
    log_max_bytes: int = option(
        "10G",
        parse_retained,
        "how much of the disk the log may take, at most 80 % of the file system, or of each NATS server's; the oldest entries are removed",
    )
    log_max_age: float = option("30d", parse_time, "how long an entry is kept; files with nothing but older ones are removed")
    log_compress: bool = option("yes", parse_switch, "pack files that do not grow any more (zstd)")
    log_sync: str = option(
        "always", parse_sync, "when an entry is acknowledged: always (it is on the disk), interval (it will soon be), os (it is written)"
    )
    log_sync_interval: float = option("1s", parse_time, "with --log-sync interval: how long an acknowledged entry may not be on the disk")
    log_current: bool = option("no", parse_switch, "write current.log beside the log, in the classic format: [Service] - message")
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")

    def exempt_networks(self) -> tuple[Network, ...]:
        """Return the networks whose clients need no token."""
        return self.classic_networks if self.token_file else EVERYWHERE
