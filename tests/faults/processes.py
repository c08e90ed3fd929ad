"""Starts Pillion's programs for the fault suites: on a fixed port, so that they come back where they were, with their log in a file."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 30.0
STOP_S = 20.0
ASK_S = 15.0
_LAUNCHER = Path(__file__).with_name("launch.py")


class Died(Exception):
    """The program ended where it should not have."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without what would set a program's options, and with more."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PILLION_")}, **(more or {})}


class Client:
    """Asks one program over one connection, which it opens anew when it broke."""

    def __init__(self, port: int, timeout_s: float = ASK_S) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Return the answer's status and body. What only asks is asked again where a connection was closed because it had been idle.

        Raises:
            OSError: there was none.
        """
        kept = self._connection.sock is not None
        try:
            return self._ask(method, path, body, kind)
        except ConnectionError:
            if method != "GET" or not kept:
                raise
            return self._ask(method, path, body, kind)

    def _ask(self, method: str, path: str, body: bytes | None, kind: str) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as exc:
            self.close()
            raise ConnectionError(f"no whole answer: {exc!r}") from exc
        except OSError:
            self.close()
            raise

    def is_up(self) -> bool:
        """Return whether the program answers."""
        try:
            return self.ask("GET", "/livez")[0] == 200
        except OSError:
            return False

    def hang_up(self) -> None:
        """End the connection from another thread; whoever waits for an answer gets one that has arrived, or an error."""
        if (connected := self._connection.sock) is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Program:
    """`pillion COMMAND`, as an operator starts it; or sabotaged, see launch.py."""

    def __init__(self, command: str, port: int, words: Sequence[str], log: Path, sabotage: str = "") -> None:
        self._log = log
        start = [str(_LAUNCHER), command, sabotage, "--"] if sabotage else ["-m", "pillion_common", command]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *start, "--listen", f"127.0.0.1:{port}", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=clean_environment(),
            )

    def wait_up(self, client: Client) -> None:
        """Return when it answers.

        Raises:
            Died: it ended instead, or took too long.
        """
        deadline = time.monotonic() + START_S
        while not client.is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Died(f"did not start (exit code {self.process.poll()}): {tail(self._log)}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


class Launcher:
    """Starts one program many times, quickly; see launch.py. One process at a time."""

    def __init__(self, command: str, log: Path, sabotage: str = "", env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.pid = 0
        self.held = False
        self.status: int | None = None
        words = [sys.executable, str(_LAUNCHER), command, *([sabotage] if sabotage else [])]
        with log.open("ab") as file:
            self._server = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=clean_environment(env), bufsize=0
            )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.pid and not self.ended(0):
            os.kill(self.pid, signal.SIGKILL)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.kill()
        self._server.wait(STOP_S)

    def start(self, words: Sequence[str], hold: bool = False) -> int:
        """Start the program; returns its process id."""
        assert self._server.stdin is not None
        line = {"Words": list(words), "Log": str(self.log), "Hold": hold}
        self._server.stdin.write(json.dumps(line).encode() + b"\n")
        self.status = None
        self.held = hold
        self.pid = int(self._read(START_S)["Pid"])
        return self.pid

    def ended(self, timeout_s: float = STOP_S) -> bool:
        """Return whether the process has ended; then `status` tells how."""
        if self.pid and self.status is None and (told := self._read(timeout_s)):
            self.status = int(told["Status"])
        return self.status is not None

    def wait_up(self, client: Client) -> bool:
        """Return True when it answers, False when it ended instead.

        Raises:
            Died: neither within the time.
        """
        deadline = time.monotonic() + START_S
        while not client.is_up():
            if self.ended(0.005):
                return False
            if time.monotonic() > deadline:
                raise Died(f"neither answers nor ends: {tail(self.log)}")
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it is still there."""
        if not self.ended(0):
            os.kill(self.pid, number)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout_s)[0]:
            return {}
        line = b""
        while not line.endswith(b"\n"):
            piece = self._server.stdout.read(1)
            if not piece:
                raise Died(f"the launcher ended: {tail(self.log)}")
            line += piece
        found: dict[str, Any] = json.loads(line)
        return found


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a program's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
