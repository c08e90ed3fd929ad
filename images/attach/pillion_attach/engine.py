"""The container engine, by the Docker SDK: finds registries and apps, starts and removes sidecars. Its errors become PillionError here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount

from pillion_attach.facts import App, Container, Registry, Token
from pillion_attach.sidecar_container import COMPOSE_MADE, COMPOSE_PROJECT, COMPOSE_SERVICE
from pillion_common.errors import PillionError
from pillion_common.keys import ATTACHED_TO

CALL_S = 30.0
REGISTRY_TITLE = "org.opencontainers.image.title=pillion-registry"
TAIL_LINES = 20
_PLAIN_NETWORKS = ("bridge", "host", "none")


class Engine:
    """One engine."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def registries(self) -> list[Registry]:
        """Return the registries that run here."""
        with translated("look for a registry"):
            found = self._client.containers.list(filters={"label": REGISTRY_TITLE}, ignore_removed=True)
            return [_registry(one.attrs) for one in found]

    def names(self) -> list[str]:
        """Return the names of all containers, running or not."""
        with translated("list the containers"):
            return [name.lstrip("/") for one in self._client.api.containers(all=True) for name in one.get("Names") or ()]

    def container(self, word: str) -> Container | None:
        """Return a container by its name or id, or None."""
        with translated(f"look at the container {word}"):
            try:
                attrs = self._client.containers.get(word).attrs
            except NotFound:
                return None
            mode = attrs["HostConfig"]["NetworkMode"]
            if mode.startswith("container:"):
                mode = f"container:{self._name_of(mode.removeprefix('container:'))}"
            others = [one.attrs for one in self._client.containers.list(all=True, ignore_removed=True)]
        beside = [one for one in others if one["HostConfig"]["NetworkMode"] == f"container:{attrs['Id']}"]
        sidecars = [one for one in beside if _is_sidecar(one)]
        return Container(
            _app(attrs, mode),
            attrs["Id"],
            attrs["State"]["Status"],
            project=_of_compose(attrs, COMPOSE_PROJECT),
            beside=_name(sidecars[0]) if sidecars else "",
            neighbour_ports=tuple(port for one in beside for port in _ports(one)),
        )

    def sidecar_of(self, app: str) -> dict[str, Any] | None:
        """Return what the engine knows of the sidecar that was attached to an app by this command, or None."""
        with translated(f"look for the sidecar of {app}"):
            found = self._client.containers.list(all=True, filters={"label": f"{ATTACHED_TO}={app}"}, ignore_removed=True)
            return dict(found[0].attrs) if found else None

    def network_names(self) -> set[str]:
        """Return the names of all networks."""
        with translated("list the networks"):
            return {str(one.name) for one in self._client.networks.list()}

    def has_image(self, name: str) -> bool:
        """Return whether an image is here."""
        return self._has(self._client.images, name)

    def has_network(self, name: str) -> bool:
        """Return whether a network is here."""
        return self._has(self._client.networks, name)

    def has_volume(self, name: str) -> bool:
        """Return whether a volume is here."""
        return self._has(self._client.volumes, name)

    def join(self, network: str, container: str) -> None:
        """Put a container into a network."""
        with translated(f"put {container} into the network {network}"):
            self._client.networks.get(network).connect(container)

    def leave(self, network: str, container: str) -> None:
        """Take a container out of a network; one that is not in it, or gone, is fine."""
        with translated(f"take {container} out of the network {network}"), _gone_is_fine():
            self._client.networks.get(network).disconnect(container, force=True)

    def make_volume(self, name: str, labels: dict[str, str]) -> None:
        """Make a volume; one that is there stays."""
        with translated(f"make the volume {name}"):
            self._client.volumes.create(name, labels=labels)

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone is fine."""
        with translated(f"remove the volume {name}"), _gone_is_fine():
            self._client.volumes.get(name).remove()

    def start(self, parameters: dict[str, Any], mounts: list[dict[str, Any]]) -> None:
        """Make a container and start it.

        Args:
            mounts: each with `type`, `source`, `target`, `read_only`.
        """
        with translated(f"start {parameters['name']}"):
            self._client.containers.run(detach=True, mounts=[Mount(**mount) for mount in mounts], **parameters)

    def stop(self, name: str, timeout_s: int) -> None:
        """Send SIGTERM and wait until the container has ended; after timeout_s it is killed."""
        with translated(f"stop {name}"), _gone_is_fine():
            self._client.containers.get(name).stop(timeout=timeout_s)

    def remove(self, name: str, app: str) -> None:
        """Remove the sidecar of an app with its nameless volumes; one that is gone, or another's, is left alone."""
        with translated(f"remove {name}"), _gone_is_fine():
            container = self._client.containers.get(name)
            if container.labels.get(ATTACHED_TO) == app:
                container.remove(v=True, force=True)

    def state(self, name: str) -> tuple[str, int, int]:
        """Return a container's status, its exit code, and how often the engine has restarted it; status `gone` if it is not there."""
        with translated(f"look at {name}"):
            try:
                attrs = self._client.containers.get(name).attrs
            except NotFound:
                return "gone", 0, 0
            return attrs["State"]["Status"], attrs["State"]["ExitCode"], attrs["RestartCount"]

    def run_inside(self, name: str, words: list[str]) -> tuple[int, str]:
        """Run a command in a container; returns its exit code and what it printed; 126 if it could not be run."""
        try:
            with translated(f"ask {name}"):
                code, output = self._client.containers.get(name).exec_run(words)
        except PillionError as exc:
            return 126, exc.message
        return int(code if code is not None else 126), output.decode("utf-8", "replace").strip()

    def last_words(self, name: str) -> list[str]:
        """Return the messages of a program's last log lines that are warnings or errors, else its last lines."""
        with translated(f"read the log of {name}"):
            text = self._client.containers.get(name).logs(tail=TAIL_LINES).decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        told = [_message(line) for line in lines]
        return [message for message in told if message][-3:] or lines[-3:]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _name_of(self, word: str) -> str:
        try:
            return str(self._client.containers.get(word).name)
        except NotFound:
            return word[:12]

    def _has(self, collection: Any, name: str) -> bool:
        with translated(f"look for {name}"):
            try:
                collection.get(name)
            except NotFound:
                return False
            return True


@contextmanager
def connected() -> Iterator[Engine]:
    """Give the engine that DOCKER_HOST, or the machine's own socket, leads to.

    Raises:
        PillionError: none answers.
    """
    try:
        client = docker.from_env(timeout=int(CALL_S))
        client.ping()
    except (DockerException, requests.RequestException) as exc:
        raise PillionError(f"no container engine answers: {exc}. Start Docker, or name another one with DOCKER_HOST") from exc
    engine = Engine(client)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Make the SDK's errors into PillionError.

    Args:
        what: what was tried, as it reads after `could not`.
    """
    try:
        yield
    except APIError as exc:
        raise PillionError(f"the engine could not {what}: {exc.explanation or exc}") from exc
    except (DockerException, requests.RequestException) as exc:
        raise PillionError(f"the engine could not {what}: {exc}") from exc


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NotFound:
        pass
    except APIError as exc:
        if "is not connected" not in str(exc.explanation):
            raise


def _registry(attrs: dict[str, Any]) -> Registry:
    networks = {name: entry for name, entry in attrs["NetworkSettings"]["Networks"].items() if name not in _PLAIN_NETWORKS}
    hosts = [_name(attrs), *(alias for entry in networks.values() for alias in (entry or {}).get("Aliases") or ())]
    return Registry(_name(attrs), tuple(dict.fromkeys(hosts)), tuple(sorted(networks)), _token(attrs))


def _token(attrs: dict[str, Any]) -> Token | None:
    path = _environ(attrs).get("PILLION_TOKEN_FILE", "")
    if not path:
        return Token("none")
    for mount in attrs.get("Mounts") or ():
        target = str(mount["Destination"]).rstrip("/")
        if path == target and mount["Type"] == "bind":
            return Token("file", mount["Source"])
        if path.startswith(f"{target}/"):
            inside = path.removeprefix(f"{target}/")
            return Token("volume", mount["Name"], inside) if mount["Type"] == "volume" else Token("file", f"{mount['Source']}/{inside}")
    return None


def _app(attrs: dict[str, Any], mode: str) -> App:
    networks = () if mode.startswith(("host", "none", "container:")) else tuple(attrs["NetworkSettings"]["Networks"])
    plain = "" if mode in networks or mode == "default" else mode
    service = _of_compose(attrs, COMPOSE_SERVICE)
    return App(_name(attrs), _labels(attrs), _environ(attrs), tuple(_ports(attrs)), plain, networks, service=service)


def _of_compose(attrs: dict[str, Any], label: str) -> str:
    """Return what compose has written on a container that it has made; of another, whatever its image's labels say, nothing."""
    labels = _labels(attrs)
    return labels.get(label, "") if labels.get(COMPOSE_MADE) else ""


def _ports(attrs: dict[str, Any]) -> list[int]:
    texts = [*(attrs["Config"].get("ExposedPorts") or {}), *(attrs["HostConfig"].get("PortBindings") or {})]
    return sorted({int(text.partition("/")[0]) for text in texts if text.endswith("/tcp")})


def _labels(attrs: dict[str, Any]) -> dict[str, str]:
    return dict(attrs["Config"].get("Labels") or {})


def _environ(attrs: dict[str, Any]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in attrs["Config"].get("Env") or ()]
    return {name: value for name, _, value in pairs}


def _name(attrs: dict[str, Any]) -> str:
    return str(attrs["Name"]).lstrip("/")


def _is_sidecar(attrs: dict[str, Any]) -> bool:
    image = str(attrs["Config"].get("Image", ""))
    return ATTACHED_TO in _labels(attrs) or ("pillion" in image and "sidecar" in image)


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
        return str(entry["message"]) if entry["level"] in ("warning", "error") else ""
    except (ValueError, KeyError, TypeError):
        return ""
