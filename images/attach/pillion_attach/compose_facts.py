"""What a compose file says of its services, in either spelling (each key's short or long syntax). Pure: mappings in, facts out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pillion_attach.facts import App, Registry, Token

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
MAX_PORTS = 1000


@dataclass(frozen=True)
class Service:
    """A service: the facts of its app, and what only compose knows of."""

    app: App
    image: str = ""
    copies: int = 1
    everywhere: bool = False
    profiles: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Project:
    """A compose file, with the override compose would read by itself.

    Args:
        files: in the order of compose's -f.
        networks: key -> the engine's name.
        volumes: the keys of its volumes.
        note: a limit of how it was read.
    """

    files: tuple[Path, ...]
    services: Mapping[str, Service] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: frozenset[str] = frozenset()
    note: str = ""

    @property
    def folder(self) -> Path:
        """Return the folder from which compose takes relative paths."""
        return self.files[0].parent


def project_of(data: Mapping[str, Any], files: tuple[Path, ...], note: str = "") -> Project:
    """Return the facts of a compose file's data."""
    name = str(data.get("name") or re.sub(r"[^a-z0-9_-]", "", files[0].parent.name.lower()))
    networks = {"default": f"{name}_default"}
    for key, raw in (data.get("networks") or {}).items():
        networks[key] = str((raw or {}).get("name") or (key if (raw or {}).get("external") else f"{name}_{key}"))
    services = {key: _service(key, raw or {}) for key, raw in (data.get("services") or {}).items()}
    return Project(files, services, networks, frozenset(data.get("volumes") or {}), note)


def registry_in(project: Project, hosts: list[str]) -> Registry | None:
    """Return the registry that is a service of this file, if one of its services answers to the name and is Pillion's."""
    for service in project.services.values():
        if set(hosts) & set(service.hosts) and is_registry(service):
            return Registry(service.app.name, service.hosts, service.app.networks, _token(project, service))
    return None


def is_registry(service: Service) -> bool:
    """Return whether a service runs a registry of Pillion's, as far as its image's name or its environment tells."""
    return "pillion" in service.image or bool({"PILLION_STORE", "PILLION_TOKEN_FILE", "PILLION_LISTEN"} & set(service.app.environ))


def is_sidecar(service: Service) -> bool:
    """Return whether a service runs a sidecar, as far as its image's name tells."""
    return "pillion" in service.image and "sidecar" in service.image


def as_mapping(raw: Any) -> dict[str, str]:
    """Return `[A=1, B]` or `{A: 1, B: null}` as text by name, with `$$` read as `$`; what has no value is left out."""
    if isinstance(raw, list):
        pairs = [str(item).partition("=") for item in raw]
        return {name: value.replace("$$", "$") for name, mark, value in pairs if mark}
    return {str(name): _text(value).replace("$$", "$") for name, value in (raw or {}).items() if value is not None}


def _service(name: str, raw: Mapping[str, Any]) -> Service:
    mode = str(raw.get("network_mode") or "")
    networks = raw.get("networks")
    keys = tuple(networks) if networks else () if mode else ("default",)
    aliases = (
        [alias for entry in networks.values() for alias in (entry or {}).get("aliases") or ()] if isinstance(networks, Mapping) else []
    )
    deploy = raw.get("deploy") or {}
    app = App(
        name,
        labels=as_mapping(raw.get("labels")),
        environ=as_mapping(raw.get("environment")),
        ports=tuple(sorted({*_published(raw.get("ports") or ()), *_exposed(raw.get("expose") or ())})),
        network_mode=mode,
        networks=keys,
    )
    return Service(
        app,
        image=str(raw.get("image") or ""),
        copies=max(_count(raw.get("scale")), _count(deploy.get("replicas"))),
        everywhere=str(deploy.get("mode", "")).startswith("global"),
        profiles=tuple(map(str, raw.get("profiles") or ())),
        hosts=tuple(dict.fromkeys(filter(None, (name, str(raw.get("container_name") or ""), *map(str, aliases))))),
        mounts=tuple(filter(None, map(_mount, raw.get("volumes") or ()))),
    )


def _published(entries: Any) -> list[int]:
    """Return the container's ports of `ports`: `8080:80`, `127.0.0.1:8080:80/tcp`, `3000-3005`, 80, or {target: 80, protocol: tcp}."""
    found: list[int] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            text, protocol = str(entry.get("target", "")), str(entry.get("protocol") or "tcp")
        else:
            text, _, protocol = str(entry).rpartition(":")[2].partition("/")
        found += _numbers(text) if protocol in ("tcp", "") else []
    return found


def _exposed(entries: Any) -> list[int]:
    found: list[int] = []
    for entry in entries:
        text, _, protocol = str(entry).partition("/")
        found += _numbers(text) if protocol in ("tcp", "") else []
    return found


def _numbers(text: str) -> list[int]:
    """Return the numbers of `80` or `3000-3005`; of a text with a variable in it, none."""
    match = _RANGE.fullmatch(text)
    if not match:
        return []
    low, high = int(match[1]), int(match[2] or match[1])
    return list(range(low, min(high, low + MAX_PORTS) + 1))


def _mount(entry: Any) -> tuple[str, str] | None:
    """Return (source, target) of an entry of `volumes`, or None for one without a source."""
    if isinstance(entry, Mapping):
        return (str(entry["source"]), str(entry.get("target", ""))) if entry.get("source") else None
    parts = str(entry).split(":")
    return (parts[0], parts[1]) if len(parts) > 1 else None


def _token(project: Project, registry: Service) -> Token | None:
    path = registry.app.environ.get("PILLION_TOKEN_FILE", "")
    if not path:
        return Token("none")
    for source, target in registry.mounts:
        folder = target.rstrip("/")
        if path == folder:
            return Token("file", source)
        if path.startswith(f"{folder}/"):
            inside = path.removeprefix(f"{folder}/")
            return (
                Token("volume", source, inside, own=True) if source in project.volumes else Token("file", f"{source.rstrip('/')}/{inside}")
            )
    return None


def _count(value: Any) -> int:
    """Return a number of copies; 1 for none, and for a variable that was not filled in."""
    return int(value) if str(value if value is not None else "").isdigit() else 1


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
