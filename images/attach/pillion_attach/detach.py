"""`pillion detach CONTAINER` and `pillion detach compose FILE SERVICE…`."""

from __future__ import annotations

import argparse

from pillion_attach import compose, container
from pillion_attach.engine import connected
from pillion_attach.options import detach_parser, run, say
from pillion_common import lifecycle

PROGRAM = "detach"
WAYS = ("compose", "docker")


def main(argv: list[str]) -> int:
    """Detach; returns the exit code: 0 detached, 1 failed, 2 refused."""
    first = next((word for word in argv if not word.startswith("-")), None)
    words = detach_parser().parse_args(argv if first is None or first in WAYS else ["docker", *argv])
    return run(PROGRAM, lambda: _detach(words))


def _detach(words: argparse.Namespace) -> int:
    if words.way == "compose":
        return compose.detach(words.file, words.services, words.output, words.dry_run)
    with connected() as engine:
        app = engine.container(words.container)  # gone already? then it is known by its name alone
        container.detach(engine, app.app.name if app else words.container, say, words.dry_run)
    return lifecycle.EXIT_OK
