"""`pillion log`: puts the parts together and runs them. Reads nothing from stdin: it runs on without one."""

from __future__ import annotations

import os
import sys

import uvloop

from pillion_common import config, lifecycle, logs
from pillion_common.errors import ConfigError
from pillion_common.http.interfaces import Limits
from pillion_common.http.server import Server
from pillion_common.http.tornado_bridge import TornadoBridge
from pillion_common.trust import Token
from pillion_log.front import Gate, hot_routes
from pillion_log.handlers import Parts, make_application
from pillion_log.intake import Intake
from pillion_log.metrics import Counts, Tailed
from pillion_log.reader import Reader
from pillion_log.settings import DESCRIPTION, PROGRAM, Settings
from pillion_log.store import open_store
from pillion_log.store.base import Remote, Store
from pillion_log.store.files import FileOptions
from pillion_log.syslog.service import SyslogService
from pillion_log.tail.streams import TailStreams
from pillion_log.tail.tails import Tails

MAX_BODY_BYTES = 8 * 1024 * 1024

_log = logs.EventLog("log")


class LogProgram:
    """The log service as a program with a life."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None, store: Store) -> None:
        self._life = life
        self._settings = settings
        self._store = store
        self._readiness = lifecycle.Readiness()
        self._readiness.add("store", store.fault)
        reader = Reader(store)
        tails = self._tails = Tails(store, reader.threads)
        counts = Counts()
        intake = Intake(store, counts=counts)
        self._syslog = SyslogService(intake if token is None else intake.unverified(), settings.exempt_networks())
        parts = Parts(reader, store.fault, lambda: Tailed(tails.streams, tails.missed), counts, self._syslog.heard)
        rest = TailStreams(tails, TornadoBridge(make_application(parts, self._readiness)))
        writes = hot_routes(intake, Gate(token, settings.exempt_networks()))
        self._server = Server(streaming=rest, hot=writes, limits=Limits(body_bytes=MAX_BODY_BYTES))
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Load first, listen then: whoever reaches the log service can write and read at once."""
        if not self._settings.token_file:
            _log.warning("no_token", "PILLION_TOKEN_FILE is not set: everybody who reaches this log service may write to it")
        await self._store.load()
        if isinstance(self._store, Remote):
            self._life.tasks.keep("store-lost", _end_with(self._store))
        addresses = [await self._server.listen(self._settings.listen)]
        if self._settings.log_syslog is not None:
            if self._settings.token_file and not self._settings.classic_networks:
                _log.warning("syslog_closed", "PILLION_LOG_SYSLOG is set, but nobody may send: list networks in PILLION_CLASSIC_NETWORKS")
            addresses.append(await self._syslog.listen(self._settings.log_syslog))
        return addresses

    async def stop(self) -> None:
        """Stop taking requests, finish those in flight, close the store."""
        self._readiness.close()
        self._tails.close()
        await self._server.close()
        await self._syslog.close()
        await self._life.tasks.stop()
        await self._store.close()


async def _end_with(store: Remote) -> None:
    """Return when a store is lost for good: the program ends, and its restart policy brings it back."""
    _log.error("store_lost", f"{await store.lost()}; ending, for nothing but a new start helps")


def _file_options(settings: Settings) -> FileOptions:
    return FileOptions(
        rotate_bytes=settings.log_rotate,
        rotate_s=settings.log_rotate_age,
        max_bytes=settings.log_max_bytes,
        max_age_s=settings.log_max_age,
        sync=settings.log_sync,
        sync_every_s=settings.log_sync_interval,
        packs=settings.log_compress,
        current=settings.log_current,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the log service; returns the exit code."""
    try:
        settings = config.load(Settings, PROGRAM, sys.argv[1:] if argv is None else argv, os.environ, DESCRIPTION)
        token = Token.load(settings.token_file)
        store = open_store(settings.store, _file_options(settings), settings.store_token_file)
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    logs.set_up(PROGRAM, settings.log_level)
    return lifecycle.run(PROGRAM, lambda life: LogProgram(life, settings, token, store), uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
