"""Runs one server process of a peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from machine import on_server_cpu

START_S = 40.0
STOP_S = 15.0
# Where get-peers puts what Debian's release does not have.
FOLDER = Path(os.environ.get("PILLION_BENCH_PEERS") or Path.home() / ".cache" / "pillion-bench")


def find(command: str) -> str | None:
    """Return a command's path, or None when it is not installed."""
    return shutil.which(command) or shutil.which(command, path=str(FOLDER))


@contextlib.asynccontextmanager
async def server(words: list[str], folder: Path, ready: Callable[[], Awaitable[bool]]) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends.

    Args:
        words: its command line.
        folder: its working directory; its output goes to a file there.
        ready: says whether it answers; may raise OSError while it does not.

    Raises:
        RuntimeError: it does not get ready.
    """
    output = folder / "output"
    with output.open("wb") as sink, on_server_cpu():
        process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        await _wait_for(process, ready, output)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


async def _wait_for(process: subprocess.Popen[bytes], ready: Callable[[], Awaitable[bool]], output: Path) -> None:
    for _ in range(int(START_S / 0.1)):
        try:
            if await ready():
                return
        except (OSError, RuntimeError):
            pass  # not yet
        if process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not get ready:\n{output.read_text(errors='replace')[-1500:]}")
