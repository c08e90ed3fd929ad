"""A classic peer for tests: answers heartbeats, takes patches as the old Go client does, and misbehaves when told to.

`with Classic() as peer: peer.register(registry.url, "GradingService", ["LogService"]); peer.patch_status = 500`
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

WAIT_S = 5.0


class Classic:
    """One service and dependent. All behaviours may be switched while it runs.

    Attributes:
        heartbeat, patch: what the two endpoints do: "ok", "hang", "reset", or a status code.
        delay_s: time before each patch is answered.
        heartbeat_delay_s: time before each heartbeat is answered.
        body: the heartbeat's body.
        http_1_1: False answers as an HTTP/1.0 server, which closes after each answer.
        table: (name, URL) pairs as a classic client keeps them: Added appended, Removed taken out.
        faults: what a classic client should never be told.
    """

    def __init__(self) -> None:
        self.heartbeat: str | int = "ok"
        self.patch: str | int = "ok"
        self.delay_s = 0.0
        self.heartbeat_delay_s = 0.0
        self.body = b""
        self.http_1_1 = True
        self.heartbeats: list[float] = []
        self.patches: list[dict[str, Any]] = []
        self.patch_headers: list[dict[str, str]] = []
        self.table: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.connections = 0
        self.open_connections = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = self._start(0)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Classic:
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self.die()

    def die(self) -> None:
        """Stop listening: from now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.live):  # type: ignore[attr-defined]
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already

    def come_back(self) -> None:
        """Listen again on the same port."""
        self._server = self._start(self.port)

    def registration(self, name: str, requires: list[str] | None = None, **more: Any) -> dict[str, Any]:
        """Return what a classic client would POST."""
        classic = {
            "ServiceName": name,
            "ServiceURL": self.url,
            "RequiredServices": requires,
            "ServiceUpdateURL": self.url + "/services",
            "HeartbeatURL": self.url + "/heartbeat",
        }
        return classic | more

    def register(self, registry: str, name: str, requires: list[str] | None = None, **more: Any) -> requests.Response:
        """POST the registration."""
        return requests.post(registry + "/services", json=self.registration(name, requires, **more), timeout=WAIT_S)

    def deregister(self, registry: str) -> requests.Response:
        """DELETE by the ServiceURL."""
        return requests.delete(registry + "/services", data=self.url, timeout=WAIT_S)

    def take(self, patch: dict[str, Any]) -> None:
        """Do with a patch as a classic client does, and note what should not have been sent."""
        with self._lock:
            self.patches.append(patch)
            for entry in patch.get("Added") or []:
                pair = entry["Name"], entry["URL"]
                if pair in self.table:
                    self.faults.append(f"added twice: {pair}")
                self.table.append(pair)
            for entry in patch.get("Removed") or []:
                pair = entry["Name"], entry["URL"]
                if pair not in self.table:
                    self.faults.append(f"removed but never told: {pair}")
                else:
                    self.table.remove(pair)

    def removed(self) -> list[str]:
        """Return every URL this dependent was ever told to remove."""
        return [entry["URL"] for patch in self.patches for entry in patch.get("Removed") or []]

    def _start(self, port: int) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", port), _handler(self))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    def _misbehave(self, how: str | int, connection: socket.socket) -> int | None:
        """Return the status to answer; None when there is to be no answer."""
        if how == "hang":
            self._released.wait(60)
            return None
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return None
        return 200 if how == "ok" else int(how)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, *words: Any) -> None:
        self.live: set[socket.socket] = set()
        super().__init__(*words)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a peer that was cut off in the middle is no news here


def _handler(peer: Classic) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def setup(self) -> None:
            super().setup()
            self.server.live.add(self.connection)  # type: ignore[attr-defined]
            with peer._lock:
                peer.connections += 1
                peer.open_connections += 1

        def finish(self) -> None:
            self.server.live.discard(self.connection)  # type: ignore[attr-defined]
            with peer._lock:
                peer.open_connections -= 1
            super().finish()

        def do_GET(self) -> None:
            self.protocol_version = "HTTP/1.1" if peer.http_1_1 else "HTTP/1.0"
            peer.heartbeats.append(time.monotonic())
            time.sleep(peer.heartbeat_delay_s)
            self._answer(peer.heartbeat, peer.body)

        def do_POST(self) -> None:
            self.protocol_version = "HTTP/1.1" if peer.http_1_1 else "HTTP/1.0"
            patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            peer.patch_headers.append(dict(self.headers.items()))
            time.sleep(peer.delay_s)
            if peer.patch == "ok":
                peer.take(patch)
            self._answer(peer.patch, b"")

        def _answer(self, how: str | int, body: bytes) -> None:
            status = peer._misbehave(how, self.connection)
            self.close_connection = status is None or not peer.http_1_1
            if status is not None:
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", peer.url + "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
