"""Each of compose/examples, started as its README says, joins the running stack: registered, informed, its line collected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from programs import eventually
from project import EXAMPLES, Project
from stack import CALL_S, Stack

# Example -> its app's service, the name it is registered under, the page that needs GradingService, and what that page shows.
APPS = {
    "nginx": ("site", "Site", "/students", '"FirstName":"Lisa"'),
    "busybox": ("hello", "ShellHello", "/", "A shell finds GradingService at {url}"),
    "perl": ("hello", "PerlHello", "/", "Perl finds GradingService at {url}"),
    "php": ("hello", "PhpHello", "/", "PHP finds GradingService at {url}"),
}
MAX_LINES = 40


def test_each_example_is_known_here() -> None:
    assert sorted(file.stem for file in EXAMPLES.glob("*.yml")) == sorted(APPS)


@pytest.mark.parametrize("example", APPS)
def test_a_compose_file_is_at_most_40_lines_long(example: str) -> None:
    assert len((EXAMPLES / f"{example}.yml").read_text().splitlines()) <= MAX_LINES


@pytest.fixture(scope="module")
def examples(stack: Stack) -> Iterator[dict[str, Project]]:
    """All of them, started side by side."""
    stack.start_all()
    projects = {example: Project(stack, example, app[0], app[1]) for example, app in APPS.items()}
    missing = [image for project in projects.values() for image in project.images() if not stack.has_image(image)]
    if missing:
        pytest.skip(f"the images {', '.join(missing)} are not here; pull them, or run scripts/base-images --examples")
    with ThreadPoolExecutor(len(projects)) as pool:
        started = time.monotonic()
        try:
            list(pool.map(Project.up, projects.values()))
            print(f"all examples healthy after {time.monotonic() - started:.1f} s")
            yield projects
        finally:
            list(pool.map(Project.down, projects.values()))


@pytest.mark.parametrize("example", APPS)
def test_an_example_is_registered_finds_grading_service_and_logs_a_line(examples: dict[str, Project], stack: Stack, example: str) -> None:
    _, name, path, shown = APPS[example]
    examples[example].until_up()
    listed = requests.get(f"{stack.registry_url}/services", params={"name": "GradingService"}, timeout=CALL_S).json()["Services"]
    grading_url = listed[0]["ServiceURL"]
    eventually(lambda: shown.format(url=grading_url) in requests.get(examples[example].url + path, timeout=CALL_S).text, 10.0)
    eventually(lambda: [entry for entry in stack.lines(service=name) if grading_url in entry["Message"]], 10.0)


@pytest.mark.parametrize("example", APPS)
def test_an_example_is_hardened_as_the_stack_is(examples: dict[str, Project], example: str) -> None:
    for service in (examples[example].app, examples[example].sidecar):
        container = examples[example].container(service)
        settings = container.attrs["HostConfig"]
        assert container.attrs["Config"]["User"] == "10001:10001", service
        assert settings["ReadonlyRootfs"] is True, service
        assert settings["CapDrop"] == ["ALL"], service
        assert 0 < settings["Memory"] <= 64 * 2**20, service
        for bindings in (settings["PortBindings"] or {}).values():
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], service


def test_an_example_goes_in_time_and_takes_its_registration_along(examples: dict[str, Project], stack: Stack) -> None:
    for example, project in examples.items():
        before = time.monotonic()
        project.compose("stop")
        assert time.monotonic() - before < 8, example
        assert project.state(project.sidecar)["ExitCode"] == 0, project.last_words()
        assert project.name not in stack.states()
