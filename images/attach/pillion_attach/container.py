"""Attaches a sidecar to a running container, and takes it off again. Whatever stops it half way, nothing half done stays behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from pillion_attach.container_plan import ContainerPlan
from pillion_attach.sidecar_container import COMPOSE_MADE
from pillion_common.errors import ConfigError, PillionError
from pillion_common.keys import ATTACHED_TO, JOINED_NETWORK

STOP_S = 15  # a sidecar withdraws, waits until its dependents know, and sends its last lines
LINES_S = 5.0
ASK_EVERY_S = 0.5
READY_URL = "http://127.0.0.1:7071/readyz"
# The image has no curl; the program's own healthcheck prints no body that was answered with 200.
ASK_STATUS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7071/status', timeout=2).read().decode())"

Say = Callable[[str], None]


class Clock(Protocol):
    """What is needed of the module `time`."""

    def monotonic(self) -> float: ...  # noqa: D102
    def sleep(self, seconds: float, /) -> None: ...  # noqa: D102


class Engine(Protocol):
    """What is needed of pillion_attach.engine.Engine."""

    def sidecar_of(self, app: str) -> dict[str, Any] | None: ...  # noqa: D102
    def join(self, network: str, container: str) -> None: ...  # noqa: D102
    def leave(self, network: str, container: str) -> None: ...  # noqa: D102
    def make_volume(self, name: str, labels: dict[str, str]) -> None: ...  # noqa: D102
    def remove_volume(self, name: str) -> None: ...  # noqa: D102
    def start(self, parameters: dict[str, Any], mounts: list[dict[str, Any]]) -> None: ...  # noqa: D102
    def stop(self, name: str, timeout_s: int) -> None: ...  # noqa: D102
    def remove(self, name: str, app: str) -> None: ...  # noqa: D102
    def state(self, name: str) -> tuple[str, int, int]: ...  # noqa: D102
    def run_inside(self, name: str, words: list[str]) -> tuple[int, str]: ...  # noqa: D102
    def last_words(self, name: str) -> list[str]: ...  # noqa: D102


def attach(engine: Engine, plan: ContainerPlan, say: Say, timeout_s: float, clock: Clock = time) -> bool:
    """Start a sidecar and wait until it is ready.

    Returns:
        Whether it became ready in time; if not, it stays and goes on trying.

    Raises:
        PillionError: it could not be started, or ended by itself; then nothing is left of it. So it is with KeyboardInterrupt.
    """
    undo = ExitStack()
    try:
        reason = _start(engine, plan, say, undo, timeout_s, clock)
    except BaseException:
        _take_back(undo, say)
        raise
    if reason:
        say(f"it is not ready yet: {reason}")
        say(f"it stays and goes on trying; to take it off: pillion detach {plan.app}")
        return False
    say(f"ready: {plan.settled['name']} is registered, with port {plan.settled['port']}")
    say("inside the container, the app now asks http://127.0.0.1:7071/providers/NAME where a service is")
    say(f"its log: docker logs {plan.sidecar}    to take it off: pillion detach {plan.app}")
    return True


def detach(engine: Engine, app: str, say: Say, dry_run: bool = False, clock: Clock = time) -> None:
    """Withdraw and remove an app's sidecar, with its volume.

    The volume stays when it holds log lines that the log service has not taken; a new sidecar will send them.

    Raises:
        ConfigError: the app has no sidecar, or one that Compose has made.
    """
    attrs = engine.sidecar_of(app)
    if attrs is None:
        raise ConfigError([f"{app} has no sidecar that `pillion attach docker` has started"])
    labels, name = attrs["Config"]["Labels"], str(attrs["Name"]).lstrip("/")
    if labels.get(COMPOSE_MADE):
        service = labels[ATTACHED_TO]
        raise ConfigError([f"{name} was started by Compose: take {service} off with `pillion detach compose FILE {service}`"])
    volumes = [mount["Name"] for mount in attrs.get("Mounts") or () if mount["Type"] == "volume" and mount.get("RW")]
    network = labels.get(JOINED_NETWORK)
    if dry_run:
        say(f"would stop and remove the container {name}, and remove the volume {', '.join(volumes)}")
        if network:
            say(f"would take {app} out of the network {network}")
        return
    waiting = _lines_waiting(engine, name, clock)
    say(f"stopping {name}: it withdraws {app} first")
    with _undisturbed():
        _remove(engine, name, app, volumes, network, waiting, say)
    say(f"done: {app} has no sidecar any more")


def _remove(engine: Engine, name: str, app: str, volumes: list[str], network: str | None, waiting: int, say: Say) -> None:
    engine.stop(name, STOP_S)
    engine.remove(name, app)
    for volume in volumes:
        if waiting:
            say(f"the volume {volume} stays: it holds {waiting} log lines no log service has taken. Attach {app} again to send them, or")
            say(f"  docker volume rm {volume}")
        else:
            engine.remove_volume(volume)
    if network:
        say(f"taking {app} out of the network {network}")
        engine.leave(network, app)


def _start(engine: Engine, plan: ContainerPlan, say: Say, undo: ExitStack, timeout_s: float, clock: Clock) -> str:
    """Do it step by step; before each step, note what would take it back, for a step may be stopped half way."""
    if plan.join:
        say(f"putting {plan.app} into the network {plan.join}, where the registry is")
        undo.callback(engine.leave, plan.join, plan.app)
        engine.join(plan.join, plan.app)
    undo.callback(engine.remove_volume, plan.spool)
    engine.make_volume(plan.spool, {ATTACHED_TO: plan.app})
    say(f"starting {plan.sidecar} from {plan.parameters['image']}, in the network of {plan.app}")
    undo.callback(engine.remove, plan.sidecar, plan.app)
    engine.start(dict(plan.parameters), [dict(mount) for mount in plan.mounts])
    say(f"waiting until it is ready, for at most {timeout_s:g} s")
    return _until_ready(engine, plan.sidecar, timeout_s, clock)


def _take_back(undo: ExitStack, say: Say) -> None:
    """Undo what was done, in reverse order."""
    try:
        with _undisturbed():
            undo.close()
        say("taken back: nothing is left of it")
    except PillionError as exc:
        say(f"not all could be taken back: {exc.message}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no Ctrl-C stop what is done in here: it takes seconds, and would be left half done."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_ready(engine: Engine, name: str, timeout_s: float, clock: Clock) -> str:
    """Return nothing once the sidecar is ready, else why it is not.

    Raises:
        PillionError: it ended by itself.
    """
    until = clock.monotonic() + timeout_s
    while True:
        status, code, restarts = engine.state(name)
        if status in ("exited", "restarting", "dead", "gone") or restarts:
            words = "; ".join(engine.last_words(name)) if status != "gone" else "somebody removed it"
            raise PillionError(f"the sidecar ended with exit code {code}: {words or 'it said nothing'}")
        code, said = engine.run_inside(name, ["pillion", "healthcheck", READY_URL])
        if code == 0:
            return ""
        if clock.monotonic() >= until:
            return _plain(said) or "it did not answer"
        clock.sleep(ASK_EVERY_S)


def _plain(said: str) -> str:
    """Return what /readyz said in words: only the checks that are not well."""
    try:
        checks = json.loads(said)["Checks"]
        return "; ".join(f"{name}: {word}" for name, word in checks.items() if word != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return said


def _lines_waiting(engine: Engine, name: str, clock: Clock) -> int:
    """Give log lines some time to leave; return how many are left. A sidecar that does not answer is taken to have none."""
    until = clock.monotonic() + LINES_S
    while True:
        code, said = engine.run_inside(name, ["python3", "-c", ASK_STATUS])
        try:
            waiting = int(json.loads(said)["Spool"]["Waiting"]) if code == 0 else 0
        except (ValueError, KeyError, TypeError):
            waiting = 0
        if not waiting or clock.monotonic() >= until:
            return waiting
        clock.sleep(ASK_EVERY_S)
