"""A container engine's API, as far as the agent uses it, on a unix socket: the containers and the events are the test's."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

STARTED = "2026-01-31T12:00:00.5Z"
JOIN_S = 5.0

Answer = tuple[int, bytes]


def inspected(container_id: str, name: str, **more: Any) -> dict[str, Any]:
    """Return what the engine shows of a running container.

    Args:
        more: labels, environ, ports (e.g. "80/tcp"), networks (name -> address), mode, health, streak, paused, started, published,
            stop_signal, stop_timeout, command.
    """
    state: dict[str, Any] = {"Running": True, "Paused": more.get("paused", False), "StartedAt": more.get("started", STARTED)}
    if "health" in more:
        log = [{"ExitCode": 1, "Output": "curl: (7)\n refused"}]
        state["Health"] = {"Status": more["health"], "FailingStreak": more.get("streak", 3), "Log": log}
    command = more.get("command", "/app").split()
    return {
        "Id": container_id,
        "Name": f"/{name}",
        "State": state,
        "Path": command[0],
        "Args": command[1:],
        "Config": {
            "Labels": more.get("labels", {}),
            "Env": [f"{key}={text}" for key, text in more.get("environ", {}).items()],
            "ExposedPorts": {port: {} for port in more.get("ports", ())} or None,
            "StopSignal": more.get("stop_signal"),
            "StopTimeout": more.get("stop_timeout"),
        },
        "HostConfig": {"NetworkMode": more.get("mode", "shop_default")},
        "NetworkSettings": {
            "Networks": {network: {"IPAddress": address} for network, address in more.get("networks", {}).items()},
            "Ports": more.get("published", {}),
        },
    }


def listed(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the same container as it stands in the engine's list."""
    return {
        "Id": shown["Id"],
        "Names": [shown["Name"]],
        "Labels": shown["Config"]["Labels"],
        "Command": " ".join([shown["Path"], *shown["Args"]]),
        "State": "running",
        "HostConfig": {"NetworkMode": shown["HostConfig"]["NetworkMode"]},
        "NetworkSettings": {"Networks": shown["NetworkSettings"]["Networks"]},
    }


def container_id(number: int) -> str:
    return f"{number:012x}" + "f" * 52


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class FakeEngine:
    """The engine. `forced` holds answers (status, body) by path, for faults; `asked` what was asked, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = f"unix://{path}"
        self.containers: dict[str, dict[str, Any]] = {}
        self.forced: dict[str, Answer] = {}
        self.delays_s: dict[str, float] = {}
        self.asked: list[str] = []
        self.logs: dict[str, list[tuple[int, str, bytes]]] = {}  # by id: stream, time, text
        self.logs_since: list[str] = []
        self._log_cuts = 0
        self._streams: list[queue.Queue[bytes | None]] = []
        self._server: _Server | None = None

    # Its life.

    def up(self) -> None:
        engine = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                engine._serve(self)

        self._server = _Server(str(self.path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Go away as an engine that is stopped: nobody listens, and the streams end."""
        self.cut()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.path.unlink(missing_ok=True)

    def cut(self) -> None:
        """End all streams of events."""
        for stream in self._streams:
            stream.put(None)

    @property
    def streams(self) -> int:
        return len(self._streams)

    # Its containers.

    def run(self, number: int, name: str, *, event: bool = True, **more: Any) -> str:
        """Start a container; returns its id."""
        one = container_id(number)
        self.containers[one] = inspected(one, name, **more)
        if event:
            self.tell(one, "start")
        return one

    def change(self, one: str, action: str, **state: Any) -> None:
        """Change a container's state, and tell."""
        self.containers[one]["State"].update(state)
        self.tell(one, action)

    def end(self, one: str, *, event: bool = True) -> None:
        """Let a container end."""
        self.containers.pop(one, None)
        if event:
            self.tell(one, "die")

    def tell(self, one: str, action: str, **attributes: str) -> None:
        """Send an event."""
        self.send(json.dumps({"Type": "container", "Action": action, "Actor": {"ID": one, "Attributes": attributes}}).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """Send bytes on all streams of events."""
        for stream in self._streams:
            stream.put(data)

    # What it answers.

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        request = handler.rfile.readline().decode()
        while handler.rfile.readline() not in (b"\r\n", b""):
            pass
        method, target, _ = request.split()
        assert method == "GET", "a read-only proxy would refuse this"
        path = unquote(target.partition("?")[0])
        self.asked.append(path)
        try:
            if path == "/events" and path not in self.forced:
                self._stream(handler)
            elif path.endswith("/logs") and path not in self.forced:
                self._follow_log(handler, path.split("/")[2], unquote(target))
            else:
                status, body = self.forced.get(path) or self._answer(path)
                time.sleep(self.delays_s.get(path, 0.0))
                handler.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        except OSError:
            pass  # who asked has gone

    def _answer(self, path: str) -> Answer:
        if path == "/containers/json":
            return 200, json.dumps([listed(shown) for shown in list(self.containers.values())]).encode()
        shown = self.containers.get(path.split("/")[2])
        return (404, b'{"message":"No such container"}') if shown is None else (200, json.dumps(shown).encode())

    def say(self, one: str, text: str, time: str, stream: int = 1) -> None:
        """Let a container write a line, or (without a line end) a piece of one."""
        self.logs.setdefault(one, []).append((stream, time, text.encode()))

    def cut_logs(self) -> None:
        """End all streams of logs."""
        self._log_cuts += 1

    def _follow_log(self, handler: socketserver.StreamRequestHandler, one: str, target: str) -> None:
        since = target.partition("since=")[2]
        self.logs_since.append(since)
        seconds, _, nanos = since.partition(".")
        least = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds))) + f".{nanos or '0':0<9}Z"
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        told, cuts = 0, self._log_cuts
        while True:
            for stream, at, text in self.logs.get(one, [])[told:]:
                told += 1
                if at >= least:
                    data = f"{at} ".encode() + text
                    frame = bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data
                    handler.wfile.write(b"%x\r\n%b\r\n" % (len(frame), frame))
            if cuts != self._log_cuts or (one not in self.containers and told == len(self.logs.get(one, []))):
                handler.wfile.write(b"0\r\n\r\n")
                return
            time.sleep(0.02)

    def _stream(self, handler: socketserver.StreamRequestHandler) -> None:
        stream: queue.Queue[bytes | None] = queue.Queue()
        self._streams.append(stream)
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while (data := stream.get()) is not None:
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                handler.wfile.flush()
        finally:
            self._streams.remove(stream)


@contextmanager
def fake_engine(folder: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(folder / "engine.sock")
    engine.up()
    try:
        yield engine
    finally:
        engine.down()
