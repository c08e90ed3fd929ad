"""Answers writes straight from their bytes, beside Tornado: a log line costs a fraction of what a handler there would.

Owns who may write. The paths: `POST /log`, `POST /logs`, and `POST /v1/logs` for OpenTelemetry's exporters.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from functools import partial

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import Forbidden, MethodNotAllowed, StorageFull, Unavailable, WrongType
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.promise import Promise
from pillion_common.http.taker import Taker, Tell
from pillion_common.trust import Token, check_token
from pillion_log.intake import Exported, Intake, Taken
from pillion_log.unpacking import Unpack, unpacker

_STORED = Response()


class _BatchAnswer(Promise):
    __slots__ = ()

    def tell(self, outcome: Taken | Unavailable) -> None:
        self.settle(Response(body=models.encode(outcome)) if isinstance(outcome, Taken) else outcome)


class _RecordsAnswer(Promise):
    __slots__ = ()

    def tell(self, outcome: Exported | Unavailable) -> None:
        if isinstance(outcome, Exported):
            self.settle(Response(body=_export_answer(outcome)))
        elif isinstance(outcome, StorageFull):
            # OTLP's clients try again after a 503, and give up after a 507.
            self.settle(Unavailable(outcome.message, code=outcome.code, retry_after_s=outcome.retry_after_s or 1))
        else:
            self.settle(outcome)


class Gate:
    """Lets a write pass, or says why not."""

    def __init__(self, token: Token | None, exempt: tuple[Network, ...]) -> None:
        self._token = token
        self._exempt = exempt

    def guard(self, head: Request, verified: Handler, unverified: Handler) -> Handler:
        """Return a handler for writes with this head: without the token each is asked where it comes from.

        Args:
            verified: takes what came with the token, or all while none is set.
            unverified: takes what came without it from where that is allowed.

        Raises:
            Forbidden: it is sent by a foreign web page. WrongType: it is packed in a way that is not known here.
        """
        if head.header(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("a page of another site may not write to this log", code="cross_site")
        unpack = unpacker(head.header(b"content-encoding"))
        authorization = head.header(b"authorization")
        if self._token is None or self._token.fits(authorization):
            return _unpacking(unpack, verified)
        admitted = _unpacking(unpack, unverified)

        def checked(request: Request) -> Response | Promise | Awaitable[Response]:
            check_token(self._token, authorization, request.peer, self._exempt)
            return admitted(request)

        return checked


def hot_routes(intake: Intake, gate: Gate) -> dict[bytes, Route]:
    """Return the writes as hot routes of the core's Server.

    Args:
        intake: takes what is written.
        gate: says who may write.
    """
    foreign = intake.unverified()
    texts, foreign_texts = Taker(partial(_take_text, intake), _STORED), Taker(partial(_take_text, foreign), _STORED)

    def log(head: Request) -> Handler:
        _only_post(head)
        return gate.guard(head, texts, foreign_texts)

    def logs(head: Request) -> Handler | None:
        if head.method in ("GET", "HEAD"):
            return None
        if head.method != "POST":
            raise MethodNotAllowed(head.method, ("GET", "HEAD", "POST"))
        return gate.guard(head, partial(_take_batch, intake), partial(_take_batch, foreign))

    def records(head: Request) -> Handler:
        _only_post(head)
        kind = head.header(b"content-type").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise WrongType(
                "log records are taken as JSON here; set the exporter to http/json (OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/json), "
                "which sends Content-Type: application/json"
            )
        return gate.guard(head, partial(_take_records, intake), partial(_take_records, foreign))

    return {b"/log": log, b"/logs": logs, b"/v1/logs": records}


def _only_post(head: Request) -> None:
    if head.method != "POST":
        raise MethodNotAllowed(head.method, ("POST",))


def _unpacking(unpack: Unpack | None, handler: Handler) -> Handler:
    if unpack is None:
        return handler

    def unpacked(request: Request) -> Response | Promise | Awaitable[Response]:
        request.body = unpack(request.body)
        return handler(request)

    return unpacked


def _take_text(intake: Intake, body: bytes, peer: str, tell: Tell) -> None:
    intake.take_text(body, tell)


def _take_batch(intake: Intake, request: Request) -> Promise:
    answer = _BatchAnswer()
    intake.take_batch(request.body, answer.tell)
    return answer


def _take_records(intake: Intake, request: Request) -> Promise:
    answer = _RecordsAnswer()
    intake.take_records(request.body, answer.tell)
    return answer


def _export_answer(exported: Exported) -> bytes:
    """Return an ExportLogsServiceResponse."""
    if not exported.rejected:
        return b'{"partialSuccess":{}}'
    why = exported.rejected[0] + (f"; and {len(exported.rejected) - 1} more" if len(exported.rejected) > 1 else "")
    # A 64 bit number is a text in this JSON.
    return json.dumps({"partialSuccess": {"rejectedLogRecords": str(len(exported.rejected)), "errorMessage": why}}).encode()
