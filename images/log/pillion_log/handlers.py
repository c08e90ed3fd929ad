"""What the log service answers by Tornado: queries, and the probes every program has. Writes are hot routes, in front.py."""

from __future__ import annotations

from pillion_common.errors import InvalidInput
from pillion_common.http.tornado_handlers import Application, BaseHandler
from pillion_common.lifecycle import Readiness
from pillion_log.reader import Reader

NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"


class LogsHandler(BaseHandler):
    """`GET /logs`: answers to queries."""

    def initialize(self, reader: Reader) -> None:
        """Take what make_application gives."""
        self._reader = reader
        self._gone = False

    def on_connection_close(self) -> None:
        """Remember that nobody waits for the answer any more."""
        self._gone = True

    async def get(self) -> None:
        """Stream the entries asked for."""
        parameters = self._parameters()
        text = self._wants_text(parameters)
        async with self._reader.answer(parameters, as_text=text) as pieces:
            self.set_header("Content-Type", TEXT if text else NDJSON)
            self.set_header("X-Content-Type-Options", "nosniff")
            async for piece in pieces:
                if self._gone:
                    return
                if piece:
                    self.write(piece)
                    try:
                        await self.flush()
                    except ConnectionResetError:
                        return

    def _parameters(self) -> dict[str, str]:
        parameters = {}
        for name, values in self.request.query_arguments.items():
            if len(values) > 1:
                raise InvalidInput(f"the parameter {name} is given {len(values)} times; give it once", code="invalid_query", field=name)
            parameters[name] = values[0].decode("utf-8", "replace")
        return parameters

    def _wants_text(self, parameters: dict[str, str]) -> bool:
        wanted = parameters.get("format", "")
        if wanted not in ("", "text", "ndjson"):
            raise InvalidInput(f"format {wanted[:40]!r} is neither text nor ndjson", code="invalid_query", field="format")
        accept = self.request.headers.get("Accept", "")
        return wanted == "text" or (not wanted and "text/plain" in accept and NDJSON not in accept)


def make_application(reader: Reader, readiness: Readiness) -> Application:
    """Return the log service's Tornado application."""
    return Application([(r"/logs", LogsHandler, {"reader": reader})], readiness)
