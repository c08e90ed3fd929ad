"""Runs a program under strace, with one of its system calls made to kill it, or to fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from processes import STOP_S, Died, Launcher

# What changes a store, or opens it. Reads change nothing.
CALLS = ("write", "pwrite64", "writev", "fdatasync", "fsync", "openat", "rename", "renameat2", "unlink", "ftruncate", "fallocate", "mkdir")
ATTACH_S = 10.0

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")


class Call(NamedTuple):
    """One line of a trace."""

    name: str
    words: str  # arguments and result

    @property
    def failed(self) -> bool:
        """Return whether it was made to fail."""
        return "(INJECTED)" in self.words

    @property
    def cut(self) -> bool:
        """Return whether the program died in it."""
        return self.words.rstrip().endswith(("= ?", "<unfinished ...>"))


class Tracer:
    """strace on a process that a Launcher started: on hold, from its first step on; else from now on.

    Args:
        launcher: whose process it is.
        trace: file for the trace.
        calls: which ones are traced.
        inject: strace's words for what happens to them, for example `write:signal=KILL:when=3`; each thread counts its own calls.
        paths: only calls that concern these files.
    """

    def __init__(self, launcher: Launcher, trace: Path, calls: str, inject: str = "", paths: tuple[Path, ...] = ()) -> None:
        self._trace = trace
        trace.unlink(missing_ok=True)
        chosen = [word for path in paths for word in ("-P", str(path))]
        injected = ["-e", f"inject={inject}"] if inject else []
        if launcher.held:
            _wait_for(launcher.pid, "State:\tT")
        self._process = subprocess.Popen(
            [
                "strace",
                "-f",
                "-qq",
                "-y",
                "-s",
                "200",
                "-o",
                str(trace),
                *chosen,
                "-e",
                f"trace={calls}",
                *injected,
                "-p",
                str(launcher.pid),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(launcher.pid, f"TracerPid:\t{self._process.pid}\n")
        os.kill(launcher.pid, signal.SIGCONT)

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(STOP_S)

    def calls(self) -> list[Call]:
        """Return what was traced. Once the program has ended that is all."""
        return [Call(match[2], match[3]) for line in self._trace.read_text(errors="replace").splitlines() if (match := _CALL.match(line))]

    def wait(self) -> None:
        """Wait until the traced program has ended and all is written."""
        self._process.wait(STOP_S)


def can_trace() -> str:
    """Return why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    found = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, check=False, timeout=ATTACH_S)
    return "" if found.returncode == 0 else "strace may not trace here"


def _wait_for(pid: int, text: str) -> None:
    """Wait until each thread's status has a text in it."""
    deadline = time.monotonic() + ATTACH_S
    while not all(text in file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")):
        if time.monotonic() > deadline:
            raise Died(f"process {pid} never was {text!r}")
        time.sleep(0.002)
