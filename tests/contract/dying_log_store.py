"""A file store in a process of its own that kills itself (-9) at its nth call to the system that changes the disk.

`python dying_log_store.py FOLDER N`: prints the Seq of each entry that was acknowledged, on a line of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pillion_log.entries import from_line
from pillion_log.store.base import Appended
from pillion_log.store.files import FileOptions, FileStore

ENTRIES = 60
CALLS = ("write", "pwrite", "fdatasync", "fsync", "replace", "rename", "unlink", "ftruncate", "truncate")


def kill_at(last: int) -> None:
    """Count the calls from now on, and die before the one with that number has returned, or half way through."""
    lock = threading.Lock()
    count = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            if name == "write" and args[0] == 1:
                return real(*args)
            with lock:
                count += 1
                if count == last:
                    if name in ("write", "pwrite"):
                        real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))


async def main() -> None:
    """Append until death."""
    folder = Path(sys.argv[1])
    kill_at(int(sys.argv[2]))
    store = FileStore(folder, FileOptions(rotate_bytes=2000, max_age_s=1e10))
    await store.load()
    for seq in range(1, ENTRIES + 1):
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        body = f'{{"Message":"{"x" * 200}","Source":"s","Seq":{seq}}}'.encode()
        store.append([from_line(body, "2026-01-31T12:00:00.123Z")], told.set_result)
        if isinstance(await told, Appended):
            os.write(1, b"%d\n" % seq)
        await asyncio.sleep(0.001)  # so that the keeper comes to pack meanwhile
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
