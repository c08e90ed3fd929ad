"""`pillion attach compose FILE SERVICE…` and `pillion attach docker CONTAINER`."""

from __future__ import annotations

import argparse

from pillion_attach import compose, container, container_plan
from pillion_attach.compose_file import dump_plain
from pillion_attach.container_plan import ContainerPlan, Here
from pillion_attach.engine import Engine, connected
from pillion_attach.facts import Wishes
from pillion_attach.options import attach_parser, run, say, say_aside, wishes_of
from pillion_common import lifecycle
from pillion_common.errors import ConfigError
from pillion_common.key_values import nearest

PROGRAM = "attach"


def main(argv: list[str]) -> int:
    """Attach; returns the exit code: 0 attached, 1 failed or not ready in time, 2 refused."""
    words = attach_parser().parse_args(argv)
    return run(PROGRAM, lambda: _attach(words))


def _attach(words: argparse.Namespace) -> int:
    wishes = wishes_of(words)
    if words.way == "compose":
        return compose.attach(words.file, words.services, wishes, words.output, words.dry_run)
    with connected() as engine:
        plan = _plan(engine, words.container, wishes)
        for note in plan.notes:
            say_aside(note)
        if words.dry_run:
            _show(plan)
            return lifecycle.EXIT_OK
        ready = container.attach(engine, plan, say, words.timeout)
    return lifecycle.EXIT_OK if ready else lifecycle.EXIT_FAILED


def _plan(engine: Engine, word: str, wishes: Wishes) -> ContainerPlan:
    app = engine.container(word)
    names = engine.names()
    if app is None:
        raise ConfigError([f"there is no container {word!r}{nearest(word, names)}"])
    found = engine.registries()
    network, volume = container_plan.wanted(wishes, app, found)
    here = Here(
        names,
        images={wishes.image} if engine.has_image(wishes.image) else (),
        networks={network} if network and engine.has_network(network) else (),
        volumes={volume} if volume and engine.has_volume(volume) else (),
    )
    return container_plan.plan(app, wishes, found, here)


def _show(plan: ContainerPlan) -> None:
    """Print the parameters of the container that would be started."""
    shown = {
        **({"join": {"container": plan.app, "network": plan.join}} if plan.join else {}),
        "volume": plan.spool,
        "container": {**plan.parameters, "mounts": [dict(mount) for mount in plan.mounts]},
    }
    say(dump_plain(shown))
