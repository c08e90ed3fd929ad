"""Portald with GradingService beside a stub sidecar, for a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo_stubs import App, StubSidecar, build_grading, portal_command, running


@pytest.fixture(scope="session")
def grading_command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build_grading(tmp_path_factory.mktemp("grading"))


@pytest.fixture
def sidecar() -> Iterator[StubSidecar]:
    with StubSidecar() as stub:
        yield stub


@pytest.fixture
def grading(grading_command: list[str], sidecar: StubSidecar) -> Iterator[App]:
    with running(grading_command, sidecar.url) as app:
        sidecar.provider_url = app.url
        yield app


@pytest.fixture
def portal_url(grading: App, sidecar: StubSidecar) -> Iterator[str]:
    """Where Portald answers; GradingService is there already."""
    with running(portal_command(), sidecar.url) as app:
        yield app.url
