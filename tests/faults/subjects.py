"""What the suites do to a program, and what must be true of it afterwards: it keeps what it acknowledged, once.

A subject remembers what was acknowledged. What was sent but never answered may be kept or not; it is sent again.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Protocol

from processes import Client

SOURCES = 2
BATCH = 3
URLS = 12
MAX_SHOWN = 10_000


class Refused(Exception):
    """The program answered that it did not keep it."""


class ReadFailed(Exception):
    """The program answered that it cannot read what it keeps."""


class Findings(NamedTuple):
    """What is wrong with what a program kept."""

    missing: int = 0  # acknowledged, not there
    doubled: int = 0
    strange: int = 0  # there, but never sent, or not in the order in which it was sent

    def __add__(self, other: object) -> Findings:
        assert isinstance(other, Findings)
        return Findings(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Subject(Protocol):
    """A program under test."""

    @property
    def command(self) -> str:
        """Return what is started: `pillion COMMAND`."""

    @property
    def acknowledged(self) -> int:
        """Return how many entries or registrations were acknowledged."""

    def words(self, folder: Path, port: int) -> list[str]:
        """Return its options, with its store in a folder, so that it answers on a port."""

    def step(self, client: Client) -> None:
        """Do one piece of work. Raises Refused, or OSError where there was no answer; then the next steps do it again."""

    def look(self, client: Client) -> Findings:
        """Compare what it keeps with what it acknowledged. Raises OSError, or ValueError for an answer that cannot be read."""

    def close(self) -> None:
        """End what was started for it."""


class LogSubject:
    """The log service: batches of numbered entries, now small, now large, from two sources in turn."""

    command = "log"
    options: tuple[str, ...] = ()
    keeps_all = True

    def __init__(self, seed: int = 1, large: float = 0.3) -> None:
        self._random = random.Random(seed)
        self._large = large
        self._turn = 0
        self._done = Counter[str]()  # the highest number that was acknowledged, by source
        self._sent = Counter[str]()
        self._pending: dict[str, bytes] = {}
        self._newest = ""  # the source whose batch was acknowledged last

    @property
    def acknowledged(self) -> int:
        return self._done.total()

    def words(self, folder: Path, port: int) -> list[str]:
        return ["--listen", f"127.0.0.1:{port}", "--store", f"files:{folder}", "--log-rotate", "64K", *self.options]

    def step(self, client: Client) -> None:
        self._turn += 1
        source = f"source{self._turn % SOURCES}"
        body = self._pending.get(source) or self._make(source)
        status, answer = client.ask("POST", "/logs", body, "application/x-ndjson")
        if status != 200:
            raise Refused(f"{status}: {answer.decode('utf-8', 'replace')[:200]}")
        taken = json.loads(answer)
        if taken["Accepted"] + taken["Duplicates"] != BATCH:
            raise ValueError(f"a batch of {BATCH} was answered {taken}")
        self._done[source] += BATCH
        self._newest = source
        del self._pending[source]

    def look(self, client: Client) -> Findings:
        findings = Findings()
        for source in self._sent:
            found = []
            for line in _lines(client, source):
                entry = json.loads(line)
                if entry.get("Source") == source and "Gap" not in entry:
                    found.append(int(entry["Message"].split()[0]))
                else:
                    findings += Findings(strange=1)
            there = set(found)
            first = 1 if self.keeps_all else min(there, default=self._done[source] + (source != self._newest))
            missing = sum(1 for number in range(first, self._done[source] + 1) if number not in there)
            wrong = len(there - set(range(1, self._sent[source] + 1))) + (found != sorted(found))
            findings += Findings(missing, len(found) - len(there), wrong)
        return findings

    def close(self) -> None:
        pass

    def _make(self, source: str) -> bytes:
        size = 20_000 if self._random.random() < self._large else 100
        first = self._sent[source] + 1
        self._sent[source] += BATCH
        entries = [
            {"Service": source, "Message": f"{number} {'x' * (size if number == first else 20)}", "Source": source, "Seq": number}
            for number in range(first, first + BATCH)
        ]
        body = self._pending[source] = "\n".join(map(json.dumps, entries)).encode()
        return body


class CrowdedLogSubject(LogSubject):
    """The log service with little room, so that the oldest entries give way all the time; and it writes current.log as well.

    What is there of a source is there without a hole, to its newest entry. Of the source that did not write last all may have given way:
    only the growing segment is never removed.
    """

    options = ("--log-max-bytes", "256K", "--log-current", "yes")
    keeps_all = False


class RegistrySubject:
    """The registry: instances that register, register anew with another number, and leave."""

    command = "registry"

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._possible: dict[str, set[str]] = {}  # by URL: what it may be; "" is not registered
        self.acknowledged = 0

    def words(self, folder: Path, port: int) -> list[str]:
        return ["--listen", f"127.0.0.1:{port}", "--store", f"sqlite:{folder / 'registry.db'}", "--heartbeat-interval", "30s"]

    def step(self, client: Client) -> None:
        url = f"http://127.0.0.1:1/{self._random.randrange(URLS)}"
        possible = self._possible.setdefault(url, {""})
        if possible != {""} and self._random.random() < 0.3:
            wanted = ""
            possible.add(wanted)
            status, answer = client.ask("DELETE", "/services", url.encode(), "text/plain")
            fine = status in (200, 404)
        else:
            self._number += 1
            wanted = str(self._number)
            possible.add(wanted)
            body = {"ServiceName": "Faults", "ServiceURL": url, "HeartbeatURL": url, "Metadata": {"Number": wanted, "Pad": "x" * 500}}
            status, answer = client.ask("POST", "/services", json.dumps(body).encode())
            fine = status == 200
        if not fine:
            raise Refused(f"{status}: {answer.decode('utf-8', 'replace')[:200]}")
        self._possible[url] = {wanted}
        self.acknowledged += 1

    def look(self, client: Client) -> Findings:
        status, body = client.ask("GET", "/services")
        if status != 200:
            raise ValueError(f"GET /services answered {status}: {body[:200]!r}")
        found: dict[str, list[str]] = {}
        for instance in json.loads(body)["Services"]:
            found.setdefault(instance["ServiceURL"], []).append(instance["Metadata"]["Number"])
        findings = Findings(strange=len(found.keys() - self._possible.keys()))
        for url, possible in self._possible.items():
            there = found.get(url, [""])
            findings += Findings(int(there[0] not in possible), len(there) - 1)
        return findings

    def close(self) -> None:
        pass


def _lines(client: Client, service: str) -> list[bytes]:
    status, body = client.ask("GET", f"/logs?service={service}&limit={MAX_SHOWN}")
    if status != 200:
        raise ValueError(f"GET /logs answered {status}: {body[:200]!r}")
    lines = body.splitlines()
    if lines and lines[-1].startswith(b'{"Error":'):
        raise ReadFailed(f"GET /logs ended with {lines[-1]!r}")
    if len(lines) == MAX_SHOWN:
        raise AssertionError("too many entries to be looked at in one answer; begin with a new store earlier")
    return lines
