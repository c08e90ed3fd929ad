"""What every Tornado application of Pillion's shares: JSON errors, probes, version, and the request log."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from tornado import web
from tornado.iostream import StreamClosedError

from pillion_common import __version__
from pillion_common.errors import InvalidInput, MethodNotAllowed, NotFound, PillionError
from pillion_common.http.message import error_response
from pillion_common.lifecycle import Readiness
from pillion_common.logs import EventLog

_log = EventLog("http")


class BaseHandler(web.RequestHandler):
    """A handler that answers every error as protocol.md has it, and HEAD wherever it answers GET."""

    @property
    def peer(self) -> str:
        """Return the client's IP address."""
        return self.request.remote_ip or ""

    def set_default_headers(self) -> None:
        """Say nothing of the server's make."""
        self.clear_header("Server")

    def prepare(self) -> None:
        """Answer HEAD as GET; the core leaves the body out."""
        if self.request.method == "HEAD":
            self.head = self.get

    def write_json(self, body: bytes) -> None:
        """Write an encoded JSON answer."""
        self.set_header("Content-Type", "application/json")
        self.write(body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error; the status comes from the error itself."""
        error = _translate(kwargs.get("exc_info", (None, None, None))[1], self)
        response = error_response(error)
        self.set_status(response.status)
        for name, value in (response.headers or {}).items():
            self.set_header(name.decode(), value)
        self.write_json(response.body)
        self.finish()

    def log_exception(self, kind: Any, value: BaseException | None, trace: Any) -> None:
        """Log only what nobody expected."""
        if value is not None and not isinstance(value, PillionError | web.HTTPError | StreamClosedError):
            _log.fault("request_failed", f"{self.request.method} {self.request.path} failed: {kind.__name__}: {value}", value)


class _Nothing(BaseHandler):
    def prepare(self) -> None:
        raise NotFound(f"there is nothing at {self.request.path}", code="no_such_path")


class _Live(BaseHandler):
    def get(self) -> None:
        """Answer as long as the loop turns; depends on nothing."""
        self.write_json(b'{"Status":"ok"}\n')


class _Ready(BaseHandler):
    def initialize(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def get(self) -> None:
        """Name each check."""
        ready, checks = self._readiness.report()
        self.set_status(200 if ready else 503)
        self.write_json(json.dumps({"Status": "ok" if ready else "not ready", "Checks": checks}).encode() + b"\n")


class _Version(BaseHandler):
    def get(self) -> None:
        """Say which Pillion this is."""
        self.write_json(json.dumps({"Version": __version__}).encode() + b"\n")


class Application(web.Application):
    """A Tornado application with the probes built in."""

    def __init__(self, routes: list[Any], readiness: Readiness) -> None:
        common: list[Any] = [
            (r"/livez", _Live),
            (r"/readyz", _Ready, {"readiness": readiness}),
            (r"/healthz", _Ready, {"readiness": readiness}),
            (r"/version", _Version),
        ]
        super().__init__([*routes, *common], default_handler_class=_Nothing, log_function=_log_request)


def _translate(exc: BaseException | None, handler: web.RequestHandler) -> PillionError:
    match exc:
        case PillionError():
            return exc
        case web.HTTPError(status_code=405):
            methods = ("GET", "HEAD", "POST", "PUT", "DELETE")
            possible = [m for m in methods if getattr(type(handler), m.lower()) is not getattr(web.RequestHandler, m.lower())]
            return MethodNotAllowed(handler.request.method or "", tuple(possible))
        case web.HTTPError(status_code=status) if status < 500:
            return InvalidInput(exc.log_message or HTTPStatus(status).phrase, code="bad_request")
        case _:
            return PillionError("a fault of this program; its log has the details")


def _log_request(handler: web.RequestHandler) -> None:
    request = handler.request
    _log.debug(
        "request",
        f"{request.method} {request.uri} {handler.get_status()}",
        peer=request.remote_ip,
        ms=round(1000 * request.request_time(), 1),
    )
