"""The sidecar's spool as a subject: what it answered 200 reaches a log service, once, whenever the sidecar is killed.

An app's lines have no numbers that the sidecar could know a repeat by; so what had no answer is not sent again, and may have come or not.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from processes import Client
from stub_log import StubLog
from stub_registry import StubRegistry
from subjects import BATCH, Findings, ReadFailed, Refused

FORWARDED_S = 20.0


class SidecarSubject:
    """A sidecar that stands alone and forwards to a log service of the suite's own."""

    command = "sidecar"
    is_cut_off = False  # whether there is no log service while lines are sent

    def __init__(self, seed: int = 1) -> None:
        self._log = StubLog()
        self._log.start()
        self._registry = StubRegistry(heartbeats=False)
        server: Any = self._registry._server
        server.handle_error = lambda *words: None  # a connection that a kill cut
        self._registry.register({"ServiceName": "LogService", "ServiceURL": self._log.url, "ServiceUpdateURL": f"{self._log.url}/services"})
        self._there = True
        self._sent = 0
        self._kept: set[int] = set()

    @property
    def acknowledged(self) -> int:
        return len(self._kept)

    def words(self, folder: Path, port: int) -> list[str]:
        words = ["--name", "Faults", "--port", "1", "--check", "none", "--registry", self._registry.url, "--state-dir", str(folder)]
        return [*words, "--listen", "127.0.0.1:0", "--local", f"127.0.0.1:{port}", "--project-dir", "", "--drain-timeout", "0s"]

    def step(self, client: Client) -> None:
        if self.is_cut_off and self._there:
            self._log.kill()
            self._there = False
        numbers = range(self._sent, self._sent + BATCH)
        self._sent += BATCH
        body = "\n".join(json.dumps({"Message": f"{number} {'x' * 5_000}"}) for number in numbers).encode()
        status, answer = client.ask("POST", "/logs", body, "application/x-ndjson")
        if status != 200 or json.loads(answer)["Accepted"] != BATCH:
            raise Refused(f"{status}: {answer.decode('utf-8', 'replace')[:200]}")
        self._kept.update(numbers)

    def look(self, client: Client) -> Findings:
        if not self._there:
            self._log.start()
            self._there = True
        deadline = time.monotonic() + FORWARDED_S
        while json.loads(client.ask("GET", "/status")[1])["Spool"]["Waiting"]:
            if time.monotonic() > deadline:
                raise ReadFailed("the spool is not forwarded")
            time.sleep(0.01)
        entries = list(self._log.entries)
        found = [int(entry["Message"].split()[0]) for entry in entries if "Gap" not in entry]
        there = set(found)
        strange = len(there - set(range(self._sent))) + len(entries) - len(found)
        strange += [entry["Seq"] for entry in entries] != list(range(1, len(entries) + 1))
        return Findings(len(self._kept - there), len(found) - len(there), strange)

    def close(self) -> None:
        self._registry.stop()
        self._log.kill()


class CutOffSidecarSubject(SidecarSubject):
    """The same while there is no log service: all that was answered stands in the spool alone."""

    is_cut_off = True
