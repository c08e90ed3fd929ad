"""A registry, a log service and many sidecars as plain processes, and the ways to break them while lines are sent."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from processes import Client, Program, free_port

UNTIL_S = 30.0
MOUNT_S = 20.0


class Disk:
    """Where the log service keeps its entries: a file system of its own with a size, where one can be mounted; else a folder."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        self._mounted = os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False, timeout=MOUNT_S).returncode == 0
        self._filler = path / "filler"

    def fill(self, writer: int) -> None:
        """Leave no room; where the disk is shared with others, only the process that writes to it has none."""
        if not self._mounted:
            _, hard = resource.prlimit(writer, resource.RLIMIT_FSIZE)
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (1, hard))
            return
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * (1 << 20)):
                pass

    def clear(self, writer: int) -> None:
        """Make room again."""
        if not self._mounted:
            _, hard = resource.prlimit(writer, resource.RLIMIT_FSIZE)
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (hard, hard))
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it: what is on it is gone."""
        if self._mounted:
            subprocess.run(["umount", str(self.path)], check=True, timeout=MOUNT_S)


class Member:
    """A program of the fleet, which comes back on the same port with the same words."""

    def __init__(self, name: str, command: str, words: list[str], logs: Path, port: int = 0, sabotage: str = "") -> None:
        self.name = name
        self.port = port or free_port()
        self.client = Client(self.port)
        self._command = command
        self._words = words
        self._log = logs / f"{name}.log"
        self._sabotage = sabotage
        self._program: Program | None = None

    @property
    def pid(self) -> int:
        assert self._program is not None
        return self._program.process.pid

    def start(self) -> None:
        """Start it; `wait_up` waits for it."""
        self._program = Program(self._command, self.port, self._words, self._log, sabotage=self._sabotage)

    def wait_up(self, client: Client | None = None) -> None:
        """Return when it answers."""
        assert self._program is not None
        self._program.wait_up(client or self.client)

    def kill(self) -> None:
        """kill -9."""
        assert self._program is not None
        self._program.kill()
        self.client.close()

    def pause(self, for_s: float, meanwhile: Callable[[], None]) -> None:
        """Stop it in its tracks for a time."""
        os.kill(self.pid, signal.SIGSTOP)
        meanwhile()
        time.sleep(for_s)
        os.kill(self.pid, signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._program is not None:
            self._program.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.client.close()
        return self._program.stop() if self._program else 0


class Fleet:
    """The members. `sidecars` are those that lines are sent to.

    Args:
        scratch: folder for all that they keep.
        count: how many sidecars.
        disk_size: bytes of the log service's disk.
        small: how many of the sidecars have a spool so small that it overflows whenever the log service is away.
        spool: size of such a spool, for example 128K.
        sabotage: of the log service; see launch.py.
    """

    def __init__(self, scratch: Path, count: int, disk_size: int, small: int, spool: str, sabotage: str = "") -> None:
        self.logs = scratch / "logs"
        self.logs.mkdir()
        self.disk = Disk(scratch / "log-data", disk_size)
        self.store = self.disk.path / "store"
        self._registry = Member("registry", "registry", ["--store", "memory:", "--log-to", ""], self.logs)
        registry = f"http://127.0.0.1:{self._registry.port}"
        self.log = Member("log", "log", ["--store", f"files:{self.store}", "--log-rotate", "8M"], self.logs, sabotage=sabotage)
        self._provider = self._sidecar("LogService", scratch, registry, self.log.port, "--check", "http:/livez")
        self.sidecars = [
            self._sidecar(f"Node{number:02}", scratch, registry, 1, "--check", "none", *(("--spool-size", spool) if number < small else ()))
            for number in range(count)
        ]

    def start(self) -> None:
        """Start all, and return when all answer."""
        for member in (self._registry, self.log):
            member.start()
        for member in (self._registry, self.log):
            member.wait_up()
        for member in (self._provider, *self.sidecars):
            member.start()
        for member in (self._provider, *self.sidecars):
            member.wait_up()

    def waiting(self) -> int:
        """Return how many lines are in spools."""
        return sum(json.loads(member.client.ask("GET", "/status")[1])["Spool"]["Waiting"] for member in self.sidecars)

    def ready(self) -> bool:
        """Return whether the log service says that it keeps what it is sent."""
        try:
            return self.log.client.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def fill_disk(self, for_s: float, meanwhile: Callable[[], None]) -> bool:
        """Fill the log service's disk for a time; returns whether it said so, and then went on by itself."""
        self.disk.fill(self.log.pid)

        def refuses() -> bool:
            meanwhile()  # its file ends in zeros, over which it writes on a full disk as well
            return not self.ready()

        told = _until(refuses)
        time.sleep(for_s)
        self.disk.clear(self.log.pid)
        return told and _until(self.ready)

    def stop(self) -> list[str]:
        """Stop all but the disk; returns what did not stop cleanly."""
        codes = {member.name: member.stop() for member in (*self.sidecars, self._provider, self.log, self._registry)}
        for member in (self._registry, self.log, self._provider, *self.sidecars):
            member.client.close()
        return [f"{name} ended with {code}" for name, code in codes.items() if code]

    def _sidecar(self, name: str, scratch: Path, registry: str, port: int, *more: str) -> Member:
        local = free_port()
        words = ["--name", name, "--port", str(port), "--registry", registry, "--local", f"127.0.0.1:{local}"]
        words += ["--state-dir", str(scratch / name), "--project-dir", "", "--drain-grace", "0s", *more]
        member = Member(name, "sidecar", words, self.logs)
        member.client = Client(local)
        return member


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + UNTIL_S
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
