"""A medium that fails: a sync that fails once, or for ever, and a disk that is full. Nothing is acknowledged that is not on it.

After a failed sync the system may report success the next time, and have dropped what it could not write. So what was to be synced must be
written anew, to another file, and synced there, before anybody is told that it is kept: the trace of system calls shows whether it was.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from processes import Client, Died, Launcher, free_port, tail
from report import Report
from subjects import LogSubject, ReadFailed, Refused
from tracer import Call, Tracer

FIRST_SEGMENT = "00000000000000000000.log"
TRACED = "write,writev,pwrite64,fdatasync,fsync,sync_file_range,openat,unlink"
MENDED_S = 10.0
REFUSALS = 10


@dataclass(frozen=True)
class Case:
    """What fails, when, and what it is answered with."""

    call: str
    error: str
    when: int
    for_ever: bool
    status: int

    def __str__(self) -> str:
        return f"{self.call} fails with {self.error}, {'for ever' if self.for_ever else 'once'}, from the {self.when}. on"


CASES = (
    *(Case("fdatasync", "EIO", when, False, 503) for when in (1, 2, 5)),
    *(Case("fdatasync", "EIO", when, True, 503) for when in (1, 4)),
    *(Case("pwrite64", "ENOSPC", when, False, 507) for when in (2, 5)),
    *(Case("pwrite64", "ENOSPC", when, True, 507) for when in (1, 4)),
    Case("pwrite64", "EIO", 3, True, 503),
)


def run(scratch: Path, sabotage: str = "", cases: tuple[Case, ...] = CASES) -> Report:
    """Go through all cases."""
    report = Report(f"log: failing medium{f' with {sabotage}' if sabotage else ''}")
    for what in ("cases", "acknowledged", "refused", "missing", "doubled", "strange", "reads while failing"):
        report.count(what, 0)
    with Launcher("log", scratch / "program.log", sabotage) as launcher:
        for case in cases:
            run = _Run(case, scratch, launcher, report)
            try:
                run.run()
            except (Died, OSError, ValueError, Refused, ReadFailed, AssertionError) as exc:
                report.fault(f"{case}: {exc!r}")
                if not launcher.ended(0):
                    launcher.signal(signal.SIGKILL)
                    launcher.ended()
            finally:
                run.close()
    return report


class _Run:
    def __init__(self, case: Case, scratch: Path, launcher: Launcher, report: Report) -> None:
        self._case = case
        self._launcher = launcher
        self._report = report
        self._trace = scratch / "trace"
        self._folder = scratch / "store"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._client = Client(free_port())
        self._subject = LogSubject(large=0.0)

    def run(self) -> None:
        """Work until it fails, see what is said of it, have it mended or kill it, and look at what is there after a new start."""
        case = self._case
        inject = f"{case.call}:error={case.error}:when={case.when}{'+' if case.for_ever else ''}"
        # A full disk concerns the store's files alone, not the sockets, which are written to as well.
        paths = (self._folder / FIRST_SEGMENT, self._folder / "probe.tmp") if case.call == "pwrite64" else ()
        self._launcher.start(self._subject.words(self._folder, self._client.port), hold=True)
        with Tracer(self._launcher, self._trace, TRACED, inject, paths) as tracer:
            self._up()
            self._until_refused()
            self._while_failing()
            if not case.for_ever:
                self._mended()
            acknowledged = self._subject.acknowledged
            self._launcher.signal(signal.SIGKILL)
            self._launcher.ended()
            tracer.wait()
            if case.call == "fdatasync":
                self._check_trace(tracer.calls())
        self._client.close()
        self._after(acknowledged)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _up(self) -> None:
        if not self._launcher.wait_up(self._client):
            raise Died(f"does not start: {tail(self._launcher.log)}")

    def _until_refused(self) -> None:
        for _ in range(self._case.when + 2):
            if not self._accepts():
                return
        raise AssertionError("all was acknowledged, although the medium had failed")

    def _accepts(self) -> bool:
        try:
            self._subject.step(self._client)
        except Refused as exc:
            self._report.count("refused")
            if not str(exc).startswith(str(self._case.status)):
                self._report.fault(f"{self._case}: refused with {exc}, not {self._case.status}")
            return False
        return True

    def _while_failing(self) -> None:
        """See that readers are served; for as long as it fails nothing is acknowledged, and /readyz says why."""
        self._look()
        self._report.count("reads while failing")
        for _ in range(REFUSALS if self._case.for_ever else 0):
            if self._accepts():
                raise AssertionError("acknowledged while every call fails")
            status, body = self._client.ask("GET", "/readyz")
            if status != 503 or "cannot write" not in json.loads(body)["Checks"]["store"]:
                raise AssertionError(f"/readyz answers {status} {body!r}")
            if self._client.ask("GET", "/livez")[0] != 200:
                raise AssertionError("/livez depends on the medium")
        self._look()

    def _mended(self) -> None:
        deadline = time.monotonic() + MENDED_S
        while not self._accepts():
            if time.monotonic() > deadline:
                raise AssertionError(f"still refuses, {MENDED_S:g} s after the one failure")
            time.sleep(0.05)
        while self._client.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > deadline:
                raise AssertionError("acknowledges, but /readyz does not know it")
            time.sleep(0.05)
        for _ in range(4):
            self._subject.step(self._client)

    def _after(self, acknowledged: int) -> None:
        """Start anew on a medium that works: all is there, and what was refused is taken once."""
        self._launcher.start(self._subject.words(self._folder, self._client.port))
        self._up()
        self._look()
        for _ in range(4):
            self._subject.step(self._client)
        self._look()
        self._launcher.signal(signal.SIGTERM)
        if not self._launcher.ended() or self._launcher.status != 0:
            raise AssertionError(f"ended with {self._launcher.status}")
        self._client.close()
        self._report.count("cases")
        self._report.count("acknowledged", acknowledged)

    def _look(self) -> None:
        found = self._subject.look(self._client)
        for name, number in zip(found._fields, found, strict=True):
            self._report.count(name, number)
        if any(found):
            self._report.fault(f"{self._case}: {found}")

    def _check_trace(self, calls: list[Call]) -> None:
        """See that no file was trusted after a sync of it had failed."""
        distrusted: set[str] = set()
        seen = False
        for call in calls:
            if call.name in ("openat", "unlink"):
                if call.name == "unlink" or "O_EXCL" in call.words:  # another file of that name
                    distrusted -= {file for file in distrusted if f'"{file}"' in call.words}
                continue
            file = call.words.partition("<")[2].partition(">")[0]
            if str(self._folder) not in file:
                continue
            if call.name in ("fdatasync", "fsync") and call.failed:
                distrusted.add(file)
                seen = True
            elif file in distrusted and not file.endswith("probe.tmp"):
                raise AssertionError(f"{call.name} of {Path(file).name}, although a sync of it had failed: {call.words[:200]}")
        if not seen:
            raise AssertionError("no sync failed: the error was not injected")
