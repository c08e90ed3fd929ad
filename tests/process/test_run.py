"""`pillion run`: a local command with a sidecar beside it, from start to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from programs import Program, eventually
from sidecar_bench import ASK_S, free_port
from stub_registry import stub_registry

# Registered as long as it runs; says what it was told, and when SIGTERM came.
APP = """
import os, signal, socket, sys, time
def stop(number, frame):
    print("stopped", time.time(), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("url", os.environ["PILLION_URL"], flush=True)
while True:
    time.sleep(0.05)
"""


def words(state: Path, *command: str, port: int = 6000, registry: str = "http://127.0.0.1:1") -> tuple[str, ...]:
    options = ("--name", "A", "--port", str(port), "--registry", registry, "--state-dir", str(state))
    return ("run", *options, "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--", *command)


@contextmanager
def run(*given: str) -> Iterator[Program]:
    running = Program(given, {})
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def python(code: str, *more: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code, *more)


def said(running: Program, word: str) -> str:
    """Return the rest of the first line of the command's output that begins with a word."""
    return eventually(lambda: [line.split(" ", 1)[1].strip() for line in list(running.output) if line.startswith(word + " ")])[0]


def test_the_command_gets_the_sidecars_address(tmp_path: Path) -> None:
    with run(*words(tmp_path, *python(APP, str(free_port())))) as running:
        url = said(running, "url")
        assert url == running.addresses[1]
        assert requests.get(f"{url}/livez", timeout=ASK_S).status_code == 200


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("import os; os.kill(os.getpid(), 15)", 143)],
)
def test_the_exit_code_is_the_commands(tmp_path: Path, code: str, exit_code: int) -> None:
    with run(*words(tmp_path, *python(code))) as running:
        assert running.process.wait(10) == exit_code


def test_sigterm_withdraws_the_app_and_stops_the_command_then(tmp_path: Path) -> None:
    port = free_port()
    with stub_registry() as registry, run(*words(tmp_path, *python(APP, str(port)), port=port, registry=registry.url)) as running:
        said(running, "url")
        eventually(lambda: registry.names() == ["A"])
        gone_at: list[float] = []
        remove = registry.remove

        def note(url: str) -> bool:
            gone_at.append(time.time())
            time.sleep(0.1)
            return remove(url)

        registry.remove = note  # type: ignore[method-assign]
        assert running.stop() == 0
        assert registry.names() == []
        assert gone_at[0] < float(said(running, "stopped"))


def test_the_app_is_withdrawn_when_its_command_ends(tmp_path: Path) -> None:
    port = free_port()
    with stub_registry() as registry, run(*words(tmp_path, *python(APP, str(port)), port=port, registry=registry.url)) as running:
        said(running, "url")
        eventually(lambda: registry.names() == ["A"])
        child = int(Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()[0])
        os.kill(child, signal.SIGKILL)
        assert running.process.wait(10) == 137
        assert registry.names() == []


@pytest.mark.parametrize("tail", [(), ("--",)])
def test_a_missing_command_is_a_configuration_fault(tmp_path: Path, tail: tuple[str, ...]) -> None:
    with run("run", "--name", "A", "--port", "6000", "--state-dir", str(tmp_path), *tail) as running:
        assert running.process.wait(10) == 2
        eventually(lambda: any("no command; write it after `--`: pillion run --name X --port N -- CMD" in line for line in running.lines))


def test_a_missing_command_is_told_together_with_the_other_faults(tmp_path: Path) -> None:
    with run("run", "--port", "x") as running:
        assert running.process.wait(10) == 2
        told = eventually(lambda: "".join(running.lines) if any("--help" in line for line in running.lines) else "")
        assert "--name or PILLION_NAME" in told
        assert "--port" in told
        assert "no command" in told


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/at-all", "No such file or directory"),
        ("/etc", "Permission denied"),
        ("pillion-no-such-command", "No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_started_is_told_without_a_trace(tmp_path: Path, command: str, reason: str) -> None:
    with run(*words(tmp_path, command)) as running:
        assert running.process.wait(10) == 1
        [told] = eventually(lambda: running.events("start_failed"))
        assert reason in told["message"]
        assert command in told["message"]
        assert not any("Traceback" in line for line in running.lines)


def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf now', flush=True); time.sleep(20)"
    with run(*words(tmp_path, *python(stubborn))) as running:
        said(running, "deaf")
        child = int(Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()[0])
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: running.events("stopping"))
        time.sleep(0.3)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        try:
            assert running.process.wait(3) == 1
        finally:
            os.kill(child, signal.SIGKILL)
