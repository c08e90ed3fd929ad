"""One installation of the chart serves all tests of this folder. scripts/cluster-test has a cluster and runs them; others pass them by."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import figures
import pytest
from caller import Caller, running
from cluster import CHART, RELEASE, Namespace, helm, image_values
from host import Host
from workloads import APPS, Workloads

collect_ignore_glob = [] if os.environ.get("PILLION_HELM") and os.environ.get("PILLION_RELEASE") else ["test_*.py"]

# Memory is looked at before anything is killed, and what removes everything comes last; the others could come in any order.
ORDER = ("install", "death", "load", "hooks", "webhook", "foreign_chart", "uninstall")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    part = item.path.stem.removeprefix("test_")
    return ORDER.index(part) if part in ORDER else -1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if figures.table():
        terminalreporter.section("figures")
        terminalreporter.write_line(figures.table())


@pytest.fixture(scope="session")
def before() -> set[str]:
    """What was in the namespace before the chart."""
    Namespace(RELEASE).create()
    return Namespace(RELEASE).everything()


@pytest.fixture(scope="session")
def release(before: set[str]) -> Namespace:
    """The chart with the demo and the webhook."""
    began = time.monotonic()
    helm(
        "install",
        RELEASE,
        str(CHART),
        *image_values(),
        "--set",
        "demo.enabled=true,injector.enabled=true",
        "--set",
        f"injector.tokenSecret={RELEASE}-token",
        "--wait",
        "--timeout",
        "150s",
    )
    figures.note("helm install --wait, with demo and webhook", time.monotonic() - began, "s")
    return Namespace(RELEASE)


@pytest.fixture(scope="session")
def host(release: Namespace) -> Host:
    made = Host(release)
    made.start()
    return made


@pytest.fixture(scope="session")
def caller(release: Namespace, host: Host) -> Iterator[Caller]:
    """A pod that calls GradingService a hundred times a second, from now to the end."""
    with running(release) as made:
        release.until_ready("app=host")
        yield made


@pytest.fixture(scope="session")
def workloads(release: Namespace, caller: Caller) -> Workloads:
    """A Deployment, a StatefulSet and a Job in another namespace, with sidecars by the webhook."""
    made = Workloads(Namespace(APPS))
    made.start(release)
    return made
