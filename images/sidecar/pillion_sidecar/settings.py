"""The sidecar's options (one table; see pillion_common.config). `pillion run` takes the same."""

from __future__ import annotations

from collections.abc import Mapping
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
    parse_text,
    parse_time,
)
from pillion_common.errors import InvalidInput
from pillion_common.names import Url, check_name, is_host, parse_url

PROGRAM = "sidecar"
DESCRIPTION = "Stands beside one app: registers it, watches it, finds what it requires, and forwards its log lines."


class Check(NamedTuple):
    """How to tell whether the app is well: kind `tcp`, `http` (with a path) or `none`."""

    kind: str
    path: str = ""


def _parse_check(text: str) -> Check:
    if text in ("tcp", "none"):
        return Check(text)
    if text.startswith("http:/") and not text.startswith("http://") and parse_url(f"http://app{text[5:]}", "check"):
        return Check("http", text[5:])
    raise ValueError("is not a check; use tcp, none, or http:/path")


def _parse_name(text: str) -> str:
    return check_name(text, "name") if text else text


def _parse_registries(text: str) -> tuple[Url, ...]:
    urls = tuple(parse_url(part, "registry") for part in parse_names(text))
    if any(url.target != "/" for url in urls):
        raise ValueError("has a path; write http://HOST:PORT")
    return urls


def _parse_requires(text: str) -> dict[str, int]:
    """Return name -> how many providers are needed, of `LogService,Db:2`."""
    needs = {}
    for part in parse_names(text):
        name, _, count = part.partition(":")
        if count and (not count.isdigit() or not 1 <= int(count) <= 1000):
            raise ValueError(f"has {part!r}; write Name or Name:COUNT")
        needs[check_name(name, "requires")] = int(count or 1)
    return needs


def _parse_host(text: str) -> str:
    if text and not is_host(text):
        raise InvalidInput("is not a host name or an IP address")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything a sidecar can be told."""

    name: str = option("", _parse_name, "the app's service name (OTEL_SERVICE_NAME serves as well)", required=True)
    port: int = option("", parse_count(1, 65535), "the app's port", required=True)
    host: str = option("127.0.0.1", _parse_host, "the app's host as the sidecar dials it")
    registry: tuple[Url, ...] = option(
        "http://registry:3000", _parse_registries, "registry URLs, comma-separated; tried in turn", required=True
    )
    requires: dict[str, int] = option("", _parse_requires, "services the app requires, comma-separated; Db:2 means two of it")
    check: Check = option("tcp", _parse_check, "how to tell whether the app is well: tcp, http:/path or none")
    check_interval: float = option("1s", parse_time, "time between two checks of the app; its closing a connection is seen at once")
    check_timeout: float = option("1s", parse_time, "time the app has to answer a check")
    listen: Address = option("0.0.0.0:7070", parse_address, "HOST:PORT for the registry's heartbeats and patches")
    local: Address = option("127.0.0.1:7071", parse_address, "HOST:PORT for the app itself")
    advertise: str = option("", _parse_host, "host under which others reach the app; default: our address on the route to the registry")
    state_dir: str = option("/var/lib/pillion", parse_text, "folder for the log spool; one sidecar each", required=True)
    spool_size: int = option("64M", parse_size, "most bytes of log lines kept on disk; beyond it the oldest are dropped, and a line tells")
    log_to: str = option("LogService", _parse_name, "service to which log lines are forwarded; empty: none")
    token_file: str = option("", parse_text, "file with the shared token")
    version: str = option("", parse_text, "the app's version, told to those who look it up")
    zone: str = option("", parse_text, "where the app runs")
    weight: int = option("1", parse_count(1, 1000), "the app's share among its like")
    tags: tuple[str, ...] = option("", parse_names, "words to filter by, comma-separated")
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")

    @property
    def all_required(self) -> tuple[str, ...]:
        """Return the names to ask the registry for: what the app requires, and where its log lines go."""
        names = dict.fromkeys(self.requires)
        if self.log_to and self.log_to != self.name:
            names[self.log_to] = None
        return tuple(names)


def with_fallbacks(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the names others have given to what Pillion calls otherwise."""
    given = dict(environ)
    if not given.get("PILLION_NAME") and given.get("OTEL_SERVICE_NAME"):
        given["PILLION_NAME"] = given["OTEL_SERVICE_NAME"]
    return given
