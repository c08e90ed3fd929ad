"""Starts the real programs on port 0, as an operator would, and reads from their log where they listen.

`with program("registry", "--store", "memory:") as registry: requests.get(registry.url + "/services")`
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

START_S = 15.0
STOP_S = 15.0

T = TypeVar("T")


def begin_words() -> tuple[str, ...]:
    """Return what the command line of each program begins with."""
    return (sys.executable, "-m", "pillion_common")


class Program:
    """A running program: `addresses` it listens on, its log `lines`, its `process`. `begin` is what its command line begins with."""

    def __init__(self, words: tuple[str, ...], env: dict[str, str], begin: tuple[str, ...] = ()) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PILLION_")}
        self.process = subprocess.Popen(
            [*(begin or begin_words()), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**kept, **env},
            text=True,
        )
        self.lines: list[str] = []
        self.output: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout, self.output), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        with stream:
            into.extend(iter(stream.readline, ""))

    @property
    def addresses(self) -> list[str]:
        return eventually(lambda: self.events("listening"), START_S, self._why)[0]["addresses"]

    @property
    def url(self) -> str:
        return self.addresses[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        parsed = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in parsed if line["event"] == name]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not stop within {STOP_S:g} s\n{''.join(self.lines[-20:])}") from None
        for reader in self._readers:
            reader.join(STOP_S)
        return code

    def _why(self) -> str:
        return f"exit code {self.process.poll()}\n{''.join(self.lines[-20:])}"


@contextmanager
def program(command: str, *words: str, env: dict[str, str] | None = None) -> Iterator[Program]:
    """Run `pillion COMMAND …` on a free port of loopback until the block ends; then it must stop cleanly unless it has ended already."""
    told = "--listen" in words or command == "run" or "PILLION_LISTEN" in (env or {})
    listen = () if told else ("--listen", "127.0.0.1:0")
    running = Program((command, *listen, *words), env or {})
    try:
        assert running.addresses
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def stands_still(pid: int) -> bool:
    """Return whether none of a process's threads runs any more: after SIGSTOP they go on for a moment."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] in "TtXZ" for task in tasks)


def eventually(look: Callable[[], T], timeout_s: float = 10.0, why: Callable[[], str] = lambda: "") -> T:
    """Return what `look` finds as soon as it is true (not None, empty or False)."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {timeout_s:g} s: {why()}")
        time.sleep(0.01)
