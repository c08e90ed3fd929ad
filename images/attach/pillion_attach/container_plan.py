"""What has to be done to attach a sidecar to a running container. Pure: facts in, plan or refusal out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pillion_attach import choice, sidecar_container
from pillion_attach.facts import Container, Registry, Token, Wishes
from pillion_attach.place import Place, choose_place
from pillion_common.errors import ConfigError
from pillion_common.keys import ATTACHED_TO, JOINED_NETWORK


@dataclass(frozen=True)
class Here:
    """What the engine has.

    Args:
        names: of all containers, running or not.
        images, networks, volumes: those asked for that are there.
    """

    names: Collection[str]
    images: Collection[str]
    networks: Collection[str]
    volumes: Collection[str]


@dataclass(frozen=True)
class ContainerPlan:
    """A sidecar to start.

    Args:
        join: the network into which the app's container is put first; None: it is in it, or needs none.
        spool: the volume that is made for its log lines.
        parameters: for the engine, see sidecar_container.engine_parameters.
        mounts: each with `type`, `source`, `target`, `read_only`.
        settled: option -> text, for the user.
    """

    app: str
    sidecar: str
    join: str | None
    spool: str
    parameters: Mapping[str, Any]
    mounts: Sequence[Mapping[str, Any]]
    settled: Mapping[str, str]
    notes: tuple[str, ...] = ()


def wanted(wishes: Wishes, container: Container, found: Sequence[Registry]) -> tuple[str | None, str | None]:
    """Return the names of the network and of the token's volume that the plan needs, so that they can be looked for.

    Raises:
        ConfigError: where the registry is cannot be told.
    """
    place = choose_place(wishes, found, container.app.networks)
    return place.network, place.token.source if place.token.kind == "volume" else None


def plan(container: Container, wishes: Wishes, found: Sequence[Registry], here: Here) -> ContainerPlan:
    """Plan a sidecar for a container.

    Raises:
        ConfigError: with every refusal at once, each with what to do instead.
    """
    app = container.app
    settled, faults = choice.settle(app, dict(wishes.keys))
    faults += _refusals(container, settled.get("port", ""))
    place = choose_place(wishes, found, app.networks)
    name = sidecar_name(app.name)
    faults += _missing(container, wishes, place, here)
    if faults:
        raise ConfigError(faults)
    join = place.network if place.network and place.network not in app.networks else None
    labels = {ATTACHED_TO: app.name, **({JOINED_NETWORK: join} if join else {})}
    env = sidecar_container.environment(settled, wishes.registry, place.token)
    spool = f"{name}-spool"
    return ContainerPlan(
        app.name,
        name,
        join,
        spool,
        sidecar_container.engine_parameters(name, container.id, wishes.image, env, labels),
        _mounts(spool, place.token),
        settled,
        tuple(filter(None, (place.note, _about_compose(container)))),
    )


def sidecar_name(app: str) -> str:
    """Return the name of a container's sidecar."""
    return f"{app}-sidecar"


def _missing(container: Container, wishes: Wishes, place: Place, here: Here) -> list[str]:
    """Return what stands in the way on this engine, or is not there."""
    app, name, faults = container.app.name, sidecar_name(container.app.name), []
    if not container.beside and name in here.names:
        faults.append(
            f"there is a container {name} already: if an earlier {app} left it, `pillion detach {app}` removes it; else rename it"
        )
    if wishes.image not in here.images:
        faults.append(f"the image {wishes.image} is not on this machine: {_how_to_get(wishes.image)}")
    if place.network and place.network not in here.networks:
        faults.append(
            f"there is no network {place.network} for the registry to be in: start it (scripts/up), or say --network or --registry"
        )
    token = place.token
    if token.kind == "volume" and token.source not in here.volumes:
        faults.append(
            f"there is no volume {token.source} with the token: start the registry (scripts/up), or say --token-volume or --token-file"
        )
    return faults


def _refusals(container: Container, port: str) -> list[str]:
    app = container.app
    if container.beside:
        return [f"{app.name} has a sidecar already, the container {container.beside}: to make it anew, first `pillion detach {app.name}`"]
    faults = choice.place_faults(app, container.neighbour_ports, port)
    if container.status != "running":
        first = {"paused": "docker unpause", "restarting": "docker logs"}.get(container.status, "docker start")
        faults.append(f"{app.name} is not running, it is {container.status}: {first} {app.name}")
    return faults


def _how_to_get(image: str) -> str:
    if sidecar_container.made_here(image):
        return "build it with `docker compose -f compose/dev.yml build log-sidecar` in Pillion's folder"
    return f"docker pull {image}"


def _mounts(spool: str, token: Token) -> list[dict[str, Any]]:
    mounts = [{"type": "volume", "source": spool, "target": sidecar_container.STATE_DIR, "read_only": False}]
    if token.kind == "volume":
        mounts.append({"type": "volume", "source": token.source, "target": sidecar_container.TOKEN_DIR, "read_only": True})
    elif token.kind == "file":
        target = f"{sidecar_container.TOKEN_DIR}/{token.file}"
        mounts.append({"type": "bind", "source": str(Path(token.source).absolute()), "target": target, "read_only": True})
    return mounts


def _about_compose(container: Container) -> str:
    if not container.project:
        return ""
    return (
        f"{container.app.name} was made by Compose, which does not know this sidecar: when Compose makes the container anew, attach again. "
        f"For good: pillion attach compose FILE {container.app.service}"
    )
