"""`pillion attach` and `pillion detach` beside the running stack: an app that was never meant for Pillion is registered, and gone again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker.errors import NotFound
from docker.models.containers import Container
from programs import eventually
from stack import CALL_S, Stack

APP_IMAGE = "pillion/demo-grading:dev"  # any program that listens; it listens on 6000
UP_S = 60.0
COMMAND_S = 120.0


def pillion(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pillion_common", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)


def beside(stack: Stack) -> list[str]:
    return ["--network", f"{stack.project}_default", "--token-volume", f"{stack.project}_secrets"]


def states(stack: Stack, name: str) -> list[str]:
    """Return the states of a service's instances that are still known and not gone."""
    listed = requests.get(f"{stack.registry_url}/services", params={"name": name}, timeout=CALL_S).json()["Services"]
    return [instance["State"] for instance in listed]


@pytest.fixture
def engine() -> Iterator[Any]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def app(whole: Stack, engine: Any) -> Iterator[Container]:
    """A container on the engine's own bridge, where no name resolves."""
    name = f"pillion-test-app-{os.getpid()}"
    # The image was built by compose, whose labels the container must not take, or it would be one of the stack.
    labels = {"com.docker.compose.project": "", "com.docker.compose.service": ""}
    container = engine.containers.run(APP_IMAGE, name=name, detach=True, labels=labels)
    yield container
    for one in engine.containers.list(all=True, filters={"name": name}):
        one.remove(force=True, v=True)
    whole.forget_others()
    for volume in engine.volumes.list(filters={"name": name}):
        volume.remove(force=True)


def traces(engine: Any, app: Container) -> list[str]:
    """Return what attaching has left: containers, volumes, networks of the app."""
    app.reload()
    found = [one.name for one in engine.containers.list(all=True, filters={"name": f"{app.name}-sidecar"})]
    found += [one.name for one in engine.volumes.list(filters={"name": f"{app.name}-sidecar"})]
    return found + [name for name in app.attrs["NetworkSettings"]["Networks"] if name != "bridge"]


def test_a_running_container_is_attached_found_and_detached(whole: Stack, engine: Any, app: Container) -> None:
    done = pillion("attach", "docker", app.name, "--name", "Foreign", "--port", "6000", *beside(whole))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready: Foreign is registered, with port 6000" in done.stdout
    eventually(lambda: states(whole, "Foreign") == ["up"], UP_S)
    sidecar = engine.containers.get(f"{app.name}-sidecar")
    settings = sidecar.attrs["HostConfig"]
    assert (settings["ReadonlyRootfs"], settings["CapDrop"], settings["PidsLimit"]) == (True, ["ALL"], 32)
    assert settings["SecurityOpt"] == ["no-new-privileges:true"]
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"

    app.restart(timeout=1)
    eventually(lambda: engine.containers.get(sidecar.id).attrs["RestartCount"] == 1 and states(whole, "Foreign") == ["up"], UP_S)

    again = pillion("attach", "docker", app.name, "--port", "6000", *beside(whole))
    assert again.returncode == 2
    assert f"has a sidecar already, the container {app.name}-sidecar" in again.stderr

    done = pillion("detach", app.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(whole, "Foreign") == []
    assert traces(engine, app) == []


def test_ctrl_c_while_it_waits_leaves_nothing(whole: Stack, engine: Any, app: Container) -> None:
    words = ["attach", "docker", app.name, "--name", "Never", "--port", "6001", *beside(whole)]
    command = subprocess.Popen(
        [sys.executable, "-m", "pillion_common", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert command.stdout is not None
    with command.stdout as said:
        assert any("waiting until it is ready" in line for line in said)
        command.send_signal(signal.SIGINT)
        rest = said.read()
    assert command.wait(COMMAND_S) == 1
    assert "taken back: nothing is left of it" in rest
    assert traces(engine, app) == []


def test_a_sidecar_that_is_not_ready_says_why_and_stays(whole: Stack, engine: Any, app: Container) -> None:
    done = pillion("attach", "docker", app.name, "--name", "Never", "--port", "6001", "--timeout", "4", *beside(whole))
    assert done.returncode == 1
    assert "it is not ready yet: app: " in done.stdout
    assert traces(engine, app) != []
    assert pillion("detach", app.name).returncode == 0
    assert traces(engine, app) == []


def test_a_sidecar_with_a_wrong_token_is_refused_by_name(whole: Stack, engine: Any, app: Container, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 43)
    token.chmod(0o444)
    tmp_path.chmod(0o755)
    words = ["--network", f"{whole.project}_default", "--token-file", str(token), "--timeout", "3"]
    done = pillion("attach", "docker", app.name, "--name", "Wrong", "--port", "6000", *words)
    assert done.returncode == 1
    assert "token" in done.stdout.lower()
    assert pillion("detach", app.name).returncode == 0


def test_a_container_that_does_not_run_is_refused(whole: Stack, app: Container) -> None:
    app.stop(timeout=1)
    done = pillion("attach", "docker", app.name, "--port", "6000", *beside(whole))
    assert done.returncode == 2
    assert f"{app.name} is not running, it is exited: docker start {app.name}" in done.stderr


@pytest.fixture
def project(tmp_path: Path, whole: Stack) -> Iterator[Path]:
    """A compose project of somebody else."""
    base = tmp_path / f"foreign-{os.getpid()}" / "compose.yml"
    base.parent.mkdir()
    base.write_text(f"services:\n  till:\n    image: {APP_IMAGE}\n    pull_policy: never\n    expose: [6000]\n")
    yield base
    override = base.parent / "docker-compose.pillion.yml"
    files = [base, *([override] if override.exists() else [])]
    compose(files, "down", "--volumes", "--remove-orphans", "--timeout", "2")
    whole.forget_others()
    client = docker.from_env()
    for volume in client.volumes.list(filters={"name": base.parent.name}):
        volume.remove(force=True)
    client.close()


def compose(files: list[Path], *words: str) -> None:
    command = ["docker", "compose", *(part for file in files for part in ("-f", str(file))), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0, done.stderr


def test_a_service_of_another_compose_project_is_attached_found_and_detached(whole: Stack, project: Path) -> None:
    compose([project], "up", "-d")
    # By its container's name the registry is found among all that run here, with its network and its token.
    done = pillion("attach", "compose", str(project), "till", "--registry", f"http://{whole.container('registry').name}:3000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"in the network {whole.project}_default, its token in the volume {whole.project}_secrets" in done.stdout
    override = project.parent / "docker-compose.pillion.yml"
    assert done.stdout.endswith(f"now type:\n  docker compose -f {project} -f {override} up -d\n")
    compose([project, override], "up", "-d")
    eventually(lambda: states(whole, "Till") == ["up"], UP_S)

    done = pillion("detach", "compose", str(project), "till")
    assert done.returncode == 0, done.stdout + done.stderr
    compose([project], "up", "-d", "--remove-orphans")
    eventually(lambda: states(whole, "Till") == [], UP_S)


def test_a_container_that_is_gone_can_be_detached_from(whole: Stack, engine: Any, app: Container) -> None:
    assert pillion("attach", "docker", app.name, "--port", "6000", *beside(whole)).returncode == 0
    app.remove(force=True)
    done = pillion("detach", app.name)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(NotFound):
        engine.containers.get(f"{app.name}-sidecar")
