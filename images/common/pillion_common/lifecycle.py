"""The life of a program: configuration, signals, readiness, ordered shutdown, exit code.

Signals only set an event. Exit codes: 0 clean, 1 run-time failure, 2 configuration. A second SIGTERM or SIGINT ends at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Protocol

from pillion_common.errors import ConfigError, PillionError
from pillion_common.logs import EventLog
from pillion_common.tasks import Supervisor

_log = EventLog("lifecycle")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Program(Protocol):
    """What `run` drives. `stop` must be safe after a `start` that failed half way."""

    async def start(self) -> list[str]:
        """Start serving; return the addresses listened on, each with its role, e.g. `http://127.0.0.1:3000`."""

    async def stop(self) -> None:
        """Not ready -> withdraw -> stop listening -> stop tasks -> flush -> close the store."""

    @property
    def exit_code(self) -> int:
        """Exit code once stopped without a failure."""


class Life:
    """The events of one program's life. `stop` is set by a signal or by the program itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stop = asyncio.Event()
        self.tasks = Supervisor()

    def install_signals(self) -> None:
        """Let SIGTERM and SIGINT set `stop`; a second one ends the process at once."""
        loop = asyncio.get_running_loop()

        def wake(number: int, frame: object) -> None:
            if loop.is_closed():
                os._exit(EXIT_FAILED)  # all is done, but something keeps the process
            loop.call_soon_threadsafe(self._signalled, number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, wake)  # asyncio's add_signal_handler would load the module inspect (see late.py)

    def _signalled(self, number: int) -> None:
        if self.stop.is_set():
            os._exit(EXIT_FAILED)
        _log.info("stopping", f"{signal.Signals(number).name}: stopping; a second one ends at once")
        self.stop.set()


class Readiness:
    """What /readyz says: each check by name with its reason. Not ready from the moment `close` is called."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._closing = False

    def add(self, name: str, check: Callable[[], str | None]) -> None:
        """Add a check: it returns None when all is well, else the reason."""
        self._checks[name] = check

    def close(self) -> None:
        """Say not ready from now on."""
        self._closing = True

    def report(self) -> tuple[bool, dict[str, str]]:
        """Return whether all is well, and each check's word ("ok" or the reason)."""
        words = {name: check() or "ok" for name, check in self._checks.items()}
        if self._closing:
            words["shutdown"] = "stopping"
        return all(word == "ok" for word in words.values()), words


async def _started(program: Program, life: Life) -> list[str] | None:
    """Start a program; None where it was told to stop before that was done: it may wait for what it depends on as long as that takes."""
    starting = asyncio.create_task(program.start(), name="start")
    stop = asyncio.create_task(life.stop.wait(), name="wait-for-stop")
    await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if starting.done():
        return starting.result()
    starting.cancel()
    await asyncio.wait((starting,))
    return None


async def _live(make: Callable[[Life], Program], life: Life) -> int:
    life.install_signals()
    program = make(life)
    try:
        if (addresses := await _started(program, life)) is None:
            return program.exit_code
        gc.freeze()  # what is there now stays: the collector need not look at it again and again
        gc.set_threshold(10_000, 20, 20)  # nor at every 700 objects: a storm makes thousands that live for a moment
        _log.info("listening", f"{life.name} listens on {', '.join(addresses)}", addresses=addresses)
        stop = asyncio.create_task(life.stop.wait(), name="wait-for-stop")
        failed = asyncio.create_task(life.tasks.failed.wait(), name="wait-for-fault")
        await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
        crashed = not life.stop.is_set()
        stop.cancel()
        failed.cancel()
    except PillionError as exc:
        _log.error("start_failed", f"{life.name} cannot start: {exc.message}")
        return EXIT_FAILED
    except OSError as exc:
        _log.error("start_failed", f"{life.name} cannot start: {exc}")
        return EXIT_FAILED
    finally:
        await program.stop()
        await life.tasks.stop()
    _log.info("stopped", f"{life.name} stopped")
    return EXIT_FAILED if crashed else program.exit_code


def run(name: str, make: Callable[[Life], Program], loop_factory: LoopFactory | None = None) -> int:
    """Run a program until it is told to stop.

    Args:
        name: for the log.
        make: builds the program inside the running loop.
        loop_factory: e.g. uvloop's; None is asyncio's own.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else the Runner handles it, until we do
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_with_life(name, make))


async def _with_life(name: str, make: Callable[[Life], Program]) -> int:
    return await _live(make, Life(name))


def refuse(program: str, error: ConfigError) -> int:
    """Print every configuration fault and return exit code 2."""
    for fault in error.faults:
        print(f"pillion {program}: {fault}", file=sys.stderr)
    print(f"pillion {program}: see `pillion {program} --help`", file=sys.stderr)
    return EXIT_CONFIG
