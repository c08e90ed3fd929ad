"""Some registries on one catalogue in NATS, for tests: who has what, and what each of them says."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import requests
from classic import Classic
from nats_lab import NatsServer, store_uri
from programs import Program, eventually, program
from registry_lab import states

from pillion_registry.sharing import Sharing

WAIT_S = 12.0
# The peers live in the tests' own process: its pauses must not look like theirs.
QUICK = ("--heartbeat-interval", "200ms", "--heartbeat-timeout", "1s", "--flap-changes", "0")


class Replicas:
    """Registries by their order; those that were killed stay in the list."""

    def __init__(self, programs: list[Program]) -> None:
        self.all = programs

    @property
    def live(self) -> list[Program]:
        return [one for one in self.all if one.process.poll() is None]

    def member(self, one: Program) -> str:
        """Return its name among the others."""
        return next(name for name in members(one) if name.startswith(f"r{self.all.index(one)}-"))

    def settle(self) -> None:
        """Wait until all that live know of each other, and of nobody else."""
        names = {f"r{self.all.index(one)}" for one in self.live}
        eventually(lambda: all({name.partition("-")[0] for name in members(one)} == names for one in self.live), WAIT_S)

    def owner(self, instance_id: str) -> Program:
        """Return the registry that checks and tells an instance, by the members that the first live one knows."""
        live = members(self.live[0])
        sharing = Sharing(live[0])
        for name in live:
            sharing.heard(name, 0.0)
        sharing.heard_own(0.0, 0.0)
        sharing.look(0.0)
        name = sharing.owner(instance_id)
        return next(one for one in self.live if self.member(one) == name)

    def others(self, *owners: Program) -> list[Program]:
        """Return the live ones that are none of these."""
        return [one for one in self.live if one not in owners]

    def wait_for(self, url: str, state: str | None, timeout_s: float = 5.0) -> None:
        """Wait until all show an instance in a state; None: not at all."""
        eventually(
            lambda: all(states(one).get(url) == state for one in self.live),
            timeout_s,
            lambda: f"{url} is {[states(one).get(url) for one in self.live]}, not {state}",
        )


def members(one: Program) -> list[str]:
    """Return the live members as a registry knows them."""
    told = one.events("members")
    return list(told[-1]["members"]) if told else []


def listed(one: Program) -> dict[str, Any]:
    """Return the catalogue as it lists it."""
    return dict(requests.get(one.url + "/services", timeout=WAIT_S).json())


def post(one: Program, instance_id: str, what: str, **body: Any) -> requests.Response:
    return requests.post(f"{one.url}/services/{instance_id}/{what}", json=body or None, timeout=WAIT_S)


def register(one: Program, peer: Classic, name: str, requires: list[str] | None = None, **more: Any) -> str:
    """Register a peer through a registry; returns its id."""
    answer = requests.post(one.url + "/services", json=peer.registration(name, requires, **more), timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["InstanceID"])


@contextmanager
def replicas(servers: list[NatsServer], *words: str, count: int = 3) -> Iterator[Replicas]:
    """Run some registries on a catalogue of their own; returns once they know of each other."""
    store = store_uri(servers, prefix=f"t{secrets.token_hex(6)}", replicas=1 if len(servers) < 3 else 3)
    with ExitStack() as stack:
        given = ("--store", store, *QUICK, *words)
        running = Replicas([stack.enter_context(program("registry", *given, "--member", f"r{number}")) for number in range(count)])
        running.settle()
        yield running
