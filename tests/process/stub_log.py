"""A log service for the sidecar to forward to: POST /logs with repeats known by (Source, Seq), or (classic) POST /log alone.

What it stored is kept over `kill` and `start`, as a disk would; `kill` cuts every connection, as a dying process does.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubLog:
    """Runs from `start` to `kill`. `entries` of /logs without repeats, `lines` of /log, `repeats` how many entries came again."""

    def __init__(self, classic: bool = False) -> None:
        self.classic = classic
        self.entries: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.repeats = 0
        self.requests = 0
        self.authorizations: set[str | None] = set()
        self.encodings: set[str] = set()
        self.port = 0
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def messages(self) -> list[str]:
        return [entry["Message"] for entry in self.entries]

    def start(self) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                stub._connections.add(self.connection)

            def finish(self) -> None:
                stub._connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                self.send_response(200)  # a heartbeat
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                stub.encodings.add(self.headers["Content-Encoding"] or "identity")
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                status, answer = stub.take(self.path, body, self.headers["Authorization"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *words: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a connection that `kill` cut

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # has ended by itself

    def take(self, path: str, body: bytes, authorization: str | None) -> tuple[int, bytes]:
        with self._lock:
            self.requests += 1
            self.authorizations.add(authorization)
            if self._server is None:
                return 503, b""
            if path == "/services":
                return 200, b""
            if path == "/log":
                self.lines.append(body.decode())
                return 200, b""
            if path != "/logs" or self.classic:
                return 405 if self.classic else 404, b""
            before = len(self.entries)
            sent = [json.loads(line) for line in body.splitlines()]
            for entry in sent:
                key = entry["Source"], entry["Seq"]
                if key not in self._seen:
                    self._seen.add(key)
                    self.entries.append(entry)
            accepted = len(self.entries) - before
            self.repeats += len(sent) - accepted
            return 200, json.dumps({"Accepted": accepted, "Duplicates": len(sent) - accepted, "Rejected": []}).encode()


@contextmanager
def stub_log(classic: bool = False) -> Iterator[StubLog]:
    stub = StubLog(classic)
    stub.start()
    try:
        yield stub
    finally:
        stub.kill()
