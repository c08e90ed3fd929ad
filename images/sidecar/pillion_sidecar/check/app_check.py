"""Watches the app: is it there and well? Owns the state that the heartbeat answers with.

A connection to the app stays open between two looks as a tripwire: when the app dies, its kernel closes it, and the next look is made at
once instead of at the next tick.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from pillion_common.clock import rfc3339
from pillion_common.errors import OwnLimit
from pillion_common.logs import EventLog
from pillion_common.names import Url
from pillion_sidecar.check.looks import CRITICAL, WARN, Finding, HttpLook, Look, OnHint, TcpLook
from pillion_sidecar.settings import Settings
from pillion_sidecar.wire import to_json

OnChange = Callable[[bool, str], None]

# A dying app may lose its connections before its listening socket: look again soon. One that closes idle connections is looked at ever
# more seldom, so that its cuts do not turn the check into a busy loop.
FIRST_PAUSE_S = 0.005
MAX_PAUSE_S = 0.25
COMING_UP_S = 0.25

_log = EventLog("app check")


class AppCheck:
    """Looks at one app for ever. `well` is what others are told; `reason` says why not, or what is amiss though it is well.

    Args:
        on_change: told (well, reason) at each change.
        look: how to look; None is what the settings say.
    """

    def __init__(self, settings: Settings, on_change: OnChange, look: Look | None = None) -> None:
        self._settings = settings
        self._on_change = on_change
        self._hint = asyncio.Event()
        self._look = look or make_look(settings, self._hint.set)
        self._streak = 0  # looks in a row that speak against the present state
        self._grace_ends: float | None = math.inf  # None once it was well, or is late
        self._since_s = time.time()
        self.well = self._look is None
        self.reason = "" if self.well else "it was not checked yet"
        self.heartbeat = self._make_heartbeat()

    @property
    def state(self) -> str:
        """Return `up`, `down`, or `starting` for an app that was not well yet and still has time."""
        return "up" if self.well else "down" if self._grace_ends is None else "starting"

    def shown(self) -> dict[str, object]:
        """Return the state as /status has it."""
        return {"State": self.state, "Reason": self.reason or None, "Since": rfc3339(self._since_s), "Check": str(self._settings.check)}

    async def run(self) -> None:
        """Look at each interval, and at once when the tripwire is cut."""
        look = self._look
        if look is None:
            await asyncio.Event().wait()
            return
        self._grace_ends = time.monotonic() + self._settings.check_grace
        pause_s = FIRST_PAUSE_S
        while True:
            self._hint.clear()
            try:
                self._note(await look.look())
            except OwnLimit as exc:
                _log.warn_seldom("app_not_checked", exc.message)  # says nothing about the app
            except Exception as exc:
                _log.fault("look_failed", f"the app could not be looked at: {type(exc).__name__}: {exc}", exc)  # nor does a fault of ours
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(self._interval_s()):
                    await self._hint.wait()
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            except TimeoutError:
                pause_s = FIRST_PAUSE_S

    def let_go(self) -> None:
        """Hold no connection from now on: an app that is told to end may wait until all of them are closed."""
        if self._look is not None:
            self._look.let_go()

    def close(self) -> None:
        """Let go of the app's port."""
        if self._look is not None:
            self._look.close()

    def _interval_s(self) -> float:
        """Return the time to the next look: an app that is coming up should not have to wait for its turn, where a look is cheap."""
        interval_s = self._settings.check_interval
        return interval_s if self.well or self._settings.check.kind == "exec" else min(interval_s, COMING_UP_S)

    def _note(self, finding: Finding) -> None:
        well = finding.state != CRITICAL
        if well is self.well:
            self._streak = 0
        else:
            self._streak += 1
        needed = self._settings.check_rise if well else 1 if finding.final else self._settings.check_fall
        changed = well is not self.well and self._streak >= needed
        reason = finding.reason if changed or well is self.well else self.reason
        if changed:
            self.well, self._streak, self._since_s = well, 0, time.time()
        if changed and well:
            self._grace_ends = None
        late = self._grace_ends is not None and time.monotonic() > self._grace_ends
        if changed or late or reason != self.reason:
            self._tell(finding.state, reason, changed, late)

    def _tell(self, found: str, reason: str, changed: bool, late: bool) -> None:
        if late:
            self._grace_ends = None
            _log.warning(
                "app_late", f"{self._settings.name} is not up {self._settings.check_grace:g} s after the sidecar's start: {reason}"
            )
        elif self.well and reason != self.reason and found == WARN:
            _log.warn_seldom("app_warns", f"{self._settings.name} is up, but: {reason}")
        self.reason = reason
        self.heartbeat = self._make_heartbeat()
        if changed:
            self._on_change(self.well, reason)

    def _make_heartbeat(self) -> tuple[int, bytes]:
        """Return the status and body of the heartbeat's answer."""
        said = {"State": self.state, "Reason": self.reason} if self.reason else {"State": self.state}
        return (200 if self.well else 503), to_json(said)


def make_look(settings: Settings, on_hint: OnHint) -> Look | None:
    """Return the way to look at the app that the settings ask for; None is not to look at all."""
    check = settings.check
    if check.kind == "none":
        return None
    if check.kind == "http":
        url = Url("http", settings.host, settings.port, check.path)
        return HttpLook(url, settings.check_status, settings.check_timeout, on_hint)
    if check.kind == "exec":
        from pillion_sidecar.check.exec_look import ExecLook  # brings asyncio's subprocesses

        return ExecLook(check.command, settings.check_timeout)
    return TcpLook(settings.host, settings.port, settings.check_timeout, on_hint)
