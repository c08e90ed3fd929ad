"""Lines sent through two log services that share a log on three NATS servers, while servers and log services are killed.

Senders number their lines, as sidecars do, and send a batch again, through the other log service, until one acknowledges it. So a line of
unknown fate is sent through both. In the end all is read through the one that was never killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from account import ACKNOWLEDGED, UNKNOWN, Account, of_service, settle
from fleet import Member
from million import PADDING, tell
from nats_lab import NatsServer, head, nats_servers, store_uri, syncs_always, version
from processes import Client, Died, tail
from report import Report

BATCH = 50
UNTIL_S = 60.0
AWAY_S = 2.0
STREAM = "pillion_logs"
LOST = "acknowledged and lost"


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        faults: in their order: `leader` (of the stream), `follower`, `all` (three servers at once), `log` (one of the two).
        resume_s: how long no line may be acknowledged after a fault. Raft elects a leader 4 to 9 s after the last one has gone.
    """

    lines: int = 200_000
    senders: int = 8
    faults: tuple[str, ...] = ("follower", "leader", "log", "follower", "leader", "all", "leader", "log")
    resume_s: float = 20.0
    sabotage: str = ""


ONE_KILL = Plan(faults=("follower",), resume_s=5.0)
QUICK = Plan(10_000, 4, ("leader",))
EARLY_ACK = Plan(10_000, 4, ("log",), sabotage="early-ack")


class Cluster:
    """Three servers.

    Args:
        stream: whose leader and state are asked for.
    """

    def __init__(self, servers: list[NatsServer], stream: str = STREAM) -> None:
        self.servers = servers
        self._stream = stream

    def leader(self) -> NatsServer:
        """Return the server that leads the stream."""
        deadline = time.monotonic() + UNTIL_S
        while time.monotonic() < deadline:
            for server in self.servers:
                for account in server.monitor("/jsz?accounts=1&streams=1").get("account_details", []):  # type: ignore[attr-defined]
                    for stream in account.get("stream_detail", []):
                        if (name := stream.get("cluster", {}).get("leader")) and stream["name"] == self._stream:
                            return next(one for one in self.servers if one.name == name)
            time.sleep(0.1)
        raise Died(f"the stream {self._stream} has no leader")

    def led(self, prefix: str) -> bool:
        """Return whether each stream whose name begins so has a leader among the servers that run."""
        led: dict[str, bool] = {}
        running = [server for server in self.servers if server.runs]
        for server in running:
            for account in server.monitor("/jsz?accounts=1&streams=1").get("account_details", []):  # type: ignore[attr-defined]
                for stream in account.get("stream_detail", []):
                    if stream["name"].startswith(prefix):
                        leader = stream.get("cluster", {}).get("leader")
                        led[stream["name"]] = led.get(stream["name"], False) or any(one.name == leader for one in running)
        return bool(led) and all(led.values())

    def states(self) -> list[tuple[int, int, int, int]]:
        """Return what each server has of the stream: messages, bytes, first and last number."""
        found = []
        for server in self.servers:
            details = server.monitor("/jsz?accounts=1&streams=1").get("account_details", [])
            streams = [stream for account in details for stream in account["stream_detail"]]  # type: ignore[attr-defined]
            state = next(stream["state"] for stream in streams if stream["name"] == self._stream)
            found.append((state["messages"], state["bytes"], state["first_seq"], state["last_seq"]))
        return found

    def agree(self) -> None:
        """Return when all servers have the same."""
        deadline = time.monotonic() + UNTIL_S
        while len(set(states := self.states())) > 1:
            if time.monotonic() > deadline:
                raise Died(f"the servers do not have the same: {states}")
            time.sleep(0.1)

    def victims(self, fault: str) -> list[NatsServer]:
        """Return the servers that a fault kills; of those that follow the one that leads JetStream itself, if it is among them."""
        leader, first = self.leader(), head(self.servers)
        followers = sorted((server for server in self.servers if server is not leader), key=lambda server: server.name != first)
        return {"leader": [leader], "follower": followers[:1], "all": self.servers}[fault]

    def wait(self) -> None:
        """Return when all are well, and have caught up."""
        deadline = time.monotonic() + UNTIL_S
        while not all(server.is_ready() for server in self.servers):
            if time.monotonic() > deadline:
                raise Died("the NATS servers do not get well again")
            time.sleep(0.1)


def run(plan: Plan, scratch: Path) -> Report:
    """Send the lines, break things meanwhile, count."""
    report = Report(f"nats: {plan.lines} lines, two log services, three servers{f' with {plan.sabotage}' if plan.sabotage else ''}")
    report.figures["nats-server"] = ".".join(map(str, version())) + (", sync_interval always" if syncs_always() else "")
    logs = scratch / "logs"
    logs.mkdir()
    with ExitStack() as stack:
        cluster = Cluster(stack.enter_context(nats_servers(scratch / "nats", 3)))
        words = ["--store", store_uri(cluster.servers), "--log-max-bytes", "1G"]
        services = [Member(f"log-{one}", "log", words, logs, sabotage=plan.sabotage) for one in "ab"]
        try:
            for service in services:
                stack.callback(service.stop)
                service.start()
            for service in services:
                service.wait_up()
                _until_ready(service)
            sending = _Sending(plan, cluster, services, report)
            sending.run()
            cluster.agree()
            totals, faults = settle(sending.accounts, of_service(services[1].client))
            tell(report, sending.accounts, totals, faults, "the log services", LOST)
            if totals.dropped:  # nobody here may drop anything, gap entry or not
                report.fault(f"{totals.dropped} lines were acknowledged and lost")
        except Died as exc:
            report.fault(f"{exc}; {tail(logs / 'log-a.log')}")
    return report


def _until_ready(service: Member) -> None:
    deadline = time.monotonic() + UNTIL_S
    while service.client.ask("GET", "/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise Died(f"{service.name} does not become ready: {service.client.ask('GET', '/readyz')[1].decode()}")
        time.sleep(0.05)


class _Sending:
    def __init__(self, plan: Plan, cluster: Cluster, services: list[Member], report: Report) -> None:
        self._plan = plan
        self._cluster = cluster
        self._services = services
        self._report = report
        self._quota = plan.lines // plan.senders
        self.accounts = [Account(f"Node{number}", self._quota) for number in range(plan.senders)]
        self._lock = threading.Lock()
        self._broken_at = 0.0
        self._resumed_s: float | None = None
        self._share = self._quota / (len(plan.faults) + 2)
        self._allowed = 0.0
        self._failed = ""

    def run(self) -> None:
        """Send all lines, with a fault at each share of them."""
        began = time.monotonic()
        threads = [threading.Thread(target=self._send, args=(account,), name=account.service, daemon=True) for account in self.accounts]
        share = self._share
        for thread in threads:
            thread.start()
        for number, fault in enumerate(self._plan.faults, 1):
            self._allowed = share * (number + 1)
            self._wait(lambda: min(account.acknowledged for account in self.accounts) >= share * number - BATCH)  # noqa: B023
            self._break(fault, number)
        self._allowed = self._quota
        self._wait(lambda: not any(thread.is_alive() for thread in threads))
        self._report.figures["lines a second, faults included"] = round(self._plan.lines / (time.monotonic() - began))

    def _break(self, fault: str, number: int) -> None:
        """Break something, mend it when lines are acknowledged again, and note how long that took."""
        log = fault == "log"
        victims: list[Any] = [self._services[0]] if log else self._cluster.victims(fault)
        with self._lock:
            self._broken_at, self._resumed_s = time.monotonic(), None
        for victim in victims:
            victim.kill()
        if fault == "all":
            time.sleep(AWAY_S)
            self._start(victims)
        self._allowed += self._share / 2  # so that lines are sent while something is broken
        self._wait(lambda: self._resumed_s is not None)
        resumed_s = self._resumed_s or 0.0
        time.sleep(AWAY_S)
        if fault != "all":
            self._start(victims)
        self._cluster.wait()
        for service in self._services:
            _until_ready(service)
        self._report.figures[f"{fault} killed ({number}): acknowledged again after"] = f"{resumed_s:.2f} s"
        if resumed_s > self._plan.resume_s:
            self._report.fault(f"after {fault} was killed nothing was acknowledged for {resumed_s:.1f} s")

    def _start(self, victims: list[Any]) -> None:
        for victim in victims:
            victim.start()
        for victim in victims:
            if isinstance(victim, Member):
                victim.wait_up()

    def _wait(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 3 * UNTIL_S
        while not true():
            if self._failed or time.monotonic() > deadline:
                raise Died(self._failed or f"nothing goes on: {[account.acknowledged for account in self.accounts]} of {self._quota} each")
            time.sleep(0.01)

    def _send(self, account: Account) -> None:
        clients = [Client(service.port) for service in self._services]
        turn = int(account.service.removeprefix("Node"))
        try:
            for first in range(0, self._quota, BATCH):
                while first >= self._allowed:
                    time.sleep(0.005)
                numbers = range(first, min(first + BATCH, self._quota))
                account.sent(first, len(numbers), UNKNOWN)
                body = "".join(
                    f'{{"Service":"{account.service}","Message":"{line} {PADDING}","Source":"{account.service}","Seq":{line + 1}}}\n'
                    for line in numbers
                ).encode()
                while not self._post(clients[turn % 2], body):
                    turn += 1
                    time.sleep(0.05)
                account.sent(first, len(numbers), ACKNOWLEDGED)
        except Exception as exc:
            self._failed = f"the sender of {account.service} failed: {exc!r}"
        for client in clients:
            client.close()

    def _post(self, client: Client, body: bytes) -> bool:
        began = time.monotonic()
        try:
            status, answer = client.ask("POST", "/logs", body, "application/x-ndjson")
        except OSError:
            return False
        if status != 200:
            if status not in (503, 507):
                raise Died(f"answered {status}: {answer.decode()}")
            return False
        with self._lock:
            if began >= self._broken_at and self._resumed_s is None:
                self._resumed_s = time.monotonic() - self._broken_at
        return True
