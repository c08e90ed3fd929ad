"""The power goes at a random moment, many times; what was acknowledged is on the disk, and the store opens.

A run goes on with the disk that the last cut left, so the store is also cut while it recovers from a cut.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from choice import COMMANDS, make_subject
from loop_disk import LoopDisk
from processes import Client, Died, Launcher, free_port, tail
from programs import stands_still
from report import Report
from subjects import ReadFailed, Refused, Subject

RUNS_ON_A_DISK = 10
LARGE = 6_000
STOPPED_S = 10.0


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Args:
        subject: what is worked with; see subjects.py.
        runs: how many cuts.
        seconds: longest time from the start to the cut.
        env: settings of the program.
        sabotage: see launch.py.
    """

    subject: str = "log"
    runs: int = 50
    seconds: float = 2.5
    env: dict[str, str] = field(default_factory=dict)
    sabotage: str = ""


def run(plan: Plan, scratch: Path) -> Report:
    """Cut the power again and again."""
    settings = " ".join([*(f"{name}={value}" for name, value in plan.env.items()), *([plan.sabotage] if plan.sabotage else [])])
    report = Report(f"{plan.subject}: power cut{f' with {settings}' if settings else ''}")
    for what in ("cuts", "acknowledged", "missing", "doubled", "strange", "unreadable stores"):
        report.count(what, 0)
    chance = random.Random(11)
    with Launcher(COMMANDS[plan.subject], scratch / "program.log", plan.sabotage, plan.env) as launcher:
        suite = _Suite(plan, scratch, launcher, report)
        for number in range(plan.runs):
            if number % RUNS_ON_A_DISK == 0 or suite.is_large():
                suite.new_disk(number)
            try:
                suite.cut(chance.uniform(0.1, plan.seconds))
            except Died as exc:
                report.count("unreadable stores")
                report.fault(f"cut {number}: {exc}")
                suite.new_disk(number)
        suite.close()
    return report


class _Suite:
    def __init__(self, plan: Plan, scratch: Path, launcher: Launcher, report: Report) -> None:
        self._plan = plan
        self._launcher = launcher
        self._report = report
        self._client = Client(free_port())
        self._images = scratch / "disk.img", scratch / "cut.img"
        self._mount = scratch / "disk"
        self._subject = make_subject(plan.subject)

    def new_disk(self, seed: int) -> None:
        """Begin with an empty disk."""
        self._subject.close()
        self._subject = make_subject(self._plan.subject, seed)
        for image in self._images:
            image.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection, and end what was started for the subject."""
        self._client.close()
        self._subject.close()

    def is_large(self) -> bool:
        """Return whether there is so much on the disk that looking at it takes long."""
        return self._subject.acknowledged > LARGE

    def cut(self, after_s: float) -> None:
        """Start the program on the disk, let it work, cut the power, and look at what there is after it."""
        image, copy = self._images
        disk = LoopDisk(image, self._mount)
        try:
            self._start()
            before = self._subject.acknowledged
            self._work(after_s)
            still = disk.copy(copy)
            self._report.count("acknowledged", self._subject.acknowledged - before)
        finally:
            self._launcher.signal(signal.SIGKILL)
            self._launcher.ended()
            self._client.close()
            disk.unmount()
        if not still:
            self._report.count("copies thrown away")
            return
        self._report.count("cuts")
        copy.replace(image)
        disk = LoopDisk(image, self._mount)
        try:
            self._start()
            self._look()
        finally:
            self._launcher.signal(signal.SIGKILL)
            self._launcher.ended()
            self._client.close()
            disk.unmount()

    def _work(self, for_s: float) -> None:
        """Let the program work, and stop it in the middle: none of its threads runs any more when this returns."""
        worker = _Worker(self._subject, self._client)
        worker.start()
        time.sleep(for_s)
        _freeze(self._launcher)
        worker.end()
        if worker.fault:
            self._report.fault(worker.fault)

    def _start(self) -> None:
        self._launcher.start(self._subject.words(self._mount, self._client.port))
        if not self._launcher.wait_up(self._client):
            raise Died(f"ended with {self._launcher.status} at its start: {tail(self._launcher.log)}")

    def _look(self) -> None:
        try:
            found = self._subject.look(self._client)
        except (OSError, ValueError, ReadFailed) as exc:
            raise Died(f"cannot be read: {exc}") from exc
        for name, number in zip(found._fields, found, strict=True):
            self._report.count(name, number)
        if any(found):
            self._report.fault(f"cut {self._report.figures['cuts']}: {found}")
            self.new_disk(int(self._report.figures["cuts"]))


class _Worker(threading.Thread):
    """Has a subject work until it is told to end; what is under way then has no answer, unless it is there already."""

    def __init__(self, subject: Subject, client: Client) -> None:
        super().__init__(name="worker", daemon=True)
        self._subject = subject
        self._client = client
        self._ending = False
        self.fault = ""

    def run(self) -> None:
        try:
            while not self._ending:
                self._subject.step(self._client)
        except (OSError, Refused, ValueError) as exc:
            if not self._ending:
                self.fault = f"before the cut: {exc!r}"

    def end(self) -> None:
        self._ending = True
        while self.is_alive():
            self._client.hang_up()
            self.join(0.05)


def _freeze(launcher: Launcher) -> None:
    """Stop a process, and wait until the last of its threads is out of the kernel."""
    launcher.signal(signal.SIGSTOP)
    deadline = time.monotonic() + STOPPED_S
    while not stands_still(launcher.pid):
        if time.monotonic() > deadline:
            raise Died("a thread does not stop")
        time.sleep(0.002)
