"""What the tests of the demo apps stand on: starting an app as a process, and stubs of what it talks to.

Owns the stub sidecar (providers and the log lines it was sent) and the stub GradingService (answers as told). The apps know
plain HTTP only, so nothing of Pillion runs here.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "images" / "demo"
WAIT_S = 10.0
BUILD_S = 300.0

LISA = {"ID": 1, "FirstName": "Lisa", "LastName": "Vega", "Average": 89}
LISA_GRADES = {**LISA, "Grades": [{"Title": "Quiz 1", "Type": "Quiz", "Score": 85}, {"Title": "Final", "Type": "Exam", "Score": 93}]}


def wait_for(condition: Callable[[], bool], what: Callable[[], str] | str, timeout_s: float = WAIT_S) -> None:
    """Return when the condition holds; fail with `what` if it does not within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


class App:
    """A demo app as a process: `url`, and the `lines` of its output so far."""

    def __init__(self, command: list[str], sidecar_url: str, port: int = 0) -> None:
        environment = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "PILLION_URL": sidecar_url}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        first: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(first,), daemon=True)
        self.reader.start()
        try:
            line = first.get(timeout=WAIT_S)
        except queue.Empty:
            line = "(nothing)"
        if not line.startswith("listening on "):
            self.close()
            pytest.fail(f"{command} did not start; its first line was: {line}")
        self.url = line.removeprefix("listening on ")
        self.port = int(self.url.rsplit(":", 1)[1])

    def _read(self, first: queue.Queue[str]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if len(self.lines) == 1:
                first.put(self.lines[0])
        if not self.lines:
            first.put("(it ended without one)")

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=WAIT_S)
        self.reader.join(timeout=WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(command: list[str], sidecar_url: str, port: int = 0) -> Iterator[App]:
    """Run a demo app for the length of a with block. Port 0 takes any free one."""
    app = App(command, sidecar_url, port)
    try:
        yield app
    finally:
        app.close()


def build_grading(folder: Path) -> list[str]:
    """Build GradingService into the folder and return the command that runs it. Skips without Go."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    program = folder / "grading"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    built = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=DEMO / "grading",
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return [str(program)]


def portal_command() -> list[str]:
    """Return the command that runs Portald. Skips without Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    return [node, str(DEMO / "portal" / "server.js")]


class Stub:
    """An HTTP server on a free port in a thread; a subclass answers in `handle`."""

    def __init__(self) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the other side's acknowledgement

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, content = stub.handle(self.command, self.path, body)
                data = content.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the app had enough: some tests want just that

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=WAIT_S)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class StubSidecar(Stub):
    """Answers lookups from `provider_url` (None: 404) and keeps what was logged in `messages`."""

    def __init__(self, provider_url: str | None = None) -> None:
        self.provider_url = provider_url
        self.messages: list[str] = []
        self.log_status = 200
        super().__init__()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        if (method, path) == ("POST", "/log"):
            if self.log_status == 200:
                self.messages.append(body.decode())
            return self.log_status, "{}"
        if (method, path) == ("GET", "/providers/GradingService") and self.provider_url is not None:
            return 200, json.dumps({"Name": "GradingService", "URL": self.provider_url, "InstanceID": "grading-1"})
        return 404, json.dumps({"Error": "no_provider", "Message": "No instance of GradingService is up: start one."})

    def wait_for_message(self, message: str) -> None:
        wait_for(lambda: message in self.messages, lambda: f"log message {message!r}; there were {self.messages[-20:]}")


class StubGrading(Stub):
    """Answers each (method, path) from `answers`; waits `delay_s` first; keeps what was posted in `posted`."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {
            ("GET", "/students"): (200, [LISA]),
            ("GET", "/students/1"): (200, LISA_GRADES),
            ("POST", "/students/1/grades"): (201, {"Title": "Quiz 3", "Type": "Quiz", "Score": 87}),
        }
        self.posted: list[Any] = []
        self.delay_s = 0.0
        super().__init__()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        if method == "POST":
            self.posted.append(json.loads(body))
        time.sleep(self.delay_s)
        status, content = self.answers.get((method, path), (404, {"Error": "no_student", "Message": "There is no such student."}))
        return status, content if isinstance(content, str) else json.dumps(content)
