"""The old Go design, built at need from tests/bench/classic: a registry in memory, a log service without a sync."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from machine import free_port

from peers.process import find, server

NAME = "classic"
SOURCES = Path(__file__).parents[1] / "classic"


class Classic(NamedTuple):
    """A running program: its address and its process."""

    url: str
    process: subprocess.Popen[bytes]


def installed() -> bool:
    return find("go") is not None


@contextlib.asynccontextmanager
async def classic(program: str, folder: Path, *words: str) -> AsyncIterator[Classic]:
    """Run `registry` or `log`, words are what follows its address."""
    port = free_port()

    async def ready() -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True

    async with server([f"{_built()}/{program}", f"127.0.0.1:{port}", *words], folder, ready) as process:
        yield Classic(f"http://127.0.0.1:{port}", process)


@functools.cache
def _built() -> str:
    folder = tempfile.mkdtemp(prefix="pillion-classic-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = [str(find("go")), "build", "-o", f"{folder}/", "./..."]
    subprocess.run(words, cwd=SOURCES, check=True, env=os.environ | {"GOPROXY": "off"})
    return folder
