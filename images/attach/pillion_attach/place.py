"""Where the registry is, as an app must reach it: which network to be in, and which token to carry. Pure.

A registry in a container has a name of one word (`registry`), which resolves only inside the networks it is in; so the app has to be in one
of them. A registry with an address or a domain is reached by routing, and the app needs no further network.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pillion_attach.facts import Registry, Token, Wishes
from pillion_common.config import parse_names
from pillion_common.errors import ConfigError, InvalidInput
from pillion_common.names import is_address, parse_url

# What compose/dev.yml makes when it is started from its folder, as scripts/up does.
STACK_NETWORK = "compose_default"
STACK_TOKEN = Token("volume", "compose_secrets")

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Place:
    """How one app reaches the registry.

    Args:
        network: the engine's name of the network it must be in; None: it needs none.
        note: what was assumed or found, for the user.
    """

    network: str | None
    token: Token
    note: str = ""


def registry_hosts(urls: str) -> list[str]:
    """Return the hosts of the registry's URLs.

    Raises:
        ConfigError: one is no URL, has a path, or means the app itself.
    """
    faults, hosts = [], []
    for text in parse_names(urls):
        try:
            url = parse_url(text, "--registry")
        except InvalidInput as exc:
            faults.append(str(exc))
            continue
        if url.target != "/":
            faults.append(f"--registry {text} has a path; write http://HOST:PORT")
        if url.host in LOOPBACK:
            faults.append(
                f"--registry {text}: in the app's network {url.host} is the app itself; "
                "write the registry's container name or the host's address"
            )
        hosts.append(url.host)
    if not hosts and not faults:
        faults.append("--registry is empty; write http://HOST:PORT")
    if faults:
        raise ConfigError(faults)
    return hosts


def choose_place(wishes: Wishes, found: Sequence[Registry], app_networks: Collection[str]) -> Place:
    """Decide where the registry is.

    Args:
        found: the registries that run here.
        app_networks: the engine's names of the networks the app is in.

    Raises:
        ConfigError: it cannot be told; the fault names the flags to give.
    """
    hosts = registry_hosts(wishes.registry)
    fitting = [one for one in found if set(one.hosts) & set(hosts) and wishes.network in (None, *one.networks)]
    if wishes.token and (wishes.network or not any(map(_is_plain, hosts))):
        return Place(wishes.network, wishes.token)
    if len(fitting) > 1:
        many = "; ".join(f"{one.container} in {' and '.join(one.networks)}, its token {one.token or 'unknown'}" for one in fitting)
        raise ConfigError([f"several registries run here: choose with --network and --token-volume. There are {many}"])
    if fitting:
        return _beside(fitting[0], wishes, app_networks)
    if not any(map(_is_plain, hosts)):
        if wishes.token is None:
            raise ConfigError([f"the registry {wishes.registry} is not one that runs here: say {_TOKEN_FLAGS}"])
        return Place(wishes.network, wishes.token)
    network = wishes.network or STACK_NETWORK
    token = wishes.token or (STACK_TOKEN if network == STACK_NETWORK else None)
    if token is None:
        raise ConfigError([f"no registry called {hosts[0]} runs in the network {network}: start it first, or say {_TOKEN_FLAGS}"])
    return Place(
        network, token, f"no registry called {hosts[0]} runs here now; taking it to be in the network {network}, its token {token}"
    )


_TOKEN_FLAGS = "where its token is, with --token-volume NAME or --token-file PATH, or --no-token if it has none"


def _beside(registry: Registry, wishes: Wishes, app_networks: Collection[str]) -> Place:
    token = wishes.token or registry.token
    if token is None:
        raise ConfigError([f"the token of the registry {registry.container} was not found: say {_TOKEN_FLAGS}"])
    shared = [name for name in registry.networks if name in app_networks]
    network = wishes.network or (shared or list(registry.networks))[0]
    return Place(network, token, f"found the registry {registry.container} in the network {network}, its token {token}")


def _is_plain(host: str) -> bool:
    """Return whether a host is a container's name, known inside its networks only."""
    return "." not in host and not is_address(host)
