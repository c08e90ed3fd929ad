"""Starts a program of Pillion's many times, quickly: it is imported once, then forked for each start. Runs one at a time.

Reads a line from stdin for each start, `{"Words":["--store","files:DIR"],"Log":"FILE","Hold":true}`, and writes `{"Pid":17}`, and when that
process has ended `{"Pid":17,"Status":9}`. With Hold the process stops itself before its first own step, so that a tracer can be attached.

    python launch.py log            the program as it is
    python launch.py log early-ack  sabotaged, so that a suite can show that it would notice
    python launch.py log early-ack -- WORDS  one start, of this process itself
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial, partialmethod
from typing import Any

EARLY_S = 0.02


def early_ack() -> None:
    """Acknowledge entries before they are written."""
    base = importlib.import_module("pillion_log.store.base")

    def early(append: Any, store: Any, runs: Any, done: Any) -> None:
        done(base.Appended(sum(run.length for run in runs), 0))
        loop = importlib.import_module("asyncio").get_running_loop()
        loop.call_later(EARLY_S, append, store, runs, lambda outcome: None)  # so that a kill falls between, however fast the machine is

    _append_by(early)


def no_dedupe() -> None:
    """Forget where entries come from, so that a repeat is not recognised."""
    entries = importlib.import_module("pillion_log.entries")

    def forgetful(append: Any, store: Any, runs: Any, done: Any) -> None:
        append(store, [entries.Run(run.lines, run.length) for run in runs], done)

    _append_by(forgetful)


def _append_by(sabotaged: Callable[..., None]) -> None:
    """Have the log's stores append by another function, which is given the true one."""
    for module, name in (("files", "FileStore"), ("nats_store", "NatsStore")):
        store = getattr(importlib.import_module(f"pillion_log.store.{module}"), name)
        store.append = partialmethod(partial(sabotaged, store.append))


def deaf_to_errors() -> None:
    """Take a failed sync for a good one."""
    system: Any = os
    sync = system.fdatasync

    def sabotaged(file: Any) -> None:
        try:
            sync(file)
        except OSError:
            pass

    system.fdatasync = sabotaged


def no_sync() -> None:
    """Leave it to the operating system when what is written gets to the disk."""
    system: Any = os
    system.fdatasync = system.fsync = lambda file: None


def registry_early_ack() -> None:
    """Answer a registration before it is stored."""
    _submit_later(importlib.import_module("pillion_registry.store.sqlite").SqliteStore)


def replica_early_ack() -> None:
    """Answer a write before NATS has it, and before this replica has seen it."""
    _submit_later(importlib.import_module("pillion_registry.store.nats").NatsStore)


def replica_forgetful() -> None:
    """Take a classic dependent over without what the registry before has told it."""
    wire = importlib.import_module("pillion_registry.store.nats_wire")
    importlib.import_module("pillion_registry.handover")._told = lambda value, generation: wire.Told(generation, {})


def _submit_later(store: Any) -> None:
    asyncio = importlib.import_module("asyncio")
    submit = store.submit

    def sabotaged(self: Any, changes: Any, on_done: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(on_done, None)
        loop.call_later(EARLY_S, submit, self, changes, lambda error: None)  # so that the answer is out, however slow the machine is

    store.submit = sabotaged


def registry_no_sync() -> None:
    """Leave it to the operating system when a registration gets to the disk."""
    journal: Any = importlib.import_module("pillion_registry.store.journal")
    open_file = journal.open_file

    def sabotaged(path: Any) -> Any:
        connection, stored = open_file(path)
        connection.execute("PRAGMA synchronous=OFF")
        return connection, stored

    journal.open_file = sabotaged


def registry_deaf_to_lag() -> None:
    """Take one's own absence for the silence of others."""
    meter = importlib.import_module("pillion_registry.lag").LagMeter
    meter.late_within = lambda self, seconds: False


SABOTAGES: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "early-ack": early_ack,
    "no-dedupe": no_dedupe,
    "deaf-to-errors": deaf_to_errors,
    "no-sync": no_sync,
    "registry-early-ack": registry_early_ack,
    "replica-early-ack": replica_early_ack,
    "replica-forgetful": replica_forgetful,
    "registry-no-sync": registry_no_sync,
    "registry-deaf-to-lag": registry_deaf_to_lag,
}

# What the programs import when they need it: their own files are then the only ones they open.
_LAZY = {
    "log": ["pillion_log.store.files", "argparse", "bz2", "lzma", "re2", "shutil", "tornado.platform.asyncio"],
    "registry": ["pillion_registry.store.sqlite", "argparse", "bz2", "lzma", "shutil", "tornado.platform.asyncio"],
    "sidecar": ["argparse", "shutil"],
}


def main() -> None:
    """Fork a process for each line."""
    command = sys.argv[1]
    program = importlib.import_module(f"pillion_{command}.__main__")
    for name in _LAZY.get(command, []):
        importlib.import_module(name)
    if command == "log":
        page = importlib.import_module("pillion_log.page").Page
        page.load = partial(lambda loaded: loaded, page.load())
    SABOTAGES[sys.argv[2] if len(sys.argv) > 2 else ""]()
    if "--" in sys.argv:
        sys.exit(program.main(sys.argv[sys.argv.index("--") + 1 :]))
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(program.main, asked)
        print(json.dumps({"Pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"Pid": pid, "Status": os.waitstatus_to_exitcode(status)}), flush=True)


def _become(start: Callable[[list[str]], int], asked: dict[str, Any]) -> None:
    code = 70
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open(asked["Log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number, file in enumerate((nothing, nothing, log)):
            os.dup2(file, number)
        os.environ.update(asked.get("Env", {}))
        if asked.get("Hold"):
            os.kill(os.getpid(), signal.SIGSTOP)
        code = start(asked["Words"])
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
