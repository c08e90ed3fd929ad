"""The sidecar's options (one table; see pillion_common.config). `pillion run` takes the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pillion_common.config import (
    Address,
    option,
    parse_address,
    parse_count,
    parse_duration,
    parse_level,
    parse_names,
    parse_size,
    parse_switch,
    parse_text,
    parse_time,
)
from pillion_common.errors import InvalidInput
from pillion_common.names import Url, check_name, is_address, is_host, parse_url

PROGRAM = "sidecar"
DEFAULT_STRATEGIES = ("random", "round-robin", "weighted", "least-recent", "zone")  # hash needs a key with each look-up
DESCRIPTION = "Stands beside one app: registers it, watches it, finds what it requires, and forwards its log lines."
JOINED = ("python", "java", "go", "node")  # of whom traces can be joined
SYNCS = ("os", "interval", "always")
PROJECT_DIR = "/run/pillion"
MAX_DOMAIN_CHARS = 60  # so that the longest question and the answer that there is nothing fit into 512 bytes

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class Check(NamedTuple):
    """How to tell whether the app is well: kind `tcp`, `http` (with a path), `exec` (with a command) or `none`.

    As text it is shown to everybody, so a command's arguments, which may hold a secret, are left out.
    """

    kind: str
    path: str = ""
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        return {"http": f"http:{self.path}", "exec": f"exec:{''.join(self.command[:1])}"}.get(self.kind, self.kind)


def _parse_check(text: str) -> Check:
    if text in ("tcp", "none"):
        return Check(text)
    if text.startswith("http:/") and not text.startswith("http://") and parse_url(f"http://app{text[5:]}", "check"):
        return Check("http", text[5:])
    if text.startswith("exec:") and "\0" not in text and (command := _split(text[5:])):
        return Check("exec", command=command)
    raise ValueError("is not a check; use tcp, none, http:/path or exec:COMMAND")


def _split(text: str) -> tuple[str, ...]:
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise ValueError(f"is not a command: {str(exc).lower()}") from exc


def _parse_statuses(text: str) -> tuple[tuple[int, int], ...]:
    """Return pairs of lowest and highest, of `200-299,401`."""
    statuses = []
    for part in parse_names(text):
        low, _, high = part.partition("-")
        high = high or low
        if not (low.isdigit() and high.isdigit() and 100 <= int(low) <= int(high) <= 599):
            raise ValueError(f"has {part!r}; write statuses like 200 or 200-299")
        statuses.append((int(low), int(high)))
    if not statuses:
        raise ValueError("names no status; write 200-399")
    return tuple(statuses)


def parse_service(text: str) -> str:
    """Return the name of a service, or nothing.

    Raises:
        InvalidInput: it is none.
    """
    return check_name(text, "name") if text else text


def parse_registries(text: str) -> tuple[Url, ...]:
    """Return registry URLs.

    Raises:
        ValueError: one has a path. InvalidInput: one is no URL.
    """
    urls = tuple(parse_url(part, "registry") for part in parse_names(text))
    if any(url.target != "/" for url in urls):
        raise ValueError("has a path; write http://HOST:PORT")
    return urls


def parse_requires(text: str) -> dict[str, int]:
    """Return name -> how many providers are needed, of `LogService,Db:2,Cache?`; 0 of what the app can do without.

    Raises:
        ValueError: it is not of that form. InvalidInput: a name is none.
    """
    needs = {}
    for part in parse_names(text):
        name, colon, count = part.partition(":")
        optional = not colon and name.endswith("?")
        if count and (not count.isdigit() or not 1 <= int(count) <= 1000):
            raise ValueError(f"has {part!r}; write Name, Name:COUNT or Name?")
        needs[check_name(name.removesuffix("?") if optional else name, "requires")] = 0 if optional else int(count or 1)
    return needs


def _parse_strategy(text: str) -> str:
    if text not in DEFAULT_STRATEGIES:
        raise ValueError(f"is not a strategy; use one of {', '.join(DEFAULT_STRATEGIES)}")
    return text


def _parse_dns(text: str) -> Address | None:
    if not text:
        return None
    address = parse_address(text)
    if not is_address(address.host):
        raise ValueError("is not IP:PORT; a resolver is named by its address, for example 127.0.0.1:5300")
    return address


def _parse_domain(text: str) -> str:
    labels = text.rstrip(".").split(".")
    if len(text) > MAX_DOMAIN_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"is not a domain of up to {MAX_DOMAIN_CHARS} characters, for example pillion")
    return ".".join(labels).lower()


def _parse_syslog(text: str) -> Address | None:
    return parse_address(text) if text else None


def _parse_sync(text: str) -> str:
    if text not in SYNCS:
        raise ValueError(f"is not one of {', '.join(SYNCS)}")
    return text


def parse_join(text: str) -> tuple[str, ...]:
    """Return names of languages.

    Raises:
        ValueError: one is none of those whose traces can be joined.
    """
    names = parse_names(text)
    for name in names:
        if name not in JOINED:
            raise ValueError(f"has {name!r}; there are {', '.join(JOINED)}")
    return names


def _parse_globs(text: str) -> tuple[str, ...]:
    globs = parse_names(text)
    for one in globs:
        if not one.startswith("/"):
            raise ValueError(f"has {one!r}, which is not an absolute path; write /var/log/app/*.log")
    return globs


def parse_host(text: str) -> str:
    """Return a host name or an IP address, or nothing.

    Raises:
        InvalidInput: it is neither.
    """
    if text and not is_host(text):
        raise InvalidInput("is not a host name or an IP address")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything a sidecar can be told."""

    name: str = option("", parse_service, "the app's service name (OTEL_SERVICE_NAME serves as well)", required=True)
    port: int = option("", parse_count(1, 65535), "the app's port", required=True)
    host: str = option("127.0.0.1", parse_host, "the app's host as the sidecar dials it")
    registry: tuple[Url, ...] = option(
        "http://registry:3000", parse_registries, "registry URLs, comma-separated; tried in turn", required=True
    )
    requires: dict[str, int] = option("", parse_requires, "services the app requires, comma-separated; Db:2 is two, Cache? may be missing")
    check: Check = option("tcp", _parse_check, "how to tell whether the app is well: tcp, http:/path, exec:COMMAND or none")
    check_status: tuple[tuple[int, int], ...] = option("200-399", _parse_statuses, "what an http check is to be answered, e.g. 200-299,401")
    check_interval: float = option("1s", parse_time, "time between two checks of the app; its closing a connection is seen at once")
    check_timeout: float = option("1s", parse_time, "time the app has to answer a check")
    check_rise: int = option("1", parse_count(1, 100), "checks in a row that must pass before the app is up")
    check_fall: int = option("1", parse_count(1, 100), "checks in a row that must fail before it is down; a refused connection is enough")
    check_grace: float = option("30s", parse_duration, "time the app has to come up before it is called down instead of starting")
    listen: Address = option("0.0.0.0:7070", parse_address, "HOST:PORT for the registry's heartbeats and patches")
    local: Address = option("127.0.0.1:7071", parse_address, "HOST:PORT for the app itself")
    advertise: str = option("", parse_host, "host under which others reach the app; default: our address on the route to the registry")
    state_dir: str = option("/var/lib/pillion", parse_text, "folder for the log spool; one sidecar each", required=True)
    spool_size: int = option("64M", parse_size, "most bytes of log lines kept on disk; beyond it the oldest are dropped, and a line tells")
    project_dir: str = option(
        PROJECT_DIR, parse_text, "folder, if it is there, for files with the providers: providers/NAME and others; empty: none"
    )
    dns: Address | None = option("", _parse_dns, "IP:PORT to answer DNS on, over UDP and TCP, such as 127.0.0.1:5300; empty: none")
    dns_zone: str = option("pillion", _parse_domain, "domain under which DNS tells of the services")
    spool_sync: str = option(
        "os",
        _parse_sync,
        "when lines are brought to the disk itself, against power cuts: always (before an answer), interval (each second), or os",
    )
    log_to: str = option("LogService", parse_service, "service to which log lines are forwarded; empty: none")
    log_gzip: bool = option("no", parse_switch, "whether log lines are forwarded packed: worth it where the network is slow or costs")
    log_files: tuple[str, ...] = option("", _parse_globs, "files whose lines are taken, comma-separated globs: /var/log/app/*.log")
    log_join: tuple[str, ...] = option(
        "python,java,go,node", parse_join, "languages whose stack traces in files and output become one entry; empty: none"
    )
    log_output: bool = option("yes", parse_switch, "whether the output of a `pillion run` command is taken, besides being shown")
    syslog: Address | None = option("", _parse_syslog, "HOST:PORT to take syslog on, over UDP and TCP, such as 127.0.0.1:5514; empty: none")
    pod: str = option("", parse_text, "the pod's name, told with each log line (the chart and inject set it)")
    token_file: str = option("", parse_text, "file with the shared token")
    version: str = option("", parse_text, "the app's version, told to those who look it up")
    zone: str = option("", parse_text, "where the app runs")
    weight: int = option("1", parse_count(1, 1000), "the app's share among its like")
    tags: tuple[str, ...] = option("", parse_names, "words to filter by, comma-separated")
    strategy: str = option("random", _parse_strategy, "how a look-up chooses that names no strategy: random, round-robin, weighted, ...")
    wait: bool = option("no", parse_switch, "whether /readyz stays 503 until the required services are there")
    drain_timeout: float = option("5s", parse_duration, "longest wait, when stopping, until all dependents know that the app leaves")
    drain_grace: float = option("1s", parse_duration, "time left to requests in flight once they know; none if nobody depends on the app")
    outlive: float = option("0s", parse_duration, "longest stay, when stopping, while the app still serves (pods stop both at once)")
    end_with_app: float = option("0s", parse_duration, "end once the app was well and has been gone for this long (for jobs); 0 never ends")
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")

    def needs(self, undeclared: tuple[str, ...] = ()) -> dict[str, int]:
        """Return how many are needed of the names for which it is not one: 0 of what the app can do without, its log service among it."""
        wanted = {**dict.fromkeys((*self.all_required, *undeclared), 0), **self.requires}
        return {name: count for name, count in wanted.items() if count != 1}

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
