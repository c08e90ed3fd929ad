"""`pillion registry`: puts the parts together and runs them."""

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
from pillion_registry import descriptors
from pillion_registry.handlers import hot_routes, make_application
from pillion_registry.replicas import make_registry
from pillion_registry.settings import DESCRIPTION, PROGRAM, Settings
from pillion_registry.store import Store, open_store

_log = logs.EventLog("registry")

OTHER_CONNECTIONS = 1000  # of people and programs that look


class RegistryProgram:
    """The registry as a program with a life."""

    def __init__(self, life: lifecycle.Life, settings: Settings, token: Token | None, store: Store) -> None:
        self._life = life
        self._settings = settings
        self._open_files = descriptors.allow(descriptors.needed(settings.max_instances, OTHER_CONNECTIONS))
        self._registry = make_registry(settings, store, token, life.tasks)
        self._started = False
        self._readiness = lifecycle.Readiness()
        self._readiness.add("store", self._registry.store_fault)
        application = make_application(self._registry, self._readiness, token, settings.exempt_networks())
        hot = hot_routes(self._registry, token, settings.exempt_networks())
        # Every sidecar keeps a connection for a while after it registered.
        limits = Limits(connections=settings.max_instances + OTHER_CONNECTIONS)
        self._server = Server(streaming=TornadoBridge(application), hot=hot, limits=limits)
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Load first, listen then: whoever reaches the registry finds it whole."""
        if not self._settings.token_file:
            _log.warning("no_token", "PILLION_TOKEN_FILE is not set: everybody who reaches this registry may change it")
        if (short := descriptors.shortage(self._open_files, self._settings.max_instances, OTHER_CONNECTIONS)) is not None:
            _log.warning("few_descriptors", short)
        await self._registry.start()
        self._started = True
        return [await self._server.listen(self._settings.listen)]

    async def stop(self) -> None:
        """Stop taking requests, finish those in flight, close the store."""
        self._readiness.close()
        self._registry.reads.close()
        await self._server.close()
        if self._started:
            await self._registry.notifier.finish(self._settings.heartbeat_timeout)
        await self._life.tasks.stop()
        await self._registry.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the registry; returns the exit code."""
    try:
        settings = config.load(Settings, PROGRAM, sys.argv[1:] if argv is None else argv, os.environ, DESCRIPTION)
        token = Token.load(settings.token_file)
        store = open_store(settings.store, settings.store_token_file)
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    logs.set_up(PROGRAM, settings.log_level)
    return lifecycle.run(PROGRAM, lambda life: RegistryProgram(life, settings, token, store), uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
