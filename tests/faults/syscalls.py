"""At each system call that changes the store, once: the program is killed there; or the call fails there.

Each start finds what the last one left behind, so each is also the check of the one before it: that the program starts, that all that was
acknowledged is there, once, and that what was sent and not answered can be sent again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from choice import COMMANDS, make_subject
from processes import Client, Died, Launcher, free_port, tail
from report import Report
from subjects import ReadFailed, Refused, Subject
from tracer import CALLS, Tracer

STARTS_IN_A_FOLDER = 25
MENDED_S = 8.0


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Args:
        subject: what is worked with; see subjects.py.
        steps: pieces of work in each start.
        points: least number of points to be reached.
        every: only each so many-th call; 1 is each.
        most: of each call, at most so many: queries open as many files as there are.
        sabotage: see launch.py.
        error: what the calls are made to fail with; empty: the program is killed there.
        calls: which calls.
        env: settings of the program.
    """

    subject: str = "log"
    steps: int = 44
    points: int = 300
    every: int = 1
    most: int = 150
    sabotage: str = ""
    error: str = ""
    calls: tuple[str, ...] = CALLS
    env: dict[str, str] = field(default_factory=dict)


def run(plan: Plan, scratch: Path) -> Report:
    """Go through all calls."""
    settings = "".join(f", {name}={value}" for name, value in plan.env.items()) + (f", {plan.sabotage}" if plan.sabotage else "")
    report = Report(f"{plan.subject}: {f'{plan.error} from' if plan.error else 'kill -9 at'} each system call{settings}")
    with Launcher(COMMANDS[plan.subject], scratch / "program.log", plan.sabotage, plan.env) as launcher:
        suite = _Suite(plan, scratch, launcher, report)
        try:
            for point in suite.points():
                suite.start(*point)
            suite.settle()
        except Died as exc:
            report.fault(str(exc))
        finally:
            suite.close()
    if int(report.figures.get("points in the store", 0)) < plan.points:
        report.fault(f"fewer than {plan.points} points were reached")
    return report


class _Suite:
    def __init__(self, plan: Plan, scratch: Path, launcher: Launcher, report: Report) -> None:
        self._plan = plan
        self._scratch = scratch
        self._launcher = launcher
        self._report = report
        self._random = random.Random(7)
        self._client = Client(free_port())
        self._hit = True
        self._starts = 0
        self._subject: Subject
        self._folder: Path
        for what in (
            "points in the store",
            "kills elsewhere",
            "tails torn",
            "acknowledged",
            "missing",
            "doubled",
            "strange",
            "unreadable stores",
        ):
            report.count(what, 0)
        self._begin()

    def points(self) -> Iterator[tuple[str, int, bool]]:
        """Return each call and its number, as long as there are so many of it, counted from the start, and once more from when it is up."""
        for call in self._plan.calls:
            for late in (False, True):
                number = 1 + self._random.randrange(self._plan.every)
                self._hit = True
                while self._hit and number <= self._plan.most:
                    yield call, number, late
                    number += self._plan.every

    def start(self, call: str, number: int, late: bool) -> None:
        """Start the program, check what the last start left, work, and have it die or fail at the call."""
        if self._starts >= STARTS_IN_A_FOLDER:
            self.settle()
            self._subject.close()
            self._begin()
        self._starts += 1
        what = f"error={self._plan.error}" if self._plan.error else "signal=KILL"
        self._launcher.start(self._subject.words(self._folder, self._client.port), hold=not late)
        where = f"{call} {number}{' after the start' if late else ''}"
        if late and not self._launcher.wait_up(self._client):
            raise Died(f"{where}: does not start: {tail(self._launcher.log)}")
        with Tracer(self._launcher, self._scratch / "trace", call, f"{call}:{what}:when={number}") as tracer:
            self._run(where)
            self._launcher.signal(signal.SIGTERM)
            if not self._launcher.ended():
                raise Died(f"{where}: does not end: {tail(self._launcher.log)}")
            tracer.wait()
            self._note(where, tracer)
        self._client.close()
        self._tear(where)
        if self._starts % 2 and not self._plan.error:  # else the next start recovers from this one, and may be killed in it
            self._check(where)

    def close(self) -> None:
        """Close the connection, and end what was started for the subject."""
        self._client.close()
        self._subject.close()

    def settle(self) -> None:
        """Check the store at its end, and that it goes on."""
        self._check("at the end", 4)
        self._report.count("acknowledged", self._subject.acknowledged)

    def _check(self, where: str, steps: int = 0) -> None:
        """Start the program untraced, look at what it kept, and kill it."""
        self._launcher.start(self._subject.words(self._folder, self._client.port))
        if self._launcher.wait_up(self._client):
            self._work(where, steps, looks=True)
        else:
            self._report.count("unreadable stores")
            self._report.fault(f"{where}: the store cannot be opened: {tail(self._launcher.log)}")
            self._begin_anew()
        self._launcher.signal(signal.SIGKILL)
        self._launcher.ended()
        self._client.close()

    def _begin(self) -> None:
        self._starts = 0
        self._safe = self._scratch, 0
        self._folder = self._scratch / "store"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._subject = make_subject(self._plan.subject)

    def _run(self, where: str) -> None:
        """Have the traced program start and work, until it is killed or told to end."""
        if not self._launcher.wait_up(self._client):
            if self._launcher.status not in (-9, 1 if self._plan.error else -9):
                self._report.fault(f"{where}: ended with {self._launcher.status}: {tail(self._launcher.log)}")
        else:
            # Its answers are written by the thread whose calls are not wanted: so it is looked at only where the calls fail.
            self._work(where, self._plan.steps, looks=bool(self._plan.error))

    def _work(self, where: str, steps: int, looks: bool) -> None:
        try:
            if looks:
                self._look(where)
            for _ in range(steps):
                self._step()
            if looks and steps:
                self._look(f"{where}, and {steps} steps")
        except OSError:
            if not self._launcher.ended():
                self._report.fault(f"{where}: does not answer: {tail(self._launcher.log)}")
        except (ValueError, Refused, ReadFailed) as exc:
            self._report.fault(f"{where}: {str(exc).strip()}")
            self._begin_anew()

    def _step(self) -> None:
        """Do one piece of work; a program that was made to fail once may refuse it, but not for long."""
        deadline = time.monotonic() + MENDED_S
        while True:
            try:
                self._subject.step(self._client)
                self._safe = self._newest()
                return
            except Refused:
                self._report.count("refused")
                if not self._plan.error or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _newest(self) -> tuple[Path, int]:
        """Return the file that grows, and where its end is, or the zeros begin that are to be written over."""
        newest = max(self._folder.glob("[0-9]*.log"), default=self._folder)  # current.log is not the store
        return newest, 0 if newest == self._folder else len(newest.read_bytes().rstrip(b"\0"))

    def _tear(self, where: str) -> None:
        """Cut what was written and not acknowledged somewhere in its middle, as a kill in the middle of a large write leaves it."""
        newest, size = self._newest()
        safe = self._safe[1] if newest == self._safe[0] else 0
        if newest != self._folder and size > safe and self._launcher.status == -9 and not self._plan.sabotage:
            os.truncate(newest, self._random.randrange(safe, size))
            self._report.count("tails torn")

    def _look(self, where: str) -> None:
        try:
            found = self._subject.look(self._client)
        except ReadFailed:
            if not self._plan.error:
                raise
            found = self._subject.look(self._client)  # it failed once, and that was it
        for name, number in zip(found._fields, found, strict=True):
            self._report.count(name, number)
        if any(found):
            self._report.fault(f"{where}: {found}")
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Count what is lost only once."""
        self._starts = STARTS_IN_A_FOLDER

    def _note(self, where: str, tracer: Tracer) -> None:
        calls = tracer.calls()
        struck = [call for call in calls if (call.failed if self._plan.error else call.cut)]
        self._hit = bool(struck) or self._launcher.status == -9
        if any(str(self._folder) in call.words for call in struck):
            self._report.count("points in the store")
            self._report.count(f"  at {calls[0].name}")
        elif self._hit:
            self._report.count("kills elsewhere")
        elif self._launcher.status != 0:
            self._report.fault(f"{where}: ended with {self._launcher.status}: {tail(self._launcher.log)}")
