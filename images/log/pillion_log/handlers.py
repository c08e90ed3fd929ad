"""What the log service answers by Tornado: queries, numbers, the page, and every program's probes. Writes are hot routes, in front.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pillion_common import models
from pillion_common.errors import InvalidInput
from pillion_common.http.tornado_handlers import Application, BaseHandler
from pillion_common.lifecycle import Readiness
from pillion_log.metrics import METRICS_TYPE, Counts, Heard, Tailed, exposition
from pillion_log.page import Page
from pillion_log.reader import Reader
from pillion_log.stats import summed, table

NDJSON = "application/x-ndjson"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Parts(NamedTuple):
    """What the handlers ask."""

    reader: Reader
    fault: Callable[[], str | None] = lambda: None
    tailed: Callable[[], Tailed] = lambda: Tailed(0, 0)
    counts: Counts | None = None
    syslog: Callable[[], Mapping[str, Heard]] = dict


class _Handler(BaseHandler):
    def initialize(self, parts: Parts) -> None:
        """Take what make_application gives."""
        self._parts = parts
        self._gone = False

    def on_connection_close(self) -> None:
        """Remember that nobody waits for the answer any more."""
        self._gone = True

    def _parameters(self) -> dict[str, str]:
        parameters = {}
        for name, values in self.request.query_arguments.items():
            if len(values) > 1:
                raise InvalidInput(f"the parameter {name} is given {len(values)} times; give it once", code="invalid_query", field=name)
            parameters[name] = values[0].decode("utf-8", "replace")
        return parameters

    def _wants_text(self, parameters: dict[str, str], other: str) -> bool:
        wanted = parameters.get("format", "")
        kind = other.rpartition("-")[2].rpartition("/")[2]
        if wanted not in ("", "text", kind):
            raise InvalidInput(f"format {wanted[:40]!r} is neither text nor {kind}", code="invalid_query", field="format")
        accept = self.request.headers.get("Accept", "")
        return wanted == "text" or (not wanted and "text/plain" in accept and other not in accept)


class LogsHandler(_Handler):
    """`GET /logs`: answers to queries."""

    async def get(self) -> None:
        """Stream the entries asked for."""
        parameters = self._parameters()
        text = self._wants_text(parameters, NDJSON)
        async with self._parts.reader.answer(parameters, as_text=text) as answer:
            self.set_header("Content-Type", TEXT if text else NDJSON)
            self.set_header("X-Content-Type-Options", "nosniff")
            for name, value in answer.headers.items():
                self.set_header(name, value)
            async for piece in answer.pieces:
                if self._gone:
                    return
                if piece:
                    self.write(piece)
                    try:
                        await self.flush()
                    except ConnectionResetError:
                        return


class StatsHandler(_Handler):
    """`GET /stats`: what there is."""

    async def get(self) -> None:
        """Answer per service and in all."""
        text = self._wants_text(self._parameters(), JSON)
        stats = summed(await self._parts.reader.stats())
        if text:
            self.set_header("Content-Type", TEXT)
            self.write(table(stats))
        else:
            self.write_json(models.encode(stats) + b"\n")


class MetricsHandler(_Handler):
    """`GET /metrics`: for Prometheus."""

    async def get(self) -> None:
        """Answer all numbers."""
        parts = self._parts
        stats = await parts.reader.stats()
        self.set_header("Content-Type", METRICS_TYPE)
        self.write(exposition(stats, parts.fault(), parts.tailed(), parts.counts, parts.syslog()))


class PageHandler(BaseHandler):
    """`GET /`: the page."""

    def initialize(self, page: Page) -> None:
        """Take what make_application gives."""
        self._page = page

    def get(self) -> None:
        """Answer the page, which may load nothing from elsewhere."""
        for name, value in self._page.headers.items():
            self.set_header(name, value)
        self.write(self._page.html)


def make_application(parts: Parts, readiness: Readiness) -> Application:
    """Return the log service's Tornado application."""
    given = {"parts": parts}
    routes = [
        (r"/logs", LogsHandler, given),
        (r"/stats", StatsHandler, given),
        (r"/metrics", MetricsHandler, given),
        (r"/", PageHandler, {"page": Page.load()}),
    ]
    return Application(routes, readiness)
