"""A classic registry: only POST and DELETE /services, patches and heartbeats, everything in memory, no token, no answer bodies.

It does what protocol.md section 1 says a classic peer does, faults included: it appends what it is sent, writes an empty list as null, and
forgets everything with its end. `StubRegistry().start()`; `.registrations`, `.refused` (method and path of what it does not know).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HEARTBEAT_S = 0.1
TIMEOUT_S = 2.0


class StubRegistry:
    """Runs until `stop`. `patches` are those that were answered 200, as (update URL, patch)."""

    def __init__(self, port: int = 0, heartbeats: bool = True) -> None:
        self.registrations: list[dict[str, Any]] = []
        self.patches: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[str] = []
        self.authorizations: list[str | None] = []
        self._heartbeats = heartbeats
        self._ending = threading.Event()
        self._lock = threading.Lock()
        handler = _handler(self)
        self._server = _Server(("127.0.0.1", port), handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)]
        if heartbeats:
            self._threads.append(threading.Thread(target=self._beat, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(5)

    def names(self) -> list[str]:
        return [one["ServiceName"] for one in self.registrations]

    def register(self, registration: dict[str, Any]) -> None:
        with self._lock:
            present = [one for one in self.registrations if one["ServiceName"] in (registration.get("RequiredServices") or ())]
            self.registrations.append(registration)
        self._patch(registration, {"Added": [_entry(one) for one in present] or None, "Removed": None})
        self._tell(registration, "Added")

    def remove(self, url: str) -> bool:
        with self._lock:
            found = next((one for one in self.registrations if one["ServiceURL"] == url), None)
            if found is not None:
                self.registrations.remove(found)
        if found is not None:
            self._tell(found, "Removed")
        return found is not None

    def _tell(self, changed: dict[str, Any], what: str) -> None:
        patch = {"Added": None, "Removed": None, what: [_entry(changed)]}
        for one in list(self.registrations):
            if changed["ServiceName"] in (one.get("RequiredServices") or ()):
                self._patch(one, patch)

    def _patch(self, dependent: dict[str, Any], patch: dict[str, Any]) -> None:
        if "ServiceUpdateURL" not in dependent:
            return
        if _call("POST", dependent["ServiceUpdateURL"], json.dumps(patch)) == 200:
            self.patches.append((dependent["ServiceUpdateURL"], patch))

    def _beat(self) -> None:
        while not self._ending.wait(HEARTBEAT_S):
            for one in list(self.registrations):
                if _call("GET", one["HeartbeatURL"]) != 200:
                    time.sleep(HEARTBEAT_S)
                    if _call("GET", one["HeartbeatURL"]) != 200:
                        self.remove(one["ServiceURL"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(stub: StubRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            registration = json.loads(self._body())
            if self._known():
                self._answer(200)
                stub.register(registration)

        def do_DELETE(self) -> None:
            url = self._body().decode()
            if self._known():
                self._answer(200 if stub.remove(url) else 500)

        def do_GET(self) -> None:
            self._body()
            stub.refused.append(f"{self.command} {self.path}")
            self._answer(405)

        do_PUT = do_PATCH = do_HEAD = do_GET

        def _known(self) -> bool:
            stub.authorizations.append(self.headers["Authorization"])
            if self.path != "/services":
                stub.refused.append(f"{self.command} {self.path}")
                self._answer(404)
            return self.path == "/services"

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"] or 0))

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *words: Any) -> None:
            pass

    return Handler


def _entry(registration: dict[str, Any]) -> dict[str, str]:
    return {"Name": registration["ServiceName"], "URL": registration["ServiceURL"]}


def _call(method: str, url: str, body: str | None = None) -> int:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request(method, parts.path, body, {"Content-Type": "application/json"} if body else {})
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def stub_registry(heartbeats: bool = True) -> Iterator[StubRegistry]:
    stub = StubRegistry(heartbeats=heartbeats)
    try:
        yield stub
    finally:
        stub.stop()
