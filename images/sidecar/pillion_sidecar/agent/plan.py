"""Which instances there ought to be, from what the engine shows, and what has to be done to get there. Pure.

(containers, rules) -> Wanted(specs, left_out)          (specs, known, most) -> Plan(add, drop)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from pillion_common import config
from pillion_common.config import env_name
from pillion_common.errors import ConfigError
from pillion_sidecar.agent.containers import Container, Listed
from pillion_sidecar.agent.labels import Given, read, refused_check
from pillion_sidecar.settings import Settings as SidecarSettings

LOOPBACK = ("127.", "::1")
EVERYWHERE = ("", "0.0.0.0", "::")


class Rules(NamedTuple):
    """How containers become instances. `fixed` is what all instances have in common: options of a sidecar as text.

    `ours` is our own address on the route to the registry; empty while it is not known.
    """

    fixed: Mapping[str, str]
    network: str = ""
    publish: str = "container"
    advertise: str = ""
    ours: str = ""
    registrator: bool = True
    only: tuple[tuple[str, str], ...] = ()


class Spec(NamedTuple):
    """One instance as it ought to be. `handle` tells it from all others here; it is the same as long as its container is."""

    handle: str
    instance_id: str
    container: Container
    settings: SidecarSettings

    @property
    def url(self) -> str:
        """Return the URL at which it is offered."""
        host = self.settings.advertise
        return f"http://[{host}]:{self.settings.port}" if ":" in host else f"http://{host}:{self.settings.port}"

    def same_as(self, other: Spec) -> bool:
        """Return whether both are the same life of the same instance: nothing has to be registered anew."""
        return (self.settings, self.container.started_ms) == (other.settings, other.container.started_ms)


class Wanted(NamedTuple):
    """What ought to be there: handle -> spec; and container -> why (a part of) it is not, or what is odd about it."""

    specs: dict[str, Spec]
    left_out: dict[str, str]


class Plan(NamedTuple):
    """What to do, `drop` first. What is replaced is in both."""

    drop: tuple[str, ...]
    add: tuple[Spec, ...]
    keep: tuple[Spec, ...]
    beyond: tuple[Spec, ...]  # for which there is no room


class NoPlace(ValueError):
    """A container has no address to register; the message says what to do."""


def find_wanted(containers: Iterable[Container], listed: Mapping[str, Listed], rules: Rules) -> Wanted:
    """Find the instances of all running containers.

    Args:
        listed: all that run, also those of no interest: for their networks, and for the sidecars among them.
    """
    with_sidecar = {one.network_mode.removeprefix("container:") for one in listed.values() if one.is_sidecar}
    network = rules.network or _network_of(rules.ours, listed)
    specs: dict[str, Spec] = {}
    left_out: dict[str, str] = {}
    for container in containers:
        if not all(container.labels.get(label) == value for label, value in rules.only):
            continue
        found, faults = _specs_of(container, listed, rules._replace(network=network))
        if found and container.id in with_sidecar:
            found, faults = [], ["it has a sidecar of its own"]
        specs |= {spec.handle: spec for spec in found}
        if faults:
            left_out[container.name] = "; ".join(faults)
    return Wanted(specs, left_out)


def make_plan(wanted: Mapping[str, Spec], known: Mapping[str, Spec], most: int) -> Plan:
    """Say how to get from what is known to what is wanted.

    Args:
        most: instances; those that are known already go before others.
    """
    keep = [spec for handle, spec in wanted.items() if handle in known and spec.same_as(known[handle])]
    kept = {spec.handle for spec in keep}
    coming = sorted((spec for handle, spec in wanted.items() if handle not in kept), key=lambda spec: spec.handle not in known)
    room = max(0, most - len(keep))
    drop = tuple(handle for handle in known if handle not in kept)
    return Plan(drop, tuple(coming[:room]), tuple(keep), tuple(coming[room:]))


def _specs_of(container: Container, listed: Mapping[str, Listed], rules: Rules) -> tuple[list[Spec], list[str]]:
    reading = read(container.labels, container.environ, container.ports, rules.registrator)
    specs, faults = [], list(reading.faults)
    for options in reading.services:
        refused = refused_check(options)
        if refused:
            faults.append(refused)
            options = {key: given for key, given in options.items() if key != "check"}  # what else is wrong is told as well
        try:
            spec = _spec(container, options, listed, rules, alone=len(reading.services) == 1)
            specs += [] if refused else [spec]
        except ConfigError as exc:
            faults += [_by_label(fault, options) for fault in exc.faults]
        except NoPlace as exc:
            faults.append(str(exc))
    return specs, faults


def _spec(container: Container, options: Mapping[str, Given], listed: Mapping[str, Listed], rules: Rules, alone: bool) -> Spec:
    texts = {**rules.fixed, **{key: given.text for key, given in options.items()}}
    told = config.load(SidecarSettings, "agent", (), {env_name(key): text for key, text in texts.items()})
    host, port = _place(container, told.port, listed, rules)
    handle = container.short_id if alone else f"{container.short_id}-{told.port}"
    return Spec(handle, f"{told.name[:40]}-{handle}", container, replace(told, host=host, advertise=host, port=port))


def _by_label(fault: str, options: Mapping[str, Given]) -> str:
    """Put the label in place of the environment variable that a sidecar would have been told by."""
    for key, given in options.items():
        if fault.startswith(f"{env_name(key)}:"):
            return given.label + fault.removeprefix(env_name(key))
    return fault


def _network_of(ours: str, listed: Mapping[str, Listed]) -> str:
    """Return the network on which a container has this address: ours, if the agent runs in one."""
    return next((name for one in listed.values() for name, address in one.addresses.items() if ours and address == ours), "")


def _place(container: Container, port: int, listed: Mapping[str, Listed], rules: Rules) -> tuple[str, int]:
    """Return the host and port under which others reach a container's port.

    Raises:
        NoPlace: there is none.
    """
    if container.network_mode == "host":
        return _this_host(listed, rules, "it uses the host's network"), port
    if rules.publish == "host":
        return _published_place(container, port, listed, rules)
    addresses = container.addresses
    if container.network_mode.startswith("container:"):
        owner = listed.get(container.network_mode.removeprefix("container:"))
        if owner is None:
            raise NoPlace("it uses the network of a container that does not run")
        addresses = owner.addresses
    if rules.network in addresses:
        return addresses[rules.network], port
    if len(addresses) == 1 and not rules.network:
        return next(iter(addresses.values())), port
    if not addresses:
        raise NoPlace("it has no address on any network; join it to one")
    names = ", ".join(sorted(addresses))
    if rules.network:
        raise NoPlace(f"it is not on the network {rules.network}, but on {names}; join it, or set PILLION_NETWORK")
    raise NoPlace(f"it is on several networks ({names}); set PILLION_NETWORK to the one its dependents are on")


def _published_place(container: Container, port: int, listed: Mapping[str, Listed], rules: Rules) -> tuple[str, int]:
    if port not in container.published:
        raise NoPlace(f"port {port} is not published; publish it (ports: in compose, -p), or leave PILLION_PUBLISH at container")
    bound, host_port = container.published[port]
    host = _this_host(listed, rules, f"port {port} is published")
    if bound.startswith(LOOPBACK) and not host.startswith(LOOPBACK):
        raise NoPlace(f"port {port} is published on {bound} only, where {host} is not heard; publish it on all addresses")
    return host if bound in EVERYWHERE or bound.startswith(LOOPBACK) else bound, host_port


def _this_host(listed: Mapping[str, Listed], rules: Rules, why: str) -> str:
    if rules.advertise:
        return rules.advertise
    if not rules.ours:
        raise NoPlace(f"{why}, and this host's address is not known yet; set PILLION_ADVERTISE")
    if _network_of(rules.ours, listed):
        raise NoPlace(f"{why}, and the agent, in a container, does not know the host's address; set PILLION_ADVERTISE")
    return rules.ours
