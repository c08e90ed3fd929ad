"""What has to be added to a compose project to attach sidecars to some of its services. Pure: facts in, plan or refusal out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pillion_attach import choice, sidecar_container
from pillion_attach.compose_facts import Project, Service, is_registry, is_sidecar, registry_in
from pillion_attach.facts import Registry, Token, Wishes
from pillion_attach.place import Place, choose_place, registry_hosts
from pillion_common.errors import ConfigError
from pillion_common.key_values import name_of, nearest

NETWORK_KEY = "pillion"
TOKEN_KEY = "pillion-token"


@dataclass(frozen=True)
class Attachment:
    """One service and its sidecar, as they go into the override file.

    Args:
        app_networks: what the app's `networks` must have; empty: the app needs none.
        networks, volumes: what must be declared at the top, by key.
        settled: option -> text, for the user.
    """

    app: str
    sidecar: str
    body: dict[str, Any]
    settled: Mapping[str, str]
    app_networks: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    volumes: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What the override file has already: key -> the engine's name of its networks and volumes; app -> option -> text of its sidecar."""

    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    attached: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def plan(project: Project, names: Sequence[str], wishes: Wishes, found: Sequence[Registry], declared: Declared) -> list[Attachment]:
    """Plan sidecars for services.

    Args:
        names: the services.
        found: the registries that run here.
        declared: what earlier runs have written.

    Raises:
        ConfigError: with every refusal at once, each with what to do instead.
    """
    if len(names) > 1 and {"name", "port"} & set(wishes.keys):
        raise ConfigError(["--name and --port are for one service at a time; use the labels pillion.dev/name and pillion.dev/port instead"])
    faults: list[str] = []
    attachments: list[Attachment] = []
    for name in dict.fromkeys(names):
        service = project.services.get(name)
        if service is None:
            faults.append(f"{project.files[0]} has no service {name!r}{nearest(name, project.services)}")
            continue
        app = replace(service.app, attached=declared.attached.get(name, {}))
        settled, wrong = choice.settle(app, dict(wishes.keys))
        wrong += _refusals(project, service, settled.get("port", ""))
        if not wrong:
            try:
                attachments.append(_attachment(project, service, settled, wishes, found, declared))
                declared = replace(declared, networks=_with(declared.networks, attachments[-1].networks))
            except ConfigError as exc:
                wrong = [f"{name}: {fault}" for fault in exc.faults]
        faults += wrong
    faults += _same_names(attachments)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return attachments


def _refusals(project: Project, service: Service, port: str) -> list[str]:
    """Return why this service cannot have a sidecar in this file."""
    app, sidecar = service.app, sidecar_name(service.app.name)
    others = [one for one in project.services.values() if one.app.network_mode == f"service:{app.name}"]
    with_sidecar = [one.app.name for one in others if is_sidecar(one)]
    if with_sidecar:
        return [f"{app.name} has a sidecar in the file itself already: {with_sidecar[0]}"]
    faults = choice.place_faults(app, (number for one in others for number in one.app.ports), port)
    if service.copies > 1 or service.everywhere:
        copies = "one copy on each machine (deploy.mode: global)" if service.everywhere else f"{service.copies} copies"
        faults.append(
            f"{app.name} runs in {copies}, and a sidecar of compose can stand beside one only: "
            "run `pillion agent`, which looks after each copy, or let it run once"
        )
    if sidecar in project.services:
        faults.append(f"{app.name}'s sidecar would be called {sidecar}, and the file has a service of that name: rename that one")
    return faults


def _attachment(
    project: Project, service: Service, settled: dict[str, str], wishes: Wishes, found: Sequence[Registry], declared: Declared
) -> Attachment:
    app = service.app
    hosts = registry_hosts(wishes.registry)
    inside = registry_in(project, hosts) if wishes.network is None else None
    if inside:
        place, network_keys = _place_inside(inside, wishes, app.networks)
    else:
        _refuse_other_registry(project, hosts, found)
        place = choose_place(wishes, found, [project.networks.get(key, key) for key in app.networks])
        network_keys = _network_keys(place.network, app.networks, {**project.networks, **declared.networks})
    if network_keys and app.network_mode:
        raise ConfigError(
            [f"it has network_mode: {app.network_mode}, so it cannot join the registry's network {place.network}: remove that line"]
        )
    token_entry, volumes = _token_volume(place.token, project, declared)
    spool = f"{app.name}-sidecar-spool"
    env = sidecar_container.environment(settled, wishes.registry, place.token)
    body = sidecar_container.compose_service(app.name, wishes.image, env, spool, token_entry)
    if inside:
        body["depends_on"] = {inside.container: {"condition": "service_started"}}
    if service.profiles:
        body["profiles"] = list(service.profiles)
    own = [key for key in network_keys if key in project.networks]
    return Attachment(
        app.name,
        sidecar_name(app.name),
        body,
        settled,
        app_networks=({"default": {}} if app.networks == ("default",) and network_keys else {}) | {key: {} for key in network_keys},
        networks={key: {"name": place.network, "external": True} for key in network_keys if key not in own},
        volumes={spool: {}, **volumes},
        notes=tuple(filter(None, (place.note,))),
    )


def sidecar_name(app: str) -> str:
    """Return the name of an app's sidecar."""
    return f"{app}-sidecar"


def _place_inside(inside: Registry, wishes: Wishes, app_networks: tuple[str, ...]) -> tuple[Place, list[str]]:
    """Return the place of a registry that is a service of the same file, and the network the app has to join, by its key there."""
    token = wishes.token or inside.token
    if token is None:
        raise ConfigError(
            [f"the token of the service {inside.container} was not found: say where it is, with --token-volume or --token-file"]
        )
    if not inside.networks:
        raise ConfigError([f"the registry {inside.container} has no network of its own in this file: say where it is, with --registry"])
    joined = set(inside.networks) & set(app_networks)
    note = f"the registry is the service {inside.container} of the same file, its token {token}"
    return Place(None, token, note), [] if joined else [inside.networks[0]]


def _refuse_other_registry(project: Project, hosts: Iterable[str], found: Sequence[Registry]) -> None:
    """A service that is called like the registry, but is none, would be asked in its place."""
    for service in project.services.values():
        taken = set(hosts) & set(service.hosts)
        if taken and not is_registry(service):
            other = found[0].container if found else "NAME-OF-ITS-CONTAINER"
            raise ConfigError(
                [
                    f"the file has a service {service.app.name}, not Pillion's, that answers to {taken.pop()}: say --registry http://{other}:3000"
                ]
            )


def _network_keys(network: str | None, app_networks: tuple[str, ...], known: Mapping[str, str]) -> list[str]:
    """Return the key of the network the app has to join, if it is not in it."""
    if network is None or any(known.get(key) == network for key in app_networks):
        return []
    return [_key(NETWORK_KEY, network, known)]


def _token_volume(token: Token, project: Project, declared: Declared) -> tuple[Any, dict[str, Any]]:
    """Return the entry of `volumes` that holds the token, and what has to be declared for it."""
    if token.kind == "none":
        return None, {}
    if token.kind == "file":
        source = _from_folder(Path(token.source), project.folder)
        target = f"{sidecar_container.TOKEN_DIR}/{token.file}"
        return {"type": "bind", "source": source, "target": target, "read_only": True, "bind": {"create_host_path": False}}, {}
    if token.own:
        return f"{token.source}:{sidecar_container.TOKEN_DIR}:ro", {}
    key = _key(TOKEN_KEY, token.source, {**dict.fromkeys(project.volumes, ""), **declared.volumes})
    return f"{key}:{sidecar_container.TOKEN_DIR}:ro", {key: {"name": token.source, "external": True}}


def _key(wanted: str, name: str, known: Mapping[str, str]) -> str:
    """Return the key under which a network or volume of the engine is known, else one that is free."""
    for key, there in known.items():
        if there == name:
            return key
    number = 1
    while (key := wanted if number == 1 else f"{wanted}-{number}") in known:
        number += 1
    return key


def _from_folder(path: Path, folder: Path) -> str:
    """Return a path as it reads in a compose file: relative where it lies in the file's folder."""
    whole, base = path.absolute(), folder.absolute()
    return f"./{whole.relative_to(base)}" if whole.is_relative_to(base) else str(whole)


def _with(known: Mapping[str, str], new: Mapping[str, Any]) -> dict[str, str]:
    return {**known, **{key: str(value["name"]) for key, value in new.items()}}


def _same_names(attachments: Sequence[Attachment]) -> list[str]:
    """Two services may share a name, being two instances of one; but only if that was said, not if it was made of both."""
    seen: dict[str, str] = {}
    faults = []
    for one in attachments:
        name = one.settled["name"]
        other = seen.setdefault(name, one.app)
        if other != one.app and name_of(one.app) == name and name_of(other) == name:
            faults.append(f"{other} and {one.app} would both be called {name}: give one of them the label pillion.dev/name")
    return faults
