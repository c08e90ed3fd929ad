"""The three ways to look a provider up tell the same: a file, HTTP and DNS, while providers come and go.

Each provider has an address of its own and comes only once. So of each arrival (and each departure) it can be told for how long the three
differed, whatever the order in which they were asked: one way had told the news in a read that ended at `e`, and another had not in a read
that began at `s`; if s > e, they differed for at least s - e. The longest such time is what counts. That the reading itself takes time, or
this process is held up, makes no difference seem longer than it was.

PILLION_CHURN_S sets for how long they come and go: 5 s unless told otherwise. The bound of 50 ms holds for runs of a minute.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from dnslib import EDNS0, RCODE, DNSRecord
from programs import eventually
from registry_lab import port_of, registry
from sidecar_bench import ASK_S, Sidecar, free_port, sidecar

CHURN_S = float(os.environ.get("PILLION_CHURN_S", "5"))
MOST_MS = 50 if CHURN_S >= 60 else 500  # a short run on a busy machine is there to see that they agree, not how soon
ALIVE = 20
NAME = "Churned"
PAUSE_S = 0.04


class Heartbeats(BaseHTTPRequestHandler):
    """Answers for everybody."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        pass  # the registry hangs up on who has left


@contextmanager
def heartbeats() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Heartbeats)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/heartbeat"
    finally:
        server.shutdown()
        server.server_close()


class Fake:
    """Instances that are nothing but registrations: number n is at 10.x.y.z, port 8080."""

    def __init__(self, registry_port: int, heartbeat: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", registry_port, timeout=ASK_S)
        self._heartbeat = heartbeat

    @staticmethod
    def address(number: int) -> str:
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def come(self, number: int) -> None:
        url = f"http://{self.address(number)}:8080"
        body = {"ServiceName": NAME, "ServiceURL": url, "HeartbeatURL": self._heartbeat, "ServiceUpdateURL": self._heartbeat}
        self._call("POST", json.dumps(body))

    def go(self, number: int) -> None:
        self._call("DELETE", f"http://{self.address(number)}:8080")

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, body: str) -> None:
        self._connection.request(method, "/services", body.encode())
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said


class Read(NamedTuple):
    """One way's answer: the addresses it told, and when it was asked and had answered."""

    way: str
    begun: float
    ended: float
    found: frozenset[str]


class Ways:
    """The three ways to ask one sidecar."""

    def __init__(self, stack: ExitStack, beside: Sidecar, folder: Path) -> None:
        self._file = folder / "providers" / NAME
        self._http = http.client.HTTPConnection(beside.url.removeprefix("http://"), timeout=ASK_S)
        self._dns = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._dns.settimeout(ASK_S)
        self._dns.connect(("127.0.0.1", int(beside.dns.rpartition(":")[2])))
        stack.callback(self._http.close)

    def read(self) -> Iterator[Read]:
        for way, ask in (("file", self.by_file), ("http", self.by_http), ("dns", self.by_dns)):
            begun = time.monotonic()
            found = ask()
            yield Read(way, begun, time.monotonic(), frozenset(found))

    def by_file(self) -> list[str]:
        return re.findall(r"//([0-9.]+):8080\n", self._file.read_text())

    def by_http(self) -> list[str]:
        self._http.request("GET", f"/providers/{NAME}?all=1&format=text")
        answer = self._http.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return re.findall(r"//([0-9.]+):8080\n", text)

    def by_dns(self) -> list[str]:
        query = DNSRecord.question(f"{NAME}.pillion")
        query.add_ar(EDNS0(udp_len=1232))
        self._dns.send(query.pack())
        reply = DNSRecord.parse(self._dns.recv(65536))
        assert (reply.header.id, reply.header.rcode, reply.header.tc) == (query.header.id, 0, 0)
        return [str(record.rdata) for record in reply.rr]


class _Seen:
    """When each way told of one provider's arrival and departure."""

    def __init__(self) -> None:
        self.there: dict[str, Read] = {}  # the first read of a way that had it
        self.last_without: dict[str, Read] = {}  # the last one before
        self.last_with: dict[str, Read] = {}
        self.gone: dict[str, Read] = {}


def differences(reads: list[Read]) -> list[float]:
    """Return for each arrival and each departure that all ways told how long, at least, they differed about it; 0 if that is not proven."""
    seen: dict[str, _Seen] = {}
    before: dict[str, Read] = {}
    for read in reads:
        earlier = before.get(read.way)
        for address in read.found - (earlier.found if earlier else frozenset()):
            one = seen.setdefault(address, _Seen())
            assert read.way not in one.there, f"{read.way} told of {address} twice"
            one.there[read.way] = read
            if earlier is not None:
                one.last_without[read.way] = earlier
        for address in earlier.found - read.found if earlier else ():
            seen[address].gone[read.way] = read
            seen[address].last_with[read.way] = before[read.way]
        before[read.way] = read
    found = []
    for one in seen.values():
        for news, not_yet in ((one.there, one.last_without), (one.gone, one.last_with)):
            if len(news) == len(not_yet) == 3:
                found.append(max(0.0, max(read.begun for read in not_yet.values()) - min(read.ended for read in news.values())))
    return found


def churn(fake: Fake, first: int) -> int:
    """Let the oldest go and another come, again and again; return how many came."""
    alive = deque(range(first, first + ALIVE))
    for number in alive:
        fake.come(number)
    until = time.monotonic() + CHURN_S
    while time.monotonic() < until:
        fake.go(alive.popleft())
        time.sleep(PAUSE_S)
        alive.append(alive[-1] + 1)
        fake.come(alive[-1])
        time.sleep(PAUSE_S)
    return alive[-1] + 1 - first


def looking(ways: Ways, done: threading.Event, reads: list[Read]) -> Callable[[], None]:
    def look() -> None:
        while not done.is_set():
            reads.extend(ways.read())

    return look


def test_file_http_and_dns_agree_while_providers_come_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    more = ("--check", "none", "--requires", NAME, "--project-dir", str(folder), "--dns", "127.0.0.1:0")
    with ExitStack() as stack:
        running = stack.enter_context(registry("--heartbeat-interval", "3s", "--heartbeat-timeout", "2s"))
        beside = stack.enter_context(sidecar("Portald", free_port(), running.url, tmp_path / "state", *more))
        fake = stack.enter_context(closing(Fake(port_of(running), stack.enter_context(heartbeats()))))
        eventually((folder / "providers" / NAME).exists)
        ways = Ways(stack, beside, folder)
        reads: list[Read] = []
        done = threading.Event()
        looker = threading.Thread(target=looking(ways, done, reads))
        looker.start()
        try:
            came = churn(fake, 1)
            left = frozenset(map(fake.address, range(came + 1 - ALIVE, came + 1)))
            eventually(lambda: [read.found for read in latest(reads)] == [left] * 3)
        finally:
            done.set()
            looker.join(ASK_S)
    found = sorted(differences(reads))
    longest, most, half = (1000 * found[int(share * (len(found) - 1))] for share in (1, 0.99, 0.5))
    figures = f"longest difference {longest:.1f} ms, p99 {most:.1f} ms, p50 {half:.1f} ms"
    print(f"\n{came} came, {len(found)} changes told in {len(reads)} reads; {figures}")
    assert len(found) > 1.8 * (came - ALIVE)  # nearly every change was seen by all three
    assert longest < MOST_MS
    assert half < 25


def latest(reads: list[Read]) -> list[Read]:
    """Return the last read of each way."""
    return list({read.way: read for read in reads[-6:]}.values())


def test_the_measure_finds_a_difference_that_is_there() -> None:
    old, new = frozenset({"a"}), frozenset({"a", "b"})

    def read(way: str, at: float, found: frozenset[str]) -> Read:
        return Read(way, at, at + 0.001, found)

    reads = [read(way, 1.0, old) for way in ("file", "http", "dns")]
    reads += [read("http", 2.0, new), read("file", 2.1, old), read("dns", 2.2, new), read("file", 2.3, new)]
    assert differences(reads) == [pytest.approx(0.099)]
    assert differences([*reads, read("http", 3, old), read("file", 3.01, old), read("dns", 3.02, old)]) == [
        pytest.approx(0.099),
        0.0,
    ]


def test_before_the_registry_was_heard_nobody_knows_and_the_files_of_an_earlier_life_stay(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "providers").mkdir(parents=True)
    (folder / "providers" / NAME).write_text("http://10.0.0.1:8080\n")
    (folder / "providers" / "Old").write_text("http://10.0.0.2:8080\n")
    more = ("--check", "none", "--requires", NAME, "--project-dir", str(folder), "--dns", "127.0.0.1:0")
    nobody = f"http://127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        beside = stack.enter_context(sidecar("Portald", free_port(), nobody, tmp_path / "state", *more))
        eventually(lambda: not (folder / "providers" / "Old").exists())
        assert os.listdir(folder / "providers") == [NAME]
        query = DNSRecord.question(f"{NAME}.pillion")
        reply = DNSRecord.parse(query.send("127.0.0.1", int(beside.dns.rpartition(":")[2]), timeout=ASK_S))
        assert RCODE.get(reply.header.rcode) == "SERVFAIL"
    assert (folder / "providers" / NAME).read_text() == "http://10.0.0.1:8080\n"


def test_a_folder_that_is_not_there_is_warned_of_once(tmp_path: Path) -> None:
    with sidecar("Portald", free_port(), "http://127.0.0.1:1", tmp_path / "state", "--project-dir", str(tmp_path / "none")) as beside:
        [line] = eventually(lambda: beside.program.events("no_projection"))
    assert line["level"] == "warning"
    assert line["message"].endswith("/none: there is no such folder; mount a folder this user can write")
