"""The least any registry could need to tell a crowd: one process that sends each dependent the same ready-made patch and nothing else.

Run as a program by `floor`: blast.py PORT COUNT; it sends when it is given a line, reads the answers, and says when it is done.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from itertools import count

from crowd import Crowd
from figures import Row, Scale, percentile
from machine import on_server_cpu

URL = "http://127.0.0.1:1/s/%04d"
LIMIT_S = 20.0


async def floor(workload: str, dependents: int, scale: Scale) -> list[Row]:
    """Return how long the harness and the kernel take by themselves."""
    async with Crowd() as crowd:
        with on_server_cpu():
            sender = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(crowd.port), str(dependents), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        assert sender.stdin is not None
        assert sender.stdout is not None
        times = []
        for number in range(6 if scale.quick else 20):
            await asyncio.wait_for(sender.stdout.readline(), LIMIT_S)
            await asyncio.sleep(0.1)
            expected = crowd.expect(range(dependents), added=URL % number)
            started = time.perf_counter()
            sender.stdin.write(b"\n")
            times.append(await expected.wait(LIMIT_S) - started)
            crowd.forget(expected)
        sender.kill()
        await sender.wait()
    del times[0]  # connections used for the first time
    return [(workload, "last knows, p50", "ms", 1000 * percentile(times, 0.5)), (workload, "last knows, max", "ms", 1000 * max(times))]


def main() -> None:
    """Send a patch to all whenever a line comes."""
    port, dependents = map(int, sys.argv[1:])
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(dependents)]
    for number in count():
        entry = {"Name": "Target", "URL": URL % number, "InstanceID": "Target-0123456789abcdef"}
        body = json.dumps({"Added": [entry], "Revision": number, "Previous": number, "Epoch": "0123456789abcdef"})
        head = f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        whole = [f"POST /u/{index} {head}".encode() for index in range(dependents)]
        print("ready", flush=True)
        if not sys.stdin.readline():
            return
        for line, said in zip(lines, whole, strict=True):
            line.sendall(said)
        for line in lines:
            line.recv(4096)


if __name__ == "__main__":
    main()
