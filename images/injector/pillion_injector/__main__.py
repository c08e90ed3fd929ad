"""`pillion injector`: the admission webhook as a program. Plain Tornado with TLS; the other programs' HTTP core has none for servers."""

from __future__ import annotations

import os
import ssl
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from pillion_common import config, lifecycle, logs
from pillion_common.config import Address
from pillion_common.errors import ConfigError
from pillion_injector.certificate import Certificate
from pillion_injector.events import Api, Events, find_api
from pillion_injector.handlers import Reviews, make_application
from pillion_injector.review import Policy
from pillion_injector.settings import DESCRIPTION, PROGRAM, Settings

MAX_BODY_BYTES = 4 << 20  # etcd takes objects of 1.5 MB; a review holds one or two
MAX_HEAD_BYTES = 16 << 10
BODY_S = 5.0
IDLE_S = 90.0  # the API server keeps its connections
END_S = 5.0


class InjectorProgram:
    """The webhook as a program with a life."""

    def __init__(self, life: lifecycle.Life, settings: Settings, certificate: Certificate, api: Api | None) -> None:
        self._life = life
        self._settings = settings
        self._certificate = certificate
        self._events = Events(api) if api else None
        self._readiness = lifecycle.Readiness()
        self._reviews = Reviews(Policy(settings.wanted(), settings.left_out(), settings.by_label), self._events, certificate)
        self._servers: list[HTTPServer] = []
        self.exit_code = lifecycle.EXIT_OK

    async def start(self) -> list[str]:
        """Listen for the API server and for probes."""
        self._life.tasks.keep("certificate", self._certificate.watch(self._settings.certificate_check))
        if self._events:
            self._life.tasks.keep("events", self._events.work())
        return [
            f"https://{self._listen(self._settings.listen, self._certificate.context)}",
            f"http://{self._listen(self._settings.probes, None)}",
        ]

    async def stop(self) -> None:
        """Not ready, finish what is under way, stop listening."""
        self._readiness.close()
        for server in self._servers:
            server.stop()
        for server in self._servers:
            await server.close_all_connections()
        await self._life.tasks.stop(END_S)
        if self._events:
            self._events.close()

    def _listen(self, address: Address, context: ssl.SSLContext | None) -> Address:
        application = make_application(self._reviews, self._readiness, probes_only=context is None)
        server = HTTPServer(
            application,
            ssl_options=context,
            max_body_size=MAX_BODY_BYTES,
            max_buffer_size=MAX_BODY_BYTES + MAX_HEAD_BYTES,
            max_header_size=MAX_HEAD_BYTES,
            body_timeout=BODY_S,
            idle_connection_timeout=IDLE_S,
        )
        sockets = bind_sockets(address.port, address.host)
        server.add_sockets(sockets)
        self._servers.append(server)
        return Address(address.host, sockets[0].getsockname()[1])


def main(argv: list[str] | None = None) -> int:
    """Run the webhook; returns the exit code."""
    try:
        settings = config.load(Settings, PROGRAM, sys.argv[1:] if argv is None else argv, os.environ, DESCRIPTION)
        certificate = Certificate(settings.certificate_dir)
        api = find_api(settings.api, settings.account_dir, os.environ) if settings.events else None
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    logs.set_up(PROGRAM, settings.log_level)
    return lifecycle.run(PROGRAM, lambda life: InjectorProgram(life, settings, certificate, api))


if __name__ == "__main__":
    sys.exit(main())
