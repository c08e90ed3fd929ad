"""`pillion agent`: stands in for sidecars on one container engine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from pillion_common import config, lifecycle, logs
from pillion_common.errors import ConfigError, PeerError
from pillion_common.trust import Token
from pillion_sidecar.agent.agent import Agent, find_ours, rules_of
from pillion_sidecar.agent.containers import Container, Listed
from pillion_sidecar.agent.engine import Engine
from pillion_sidecar.agent.plan import find_wanted
from pillion_sidecar.agent.settings import DESCRIPTION, PROGRAM, Settings
from pillion_sidecar.agent.table import planned
from pillion_sidecar.agent.watch import Watch

DRY = ("--once", "--dry-run")


def main(argv: list[str] | None = None) -> int:
    """Run the agent; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    dry = [word for word in words if word in DRY]
    try:
        settings = config.load(Settings, PROGRAM, [word for word in words if word not in DRY], os.environ, DESCRIPTION)
        if dry and set(dry) != set(DRY):
            raise ConfigError([f"{dry[0]} needs {' '.join(word for word in DRY if word not in dry)}: together they print a table and end"])
        token = Token.load(settings.token_file)
        logs.set_up(PROGRAM, settings.log_level)
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    if dry:
        return asyncio.run(_print_planned(settings))
    return lifecycle.run(PROGRAM, lambda life: Agent(life, settings, token))


async def _print_planned(settings: Settings) -> int:
    rules = rules_of(settings)._replace(ours=await find_ours(settings.registry))
    said = ""

    def picture(containers: Mapping[str, Container], listed: Mapping[str, Listed]) -> None:
        nonlocal said
        wanted = find_wanted(containers.values(), listed, rules)
        said = planned(wanted.specs.values(), wanted.left_out)

    watch = Watch(
        Engine(settings.docker),
        resync_s=settings.resync,
        only=[label for label, _ in settings.only],
        on_picture=picture,
        on_dead=lambda _: None,
        on_signal=lambda _, number: None,
    )
    try:
        await watch.look_once()
    except PeerError as exc:
        print(f"pillion agent: {exc.message}", file=sys.stderr)
        return lifecycle.EXIT_FAILED
    print(said, end="")
    return lifecycle.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
