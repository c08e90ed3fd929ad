"""`pillion run --name X --port N -- CMD…`: a local command with a sidecar beside it, in one step.

The command gets `PILLION_URL`, the base URL of the sidecar's local listener. When it ends, so does the sidecar, with the command's exit
code; on SIGTERM the app is withdrawn first and the command is told to stop then. What it prints is shown, and goes to the log service.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from pillion_common import config, lifecycle, logs
from pillion_common.errors import ConfigError
from pillion_common.logs import EventLog
from pillion_common.trust import Token
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.settings import Settings, with_fallbacks
from pillion_sidecar.sidecar import Sidecar, open_spool

if TYPE_CHECKING:
    from pillion_sidecar.logs.sources.output import CommandOutput

PROGRAM = "run"
DESCRIPTION = "Runs a local command with a sidecar beside it: pillion run --name X --port N [options] -- CMD…"
STOP_S = 10.0
OUTPUT_S = 1.0  # for the last of its output, which what it started may hold open

_log = EventLog("run")


class CommandWithSidecar:
    """A sidecar and the command it stands beside (a lifecycle.Program)."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None, spool: Spool, command: list[str]) -> None:
        self._life = life
        self._sidecar = Sidecar(life, settings, token, spool)
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._takes_output = settings.log_output
        self._output: CommandOutput | None = None
        self._join = settings.log_join
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Start the sidecar, then the command."""
        addresses = await self._sidecar.start()
        environ = {**os.environ, "PILLION_URL": self._sidecar.local_url}
        if self._takes_output:
            self._process = await self._start_heard(environ)
        else:
            self._process = await asyncio.create_subprocess_exec(*self._command, env=environ)
        self._life.tasks.spawn("command", self._wait())
        return addresses

    async def stop(self) -> None:
        """Withdraw the app, then let the command stop by itself, for at most 10 s."""
        await self._sidecar.withdraw()
        await self._stop_command()
        if self._output is not None:
            await self._output.end(OUTPUT_S)
        await self._sidecar.close()

    async def _start_heard(self, environ: dict[str, str]) -> asyncio.subprocess.Process:
        """Start the command so that its output goes through our hands."""
        from pillion_sidecar.logs.sources.output import CommandOutput

        output = CommandOutput(self._sidecar.lines.maker, self._sidecar.lines.sink, self._join)
        stdout, stderr = output.open()
        try:
            process = await asyncio.create_subprocess_exec(*self._command, env=environ, stdout=stdout, stderr=stderr)
        except BaseException:
            output.close()
            raise
        output.started()
        self._output = output
        return process

    async def _stop_command(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            _log.warning("command_killed", f"the command did not stop within {STOP_S:g} s after SIGTERM: killed")
            process.kill()
            await process.wait()

    async def _wait(self) -> None:
        assert self._process is not None
        code = await self._process.wait()
        if not self._life.stop.is_set():
            # A command ended by signal N shows as 128 + N, as shells have it.
            self.exit_code = code if code >= 0 else 128 - code
            _log.info("command_ended", f"the command ended with exit code {self.exit_code}", exit_code=self.exit_code)
            self._life.stop.set()


def main(argv: list[str]) -> int:
    """Run a command beside a sidecar; returns the command's exit code."""
    at = argv.index("--") if "--" in argv else len(argv)
    options, command = argv[:at], argv[at + 1 :]
    try:
        settings = _load(options, command)
        token = Token.load(settings.token_file)
        logs.set_up(PROGRAM, settings.log_level)
        spool = open_spool(settings)
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    return lifecycle.run(PROGRAM, lambda life: CommandWithSidecar(life, settings, token, spool, command))


def _load(options: list[str], command: list[str]) -> Settings:
    faults = [] if command else ["no command; write it after `--`: pillion run --name X --port N -- CMD…"]
    try:
        settings = config.load(Settings, PROGRAM, options, with_fallbacks(os.environ), DESCRIPTION)
    except ConfigError as exc:
        raise ConfigError(exc.faults + faults) from exc
    if faults:
        raise ConfigError(faults)
    return settings
