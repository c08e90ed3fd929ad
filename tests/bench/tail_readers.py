"""The readers of `tails`, as a program of their own: tail_readers.py PORT LINES.

It says when all are there; and, when each has seen what it is to see of so many lines (or did not in time), as JSON, what they saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

TAILS = 100
SERVICES = 10
LIMIT_S = 60.0

_SENT = b'"Sent":'  # in each entry: when it was
_GAP = b"\nevent: gap\n"


class Tail:
    """One reader: every other one follows everything, the rest one service."""

    def __init__(self, number: int, lines: int) -> None:
        self.query = "" if number % 2 else f"service=S{number // 2 % SERVICES}"
        self.expected = lines if number % 2 else lines // SERVICES
        self.entries = self.gaps = 0
        self.behind_s: list[float] = []  # of the oldest entry in each piece that was read

    async def run(self, port: int, opened: asyncio.Semaphore) -> None:
        """Read until all is there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            writer.write(f"GET /logs/tail?{self.query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            rest = await reader.readuntil(b": here\n")
            opened.release()
            while self.entries < self.expected and (data := await reader.read(1 << 20)):
                now = time.time()
                data = rest[-len(_SENT) + 1 :] + data
                if count := data.count(_SENT):
                    self.entries += count
                    begin = data.find(_SENT) + len(_SENT)
                    end = data.find(b"}", begin)
                    if end > 0:
                        self.behind_s.append(now - float(data[begin:end]))
                self.gaps += data.count(_GAP)
                rest = data
        finally:
            writer.close()


async def follow(port: int, lines: int) -> None:
    """Run all readers, and one that does not read."""
    tails = [Tail(number, lines) for number in range(TAILS)]
    opened = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(tail.run(port, opened)) for tail in tails]
    _, deaf = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
    deaf.write(b"GET /logs/tail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for _ in tails:
        await opened.acquire()
    print("ready", flush=True)
    _, late = await asyncio.wait(tasks, timeout=LIMIT_S)
    for task in late:
        task.cancel()
    deaf.close()
    behind = [each for tail in tails for each in tail.behind_s]
    missing = sum(tail.expected - tail.entries for tail in tails)
    print(json.dumps({"Behind": behind, "Missing": missing, "Gaps": sum(tail.gaps for tail in tails)}), flush=True)


if __name__ == "__main__":
    uvloop.run(follow(int(sys.argv[1]), int(sys.argv[2])))
