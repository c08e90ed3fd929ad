"""Takes the app's log lines into the spool: `POST /log` one as text, `POST /logs` many as NDJSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pillion_common.clock import parse_rfc3339, rfc3339
from pillion_common.errors import InvalidInput, TooLarge
from pillion_common.http.message import Request, Response
from pillion_common.http.router import Router
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.wire import to_json

MAX_MESSAGE_BYTES = 64 * 1024
MAX_LINES = 5000
MAX_REJECTED_SHOWN = 100
MAX_FIELDS = 64
MAX_DEPTH = 48
MAX_BRACKETS = 48  # fewer cannot be nested deeper
MAX_ID_CHARS = 256
YEAR_1_S, YEAR_10000_S = 62135596800, 253402300800  # from 1970, back and on: four digits of year


class Intake:
    """Log lines of one app.

    Args:
        service: the app's name.
        instance: its id at the registry.
        on_line: called after lines went into the spool.
        pod: the name of the pod that all this is in, told with each line; empty: none.
    """

    def __init__(self, spool: Spool, service: str, instance: Callable[[], str], on_line: Callable[[], None], pod: str = "") -> None:
        self._spool = spool
        self._service = service
        self._instance = instance
        self._on_line = on_line
        self._pod = {"Pod": pod} if pod else {}

    def add_to(self, router: Router) -> None:
        """Serve `/log` and `/logs`."""
        router.add("POST", "/log", self._text)
        router.add("POST", "/logs", self._ndjson)

    def _text(self, request: Request) -> Response:
        if len(request.body) > MAX_MESSAGE_BYTES:
            raise TooLarge(f"the message is over {MAX_MESSAGE_BYTES} bytes; send it in pieces")
        message = request.body.decode("utf-8", "replace").strip("\r\n")
        if not message:
            raise InvalidInput("the body is empty; send one message as text/plain", code="empty_body")
        self._keep({"Level": "info", "Message": message})
        self._on_line()
        return Response(200)

    def _ndjson(self, request: Request) -> Response:
        """Take what can be taken; a disk that takes no more ends it with an error that says how many lines are in."""
        lines = [(number, line) for number, line in enumerate(request.body.split(b"\n"), 1) if line.strip()]
        if not lines:
            raise InvalidInput("the body is empty; send one JSON object a line, each with a Message", code="empty_body")
        if len(lines) > MAX_LINES:
            raise TooLarge(f"{len(lines)} lines are over {MAX_LINES}; send them in pieces")
        accepted, rejected = 0, []
        try:
            for number, line in lines:
                try:
                    self._keep(_read_entry(line))
                except (InvalidInput, TooLarge) as exc:
                    rejected.append({"Line": number, "Error": exc.message})
                else:
                    accepted += 1
        finally:
            if accepted:
                self._on_line()
        answer = {"Accepted": accepted, "Rejected": rejected[:MAX_REJECTED_SHOWN], "RejectedLines": len(rejected)}
        return Response(200 if accepted else 400, to_json(answer))

    def _keep(self, entry: dict[str, Any]) -> None:
        own = {"Time": rfc3339(time.time()), "Service": self._service, "Instance": self._instance(), "Level": "info"}
        self._spool.append({**own, **entry, "Service": self._service, "Instance": own["Instance"], **self._pod})


def _read_entry(line: bytes) -> dict[str, Any]:
    """Read one line; what no log service would take is refused here, where the app still hears of it."""
    try:
        entry = json.loads(line.decode("utf-8", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"the line is not JSON: {exc}", code="invalid_json") from exc
    if not isinstance(entry, dict):
        raise InvalidInput("the line is not a JSON object", code="invalid_entry")
    message = entry.get("Message")
    if not isinstance(message, str) or not message:
        raise InvalidInput("Message must be a text that is not empty", code="invalid_entry", field="Message")
    if len(entry) > MAX_FIELDS:
        raise InvalidInput(f"the entry has {len(entry)} fields; {MAX_FIELDS} are possible", code="invalid_entry")
    if line.count(b"[") + line.count(b"{") > MAX_BRACKETS and _depth(entry) > MAX_DEPTH:
        raise InvalidInput(f"the line is nested deeper than {MAX_DEPTH} levels", code="invalid_entry")
    for key in ("Time", "Level"):
        if entry.get(key) is None:
            entry.pop(key, None)
        elif not isinstance(entry[key], str) or len(entry[key]) > MAX_ID_CHARS:
            raise InvalidInput(f"{key} must be a text of at most {MAX_ID_CHARS} characters", code="invalid_entry", field=key)
    if "Time" in entry:
        entry["Time"] = _read_time(entry["Time"])
    return entry


def _read_time(text: str) -> str:
    try:
        epoch_s = parse_rfc3339(text)
        if not -YEAR_1_S <= epoch_s < YEAR_10000_S:
            raise ValueError
        return rfc3339(epoch_s)
    except (ValueError, OverflowError) as exc:
        message = f"Time {text[:40]!r} is not an RFC 3339 time; write it like 2026-01-31T12:00:00.123Z"
        raise InvalidInput(message, code="invalid_entry", field="Time") from exc


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(item) for item in inner), default=0)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
