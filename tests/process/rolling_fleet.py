"""A rolling restart under load: providers with sidecars (`pillion run`), one client sidecar, and requests that look up and then call.

`with Fleet(folder, 5) as fleet: outcome = fleet.under_load(200, fleet.restart_all)`; each request is one look-up and one call, without a
second try.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

from programs import START_S, STOP_S, Program, eventually, program
from sidecar_bench import Sidecar, free_port, words_for

CALL_S = 5.0
WORKERS = 8

# Serves until SIGTERM, then ends what is under way; takes 20 ms for each request.
APP = """
import http.server, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.02)
        body = b"hello\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.02)
server.server_close()
"""


class Outcome(NamedTuple):
    """What the requests came to: how many there were, and what went wrong with those that failed."""

    requests: int
    failures: list[str]


class Instance:
    """One provider: a command with its sidecar, in a process group of its own."""

    def __init__(self, registry: str, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._port = free_port()
        self.start()

    def start(self) -> None:
        words = words_for("Api", self._port, self._registry, self._folder, "--listen", "127.0.0.1:0", "--log-to", "")
        self.program = Program(("run", *words, "--", sys.executable, "-I", "-S", "-c", APP, str(self._port)), {})

    def restart(self) -> None:
        assert self.program.stop() == 0
        self.start()

    def kill(self) -> None:
        """kill -9 of the app and its sidecar at once."""
        children = Path(f"/proc/{self.program.process.pid}/task/{self.program.process.pid}/children").read_text().split()
        for pid in (self.program.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.program.process.wait(STOP_S)
        self.start()


class Fleet:
    """A registry, `count` providers and a client's sidecar."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._stack = ExitStack()

    def __enter__(self) -> Fleet:
        self.registry = self._stack.enter_context(program("registry", "--store", "memory:"))
        words = words_for("Client", 1, self.registry.url, self._folder / "client", "--requires", "Api", "--check", "none", "--log-to", "")
        self.client = Sidecar(self._stack.enter_context(program("sidecar", *words)))
        self.instances = []
        for number in range(self._count):
            instance = Instance(self.registry.url, self._folder / f"api{number}")
            self.instances.append(instance)
            self._stack.callback(lambda one=instance: one.program.stop())
        self.until_whole()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def until_whole(self) -> None:
        """Wait until the client knows all."""
        eventually(lambda: len(self.client.found("Api")) == self._count, START_S)

    def restart_all(self) -> None:
        """Restart one after the other by SIGTERM."""
        for instance in self.instances:
            instance.restart()
            self.until_whole()

    def kill_all(self) -> None:
        """Kill one after the other with kill -9, and start it again."""
        for instance in self.instances:
            before = instance.program
            instance.kill()
            assert before.process.returncode == -signal.SIGKILL
            eventually(lambda one=instance: one.program.events("registered"), START_S)
            self.until_whole()

    def under_load(self, per_second: float, what: Callable[[], None]) -> Outcome:
        """Do something while requests come in at a steady rate, whatever becomes of the earlier ones."""
        load = _Load(self.client.url, per_second)
        load.start()
        try:
            what()
            time.sleep(0.5)
        finally:
            outcome = load.stop()
        return outcome


class _Load:
    def __init__(self, local: str, per_second: float) -> None:
        self._local = urlsplit(local)
        self._pause_s = 1 / per_second
        self._next_at = time.monotonic()
        self._turn = threading.Lock()
        self._done = threading.Event()
        self._asked = 0
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(WORKERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Outcome:
        self._done.set()
        for thread in self._threads:
            thread.join()
        return Outcome(self._asked, self._failures)

    def _work(self) -> None:
        looking = HTTPConnection(self._local.hostname or "", self._local.port, timeout=CALL_S)
        while not self._done.is_set():
            with self._turn:
                due_at = self._next_at
                self._next_at += self._pause_s
                self._asked += 1
            time.sleep(max(0.0, due_at - time.monotonic()))
            try:
                self._ask(looking)
            except (OSError, HTTPException, AssertionError) as exc:
                self._failures.append(f"{type(exc).__name__}: {exc}")
                looking.close()
        looking.close()

    def _ask(self, looking: HTTPConnection) -> None:
        looking.request("GET", "/providers/Api", headers={"Accept": "text/plain"})
        found = looking.getresponse()
        url = found.read().decode().strip()
        assert found.status == 200, f"look-up: {found.status} {url}"
        calling = HTTPConnection(urlsplit(url).hostname or "", urlsplit(url).port, timeout=CALL_S)
        try:
            calling.request("GET", "/")
            answer = calling.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello\n")
        finally:
            calling.close()
