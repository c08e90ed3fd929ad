"""100 tails while 5,000 lines a second are taken in: how far behind they are, and what it takes.

Half of the tails follow everything, the others one service each of ten (tail_readers.py); one more does not read at all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from figures import OURS, Row, Scale, percentile
from load import request
from machine import disk_folder, usage
from ours import log_service
from programs import Program
from tail_readers import SERVICES, TAILS

LINES_PER_S = 5_000
BATCHES_PER_S = 20
LINES = LINES_PER_S // BATCHES_PER_S
SECONDS, QUICK_SECONDS = 30, 8
TEXT = "GET /students/17/grades 200 12ms user=4711 agent=Mozilla/5.0 request=8f2c1e00"
LIMIT_S = 90.0


async def write(log: Program, seconds: float) -> int:
    """Send lines at the rate; returns how many."""
    host, _, port = log.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    began = time.monotonic()
    sent = 0
    for number in range(int(seconds * BATCHES_PER_S)):
        await asyncio.sleep(max(0.0, began + number / BATCHES_PER_S - time.monotonic()))
        now = time.time()
        lines = [{"Service": f"S{n % SERVICES}", "Message": f"{TEXT}{n:08x}", "Instance": "s-1", "Sent": now} for n in range(LINES)]
        writer.write(request("POST", f"{log.url}/logs", "\n".join(map(json.dumps, lines)).encode(), "application/x-ndjson"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        assert head.startswith(b"HTTP/1.1 200 "), head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]))
        sent += LINES
    writer.close()
    return sent


async def _ours(scale: Scale) -> list[Row]:
    seconds = QUICK_SECONDS if scale.quick else SECONDS
    words = (sys.executable, str(Path(__file__).with_name("tail_readers.py")))
    with disk_folder() as folder, log_service(folder) as log:
        port, lines = log.url.rpartition(":")[2], str(seconds * LINES_PER_S)
        readers = await asyncio.create_subprocess_exec(*words, port, lines, stdout=asyncio.subprocess.PIPE, limit=1 << 26)
        assert readers.stdout is not None
        try:
            assert await asyncio.wait_for(readers.stdout.readline(), LIMIT_S) == b"ready\n"
            before = usage(log.process.pid)
            sent = await write(log, seconds)
            told = json.loads(await asyncio.wait_for(readers.stdout.readline(), LIMIT_S))
            after = usage(log.process.pid)
            await readers.wait()
        finally:
            with suppress(ProcessLookupError):
                readers.kill()
    if told["Missing"] or told["Gaps"]:
        raise RuntimeError(f"of {sent} lines {told['Missing']} entries did not come, and there were {told['Gaps']} gaps")
    workload = f"tails n={TAILS}"
    return [
        (workload, "lines", "1/s", sent / seconds),
        (workload, "behind p50", "ms", 1000 * percentile(told["Behind"], 0.5)),
        (workload, "behind p99", "ms", 1000 * percentile(told["Behind"], 0.99)),
        (workload, "behind max", "ms", 1000 * max(told["Behind"])),
        (workload, "cpu", "of a core", (after.cpu_s - before.cpu_s) / seconds),
        (workload, "resident", "MB", after.resident / 1e6),
    ]


PEERS = {OURS: _ours}
