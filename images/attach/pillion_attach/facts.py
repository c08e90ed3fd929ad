"""What is known of an app, of the registries that run here, and what the user wishes: the input of every plan. No I/O.

An app is a service of a compose file or a container: `App("shop", labels={"pillion.dev/port": "8080"}, ports=(80, 8080))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_REGISTRY = "http://registry:3000"
DEFAULT_IMAGE = "pillion/sidecar:dev"


@dataclass(frozen=True)
class App:
    """An app to attach to.

    Args:
        name: as the user calls it.
        ports: its TCP ports inside its network, published or exposed.
        network_mode: empty for a network of its own; else host, none, bridge, service:NAME or container:NAME.
        networks: the networks it is in; keys of a compose file, or names the engine knows.
        attached: option -> text of what it was attached with before.
        service: the name compose knows it by; empty: none, or the same.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    network_mode: str = ""
    networks: tuple[str, ...] = ()
    attached: Mapping[str, str] = field(default_factory=dict)
    service: str = ""


@dataclass(frozen=True)
class Container:
    """A container: the facts of its app, and its state.

    Args:
        project: the compose project that made it; empty: none.
        beside: the name of the sidecar that stands beside it already; empty: none.
        neighbour_ports: the ports of others that share its network.
    """

    app: App
    id: str
    status: str
    project: str = ""
    beside: str = ""
    neighbour_ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Token:
    """Where the shared token is: a `volume` (by name), a `file` (by path), or `none`.

    Args:
        file: the token's file name inside the volume.
        own: the volume is one of the compose file itself, and `source` its key there.
    """

    kind: str
    source: str = ""
    file: str = "token"
    own: bool = False

    def __str__(self) -> str:
        return {"volume": f"in the volume {self.source}", "file": f"in the file {self.source}"}.get(self.kind, "none")


@dataclass(frozen=True)
class Registry:
    """A registry that runs here: by which host names it is found, in which networks, and with which token."""

    container: str
    hosts: tuple[str, ...]
    networks: tuple[str, ...]
    token: Token | None


@dataclass(frozen=True)
class Wishes:
    """What the user said on the command line.

    Args:
        keys: option -> text, see pillion_common.keys.
        registry: URLs, comma-separated.
        network: the engine's name of the network in which the registry is; None: find out.
        token: None: find out.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    registry: str = DEFAULT_REGISTRY
    network: str | None = None
    token: Token | None = None
    image: str = DEFAULT_IMAGE
