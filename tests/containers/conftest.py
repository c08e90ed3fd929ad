"""The stack of compose/dev.yml, up once for all container tests, under a project name and on ports of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from project import free_port
from stack import ROOT, Stack

PORTS = ("PILLION_REGISTRY_PORT", "PILLION_LOG_PORT", "PILLION_PORTAL_PORT", "PILLION_GRADING_PORT")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "compose" / "dev.yml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> Iterator[str]:
    before = {name: os.environ.get(name) for name in PORTS}
    os.environ.update({name: str(free_port()) for name in PORTS})
    yield f"pillion-test-{os.getpid()}"
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --build --wait --wait-timeout 120"]


@pytest.fixture(scope="session")
def stack(docker_services: Any, docker_compose_project_name: str) -> Stack:
    return Stack(docker_compose_project_name, {name: int(os.environ[name]) for name in PORTS})


@pytest.fixture
def whole(stack: Stack) -> Stack:
    """The stack with everything up, whatever an earlier test left."""
    stack.start_all()
    return stack
