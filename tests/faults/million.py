"""A million lines from twenty sidecars, while the log service, its disk and sidecars fail.

Nothing that was acknowledged is missing, nothing is there twice, and an entry tells of each line that a full spool dropped. Each fault
comes when so many lines were sent, and no sender runs far ahead of the faults: so all of them meet traffic.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from account import ACKNOWLEDGED, UNKNOWN, Account, Totals, of_files, settle
from fleet import Fleet, Member
from processes import Client, Died
from report import Report

BATCH = 50
DRAIN_S = 300.0
PADDING = "x" * 60


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    lines: int = 1_000_000
    sidecars: int = 20
    kills: int = 20
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 12.0)  # seconds; a sidecar waits 10 for an answer
    fills: int = 1
    full_s: float = 5.0
    sidecar_kills: int = 3
    small: int = 5
    spool: str = "128K"
    disk_size: int = 2 << 30
    away_s: float = 1.0  # the longest time that a killed log service stays away
    sabotage: str = ""


QUICK = Plan(20_000, 5, 3, (1.0,), 1, 0.5, 1, 2, "16K", 256 << 20, 0.3)
QUICK_WITHOUT_DEDUPE = replace(QUICK, pauses=(12.0,), sabotage="no-dedupe")  # a pause so long that batches are sent again


def run(plan: Plan, scratch: Path) -> Report:
    """Send the lines, break things meanwhile, count."""
    report = Report(f"log: {plan.lines} lines from {plan.sidecars} sidecars{f' with {plan.sabotage}' if plan.sabotage else ''}")
    fleet = Fleet(scratch, plan.sidecars, plan.disk_size, plan.small, plan.spool, plan.sabotage)
    try:
        fleet.start()
        run = _Run(plan, fleet, report)
        run.run()
        report.faults += fleet.stop()
        totals, faults = settle(run.accounts, of_files(fleet.store))
        tell(report, run.accounts, totals, faults)
    except Died as exc:
        report.fault(str(exc))
    finally:
        fleet.stop()
        fleet.disk.close()
    return report


def tell(
    report: Report,
    accounts: list[Account],
    totals: Totals,
    faults: list[str],
    by: str = "sidecars",
    dropped: str = "dropped from full spools",
) -> None:
    """Put the totals into a report; what is missing, there twice or was never sent is a fault."""
    report.count(f"acknowledged by {by}", sum(account.acknowledged for account in accounts))
    names = {
        "kept": "kept in the log",
        "missing": "missing, and not told of",
        "doubled": "doubled",
        "strange": "never sent",
        "dropped": dropped,
        "told": "told of by gap entries",
        "gap_entries": "gap entries",
        "unknown": "of unknown fate, not there",
    }
    for name, text in names.items():
        report.count(text, getattr(totals, name))
    report.faults += faults
    for name in ("missing", "doubled", "strange"):
        if getattr(totals, name):
            report.fault(f"{getattr(totals, name)} lines {name}")


class _Run:
    def __init__(self, plan: Plan, fleet: Fleet, report: Report) -> None:
        self._plan = plan
        self._fleet = fleet
        self._report = report
        self._random = random.Random(5)
        quota = plan.lines // plan.sidecars
        self.accounts = [Account(member.name, quota) for member in fleet.sidecars]
        self._faults = self._make_faults()
        self._gate = threading.Condition()
        self._allowed = 0  # lines that each sender may have sent by now
        self._share = 0.0  # of them for each fault
        self._quota = quota

    def run(self) -> None:
        """Send all lines; returns when all are forwarded."""
        began = time.monotonic()
        senders = [
            threading.Thread(target=self._send, args=(member, account), name=member.name, daemon=True)
            for member, account in zip(self._fleet.sidecars, self.accounts, strict=True)
        ]
        for sender in senders:
            sender.start()
        self._share = share = self._quota / (len(self._faults) + 2)
        for number, fault in enumerate(self._faults, 1):
            self._allow(share * (number + 1))
            self._wait_for(share * number, senders)
            fault()
        self._allow(self._quota)
        for sender in senders:
            sender.join(DRAIN_S)
        self._drain()
        self._report.figures["lines a second"] = round(self._plan.lines / (time.monotonic() - began))

    def _make_faults(self) -> list[Callable[[], None]]:
        plan = self._plan
        victims = self._random.sample(self._fleet.sidecars, plan.sidecar_kills)
        faults = [self._kill_log] * plan.kills + [self._fill] * plan.fills
        faults += [self._pauser(for_s) for for_s in plan.pauses] + [self._killer(victim) for victim in victims]
        self._random.shuffle(faults)
        return faults

    def _kill_log(self) -> None:
        self._fleet.log.kill()
        self._report.count("log service killed")
        self._allow_more()
        time.sleep(self._random.uniform(0, self._plan.away_s))
        self._fleet.log.start()
        self._fleet.log.wait_up()

    def _pauser(self, for_s: float) -> Callable[[], None]:
        def pause() -> None:
            self._fleet.log.pause(for_s, self._allow_more)
            self._report.count("log service paused")

        return pause

    def _fill(self) -> None:
        if not self._fleet.fill_disk(self._plan.full_s, self._allow_more):
            self._report.fault("a full disk was not told by /readyz, or was not got over")
        self._report.count("disk filled")

    def _killer(self, victim: Member) -> Callable[[], None]:
        def kill() -> None:
            victim.kill()
            self._report.count("sidecars killed")
            self._allow_more()
            time.sleep(0.2)
            victim.start()
            other = Client(victim.client.port)
            victim.wait_up(other)
            other.close()

        return kill

    def _allow(self, lines: float) -> None:
        with self._gate:
            self._allowed = min(self._quota, max(self._allowed, int(lines)))
            self._gate.notify_all()

    def _allow_more(self) -> None:
        """Have lines sent while something is broken, besides those that were under way when it broke."""
        self._allow(self._allowed + self._share / 2)

    def _wait_for(self, lines: float, senders: list[threading.Thread]) -> None:
        while min(account.acknowledged for account in self.accounts) < int(lines) - BATCH:
            for sender, account in zip(senders, self.accounts, strict=True):
                if not sender.is_alive() and account.acknowledged < self._quota:
                    raise Died(f"the sender to {sender.name} failed")
            time.sleep(0.01)

    def _send(self, member: Member, account: Account) -> None:
        client = Client(member.client.port)
        number = 0
        while account.acknowledged < self._quota:
            with self._gate:
                while account.acknowledged >= self._allowed:
                    self._gate.wait()
            count = min(BATCH, self._quota - account.acknowledged)
            body = "".join(f'{{"Message":"{line} {PADDING}"}}\n' for line in range(number, number + count)).encode()
            try:
                status, answer = client.ask("POST", "/logs", body, "application/x-ndjson")
                outcome = ACKNOWLEDGED if status == 200 and b'"Rejected":[]' in answer.replace(b" ", b"") else UNKNOWN
            except ConnectionRefusedError:  # it never came there
                time.sleep(0.05)
                continue
            except OSError:
                outcome = UNKNOWN
            account.sent(number, count, outcome)
            number += count
            if outcome == UNKNOWN:
                time.sleep(0.05)
        client.close()

    def _drain(self) -> None:
        """Wait until the spools are empty."""
        deadline = time.monotonic() + DRAIN_S
        while left := self._fleet.waiting():
            if time.monotonic() > deadline:
                raise Died(f"{left} lines are still in spools after {DRAIN_S:g} s")
            time.sleep(0.1)
