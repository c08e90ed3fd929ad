"""A compose project of a user's, beside the running stack: an app and its sidecar, from one of compose/examples."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from docker.models.containers import Container
from programs import eventually
from stack import ROOT, Stack

EXAMPLES = ROOT / "compose" / "examples"
COMPOSE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seconds(moment: str) -> float:
    """Return an RFC 3339 time, as engine and sidecar write it, in seconds since 1970."""
    whole, fraction = re.fullmatch(r"([^.Z]+)(\.\d+)?Z", moment).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(fraction or 0)


class Project:
    """An example that runs as a project of its own.

    Args:
        stack: what it joins.
        example: the name of its file, e.g. perl.
        service: its app's; the sidecar's has `-sidecar` behind.
        name: under which the app is registered.
        override: a second compose file.
    """

    def __init__(self, stack: Stack, example: str, service: str, name: str, override: Path | None = None) -> None:
        self.name = name
        self.app = service
        self.sidecar = f"{service}-sidecar"
        self._stack = stack
        self._project = f"{stack.project}-{example}"
        self._files = [EXAMPLES / f"{example}.yml", *([override] if override else [])]
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            "PILLION_NETWORK": f"{stack.project}_default",
            "PILLION_SECRETS": f"{stack.project}_secrets",
            "PILLION_HEALTH_INTERVAL": "1s",
            f"PILLION_{example.upper()}_PORT": str(port),
        }

    def compose(self, *words: str) -> str:
        """Run `docker compose` on this project; a failure shows what it said."""
        files = [word for file in self._files for word in ("--file", str(file))]
        command = ["docker", "compose", "--project-name", self._project, *files, *words]
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, timeout=COMPOSE_S, check=False)
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stderr}\n{self.last_words()}"
        return done.stdout

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", "40", *services)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def images(self) -> list[str]:
        return self.compose("config", "--images").split()

    def container(self, service: str) -> Container:
        return self._stack.container(service, self._project)

    def state(self, service: str) -> dict[str, Any]:
        return dict(self.container(service).attrs["State"])

    def events(self, event: str, since_s: float = 0.0) -> list[dict[str, Any]]:
        """Return the lines with this event in the sidecar's own log."""
        lines = self.container(self.sidecar).logs().decode().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event and seconds(entry["time"]) >= since_s]

    def is_up(self) -> bool:
        """Return whether the registry offers the app."""
        return self._stack.states().get(self.name) == "up"

    def until_up(self, within_s: float = 30.0) -> None:
        eventually(self.is_up, within_s, self.last_words)

    def until_sidecar_runs(self, within_s: float = 20.0) -> None:
        eventually(partial(self._runs, self.sidecar), within_s, self.last_words)

    def _runs(self, service: str) -> bool:
        return self.state(service)["Status"] == "running"

    def last_words(self) -> str:
        found = self._stack.containers(self._project)
        return "\n".join(f"{one.name}: {one.status}\n{one.logs(tail=12).decode(errors='replace')}" for one in found)
