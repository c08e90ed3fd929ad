"""The sidecar's container, as compose/sidecar.yml has it: once as a service for a compose file, once as parameters for the engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pillion_attach.facts import Token
from pillion_common.keys import ATTACHED_TO, KEYS

STATE_DIR = "/var/lib/pillion"
TOKEN_DIR = "/run/secrets/pillion"
FILES_DIR = "/run/pillion"
USER = "10001:10001"

# An image that compose has built carries compose's labels, and a container takes its image's: compose would take ours for one of its own.
COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
COMPOSE_MADE = "com.docker.compose.config-hash"  # only on containers that compose itself has made
PIDS = 32
_TMPFS = "uid=10001,gid=10001,mode=0755,size="
_SECOND_NS = 1_000_000_000


def made_here(image: str) -> bool:
    """Return whether an image is built on this machine; a public registry may have another of the same name."""
    return image.startswith("pillion/")


def environment(settled: Mapping[str, str], registry: str, token: Token) -> dict[str, str]:
    """Return what the sidecar is told: the app's keys, the registry's URLs, the token's file."""
    told = {key.env: settled[key.option] for key in KEYS if key.option in settled}
    told["PILLION_REGISTRY"] = registry
    if token.kind != "none":
        told["PILLION_TOKEN_FILE"] = f"{TOKEN_DIR}/{token.file}"
    return told


def compose_service(app: str, image: str, env: Mapping[str, str], spool: str, token: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return the sidecar's service.

    It has no `depends_on` for the app: network_mode implies one that restarts the sidecar with it, and a plain one would replace that.

    Args:
        app: the service beside which it stands.
        env: from `environment`.
        spool: the key of the volume for its log spool.
        token: the volume or bind mount that holds the token, as an entry of `volumes`.
    """
    return {
        "image": image,
        **({"pull_policy": "never"} if made_here(image) else {}),
        "network_mode": f"service:{app}",
        "labels": {ATTACHED_TO: app},
        "environment": {name: text.replace("$", "$$") for name, text in env.items()},
        "volumes": [f"{spool}:{STATE_DIR}", *([token] if token else [])],
        "tmpfs": [f"{FILES_DIR}:{_TMPFS}${{PILLION_SIDECAR_FILES_SIZE:-4m}}"],
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": "${PILLION_SIDECAR_MEMORY:-64m}",
        "pids_limit": PIDS,
        "healthcheck": {
            "interval": "${PILLION_HEALTH_INTERVAL:-5s}",
            "timeout": "${PILLION_HEALTH_TIMEOUT:-5s}",
            "start_period": "${PILLION_HEALTH_START:-30s}",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "${PILLION_STOP_GRACE:-10s}",
        "logging": {
            "driver": "json-file",
            "options": {"max-size": "${PILLION_LOG_MAX_SIZE:-10m}", "max-file": "${PILLION_LOG_MAX_FILES:-3}"},
        },
    }


def engine_parameters(name: str, app_id: str, image: str, env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the sidecar's parameters for the engine, as the Docker SDK names them, but for its mounts.

    Args:
        name: the container's name.
        app_id: the id of the container beside which it stands.
    """
    return {
        "image": image,
        "name": name,
        "network_mode": f"container:{app_id}",
        "labels": {COMPOSE_PROJECT: "", COMPOSE_SERVICE: "", **labels},
        "environment": dict(env),
        "tmpfs": {FILES_DIR: f"{_TMPFS}4m"},
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": "64m",
        "pids_limit": PIDS,
        "healthcheck": {"interval": 5 * _SECOND_NS, "timeout": 5 * _SECOND_NS, "start_period": 30 * _SECOND_NS},
        "restart_policy": {"Name": "unless-stopped"},
        "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
