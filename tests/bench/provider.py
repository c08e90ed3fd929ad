"""A provider that can be killed in parts: the real sidecar beside a real, tiny app of its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import free_port

START_S = 15.0
APP = """
import selectors, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            ready.register(listener.accept()[0], selectors.EVENT_READ)
        elif not key.fileobj.recv(4096):
            ready.unregister(key.fileobj)
            key.fileobj.close()
"""


class Provider:
    """Starts both. The sidecar's state is a fresh folder, its ports are free ones.

    Args:
        name, registry: what the sidecar is told.
        folder: where its state may be.
        words: what the command lines begin with, e.g. to run in another network namespace.
        host: its address there.
    """

    def __init__(self, name: str, registry: str, folder: Path, words: tuple[str, ...] = (), host: str = "127.0.0.1") -> None:
        port = free_port()
        self.url = f"http://{host}:{port}"
        self._app = subprocess.Popen([*words, sys.executable, "-I", "-S", "-c", APP, host, str(port)], stdin=subprocess.DEVNULL)
        state = tempfile.mkdtemp(dir=folder, prefix="sidecar-")
        said = ("--name", name, "--port", str(port), "--host", host, "--advertise", host, "--registry", registry, "--log-to", "")
        where = ("--listen", f"{host}:0", "--local", "127.0.0.1:0", "--state-dir", state)
        self._output = Path(state, "output")
        with self._output.open("wb") as sink:
            command = [*words, sys.executable, "-m", "pillion_common", "sidecar", *said, *where]
            kept = {key: value for key, value in os.environ.items() if not key.startswith("PILLION_")}
            self._sidecar = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=kept)
        self._wait()

    @property
    def sidecar_pid(self) -> int:
        return self._sidecar.pid

    @property
    def app_pid(self) -> int:
        return self._app.pid

    def stop(self) -> None:
        """End what is left of both."""
        for process in (self._sidecar, self._app):
            if process.poll() is None:
                process.kill()
            process.wait()

    def _wait(self) -> None:
        """Wait until the sidecar listens."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._sidecar.poll() is None:
            lines = self._output.read_text(errors="replace").splitlines()
            if any(json.loads(line)["event"] == "listening" for line in lines if line.startswith("{") and line.endswith("}")):
                return
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"the sidecar did not start: {self._output.read_text(errors='replace')[-1000:]}")
