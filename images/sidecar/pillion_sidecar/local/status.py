"""What the sidecar says of itself: /livez, /readyz and /metrics on both listeners, /version and /status on the local one."""

from __future__ import annotations

from pillion_common import __version__
from pillion_common.http.message import Request, Response
from pillion_common.http.router import Router
from pillion_common.lifecycle import Readiness
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.local.exposition import METRICS_TYPE, Row, exposition
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.registry.registrar import Registrar
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import to_json

_LIVE = Response(200, b'{"Status":"ok"}\n')


class Status:
    """The sidecar's own state, for people, probes and monitoring."""

    def __init__(self, name: str, table: ProviderTable, registrar: Registrar, check: AppCheck, spool: Spool, readiness: Readiness) -> None:
        self._name = name
        self._table = table
        self._registrar = registrar
        self._check = check
        self._spool = spool
        self._readiness = readiness

    def add_to(self, router: Router) -> None:
        """Serve all paths."""
        self.add_probes_to(router)
        router.add("GET", "/version", lambda request: Response(200, to_json({"Version": __version__})))
        router.add("GET", "/status", self._status)

    def add_probes_to(self, router: Router) -> None:
        """Serve what kubelet and Prometheus ask for, who reach the pod's address only."""
        router.add("GET", "/livez", lambda request: _LIVE)
        router.add("GET", "/readyz", self._ready)
        router.add("GET", "/metrics", self._metrics)

    def _ready(self, request: Request) -> Response:
        ready, checks = self._readiness.report()
        return Response(200 if ready else 503, to_json({"Status": "ok" if ready else "not ready", "Checks": checks}))

    def _status(self, request: Request) -> Response:
        registrar = self._registrar
        told = {
            "Name": self._name,
            "InstanceID": registrar.instance_id,
            "Draining": registrar.draining,
            "App": self._check.shown(),
            "Registry": {
                "Registered": registrar.registered,
                "Classic": registrar.classic,
                "Fault": registrar.fault or None,
                "HeardSecondsAgo": round(registrar.silent_s, 1),
                "Stale": registrar.stale,
            },
            "Missing": self._table.missing(),
            "Undeclared": self._table.undeclared(),
            "Spool": {"Waiting": self._spool.waiting, "Bytes": self._spool.size, "Dropped": self._spool.dropped},
        }
        return Response(200, to_json(told))

    def _metrics(self, request: Request) -> Response:
        registrar, spool = self._registrar, self._spool
        rows: list[Row] = [
            ("pillion_app_up", "gauge", "whether the app's check passes", {}, self._check.well),
            ("pillion_registered", "gauge", "whether the registry has this instance", {}, registrar.registered),
            ("pillion_draining", "gauge", "whether the app is being drained", {}, registrar.draining),
            ("pillion_table_stale", "gauge", "whether the table may be old", {}, registrar.stale),
            ("pillion_registry_silent_seconds", "gauge", "since the registry was last heard", {}, round(registrar.silent_s, 3)),
            ("pillion_spool_lines", "gauge", "log lines that wait to be forwarded", {}, spool.waiting),
            ("pillion_spool_bytes", "gauge", "size of the spool on disk", {}, spool.size),
            ("pillion_spool_dropped_total", "counter", "log lines dropped because the spool was full", {}, spool.dropped),
        ]
        help_text = "providers that are up, by service"
        rows += [("pillion_providers", "gauge", help_text, {"name": name}, len(self._table.all(name))) for name in self._table.names()]
        return Response(200, exposition(rows), METRICS_TYPE)
