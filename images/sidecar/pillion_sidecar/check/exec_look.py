"""Looks at an app by a command: exit code 0 is well, 1 a warning, any other critical, as Nagios and Consul have it.

The command runs without a shell, one at a time, in a process group of its own, which is killed as a whole when its time is over.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from contextlib import closing

from pillion_common.errors import OwnLimit
from pillion_sidecar.check.looks import CRITICAL, OWN_LIMITS, PASS, WARN, Finding

MAX_OUTPUT_BYTES = 16 * 1024
MAX_REASON_CHARS = 200
MAX_LAST_READS = 16  # more than a pipe holds: what goes on talking after the command's end is not waited for


class ExecLook:
    """Runs a command.

    Args:
        command: its words.
        timeout_s: for one run.
    """

    def __init__(self, command: tuple[str, ...], timeout_s: float) -> None:
        self._command = command
        self._timeout_s = timeout_s

    async def look(self) -> Finding:
        """See looks.Look."""
        try:
            output = _Output()
        except OSError as exc:
            raise OwnLimit(f"the check's command cannot be started: {exc.strerror}") from exc
        with closing(output):
            return await self._run(output)

    async def _run(self, output: _Output) -> Finding:
        none = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=none, stdout=output.write_end, stderr=output.write_end, start_new_session=True
            )
        except OSError as exc:
            if exc.errno in (*OWN_LIMITS, errno.EAGAIN):  # no process more is allowed
                raise OwnLimit(f"the check's command cannot be started: {exc.strerror}") from exc
            return Finding(CRITICAL, f"the check's command {self._command[0]} cannot be started: {exc.strerror or exc}")
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await process.wait()
        except TimeoutError:
            return Finding(CRITICAL, f"the check's command did not end within {self._timeout_s:g} s")
        finally:
            _kill_group(process)
            await process.wait()
        return _judge(code, _last_line(output.rest()))

    def let_go(self) -> None:
        """See looks.Look; a command holds nothing."""

    def close(self) -> None:
        """See looks.Look; the run under way ends with the task that waits for it."""


class _Output:
    """The end of what a command says, read as it comes, so that the command never waits for us.

    A pipe of our own: what a command leaves behind in another session may hold the other end for ever, and neither the look's end nor our
    descriptors may depend on that. We hold that end too until the look is over, so that reading never meets the pipe's end.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_end, self._take)

    def rest(self) -> bytes:
        """Return the last of it, once the command has ended."""
        for _ in range(MAX_LAST_READS):
            if not self._take():
                break
        return self._kept

    def close(self) -> None:
        """Let go of both ends."""
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self.write_end)

    def _take(self) -> bool:
        try:
            piece = os.read(self._read_end, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return False
        self._kept = (self._kept + piece)[-MAX_OUTPUT_BYTES:]
        return bool(piece)


def _judge(code: int, reason: str) -> Finding:
    if code == 0:
        return Finding(PASS)
    if code == 1:
        return Finding(WARN, reason or "the check's command ended with exit code 1")
    return Finding(CRITICAL, f"exit code {code}: {reason}" if reason else f"the check's command ended with exit code {code}")


def _kill_group(process: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_REASON_CHARS]
