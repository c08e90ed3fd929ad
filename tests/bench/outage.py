"""outage: the registry is killed and stays away; look-ups go on, also through a sidecar that is started meanwhile; then it comes back.

Counted are look-ups that failed: 0 is expected. Fails when it is not.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from figures import OURS, Row, Scale
from machine import free_port
from programs import eventually, program
from sidecar_bench import Sidecar, app, states, words_for

AWAY_S = 120.0
PAUSE_S = 0.005
BACK_S = 20.0


class _Looking:
    """Look-ups through one sidecar, one after the other, until `stop`."""

    def __init__(self, sidecar: Sidecar, expected: str) -> None:
        self._url = urlsplit(sidecar.url)
        self._expected = expected
        self._done = threading.Event()
        self.asked = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        connection = HTTPConnection(self._url.hostname or "", self._url.port, timeout=5)
        while not self._done.is_set():
            connection.request("GET", "/providers/Api", headers={"Accept": "text/plain"})
            answer = connection.getresponse()
            body = answer.read().decode().strip()
            self.asked += 1
            if (answer.status, body) != (200, self._expected):
                self.failures.append(f"{answer.status} {body}")
            time.sleep(PAUSE_S)
        connection.close()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def _once(away_s: float) -> list[Row]:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        registry_words = ("registry", "--listen", f"127.0.0.1:{port}", "--store", f"sqlite:{folder / 'registry.db'}")
        registry = stack.enter_context(program(*registry_words))
        provider = stack.enter_context(app())
        stack.enter_context(program("sidecar", *words_for("Api", provider.port, registry.url, folder / "api", "--log-to", "")))
        client_words = words_for("Client", 1, registry.url, folder / "client", "--requires", "Api", "--check", "none", "--log-to", "")
        client = Sidecar(stack.enter_context(program("sidecar", *client_words)))
        eventually(lambda: client.found("Api") == [provider.url])
        second_words = words_for("Second", 2, registry.url, folder / "second", "--requires", "Api", "--check", "none", "--log-to", "")
        second = Sidecar(stack.enter_context(program("sidecar", *second_words)))
        eventually(lambda: second.found("Api") == [provider.url])
        looking = [_Looking(client, provider.url)]
        registry.kill()
        time.sleep(away_s / 2)
        assert second.program.stop() == 0
        again = Sidecar(stack.enter_context(program("sidecar", *second_words)))
        looking.append(_Looking(again, provider.url))
        time.sleep(away_s / 2)
        back_at = time.monotonic()
        back = stack.enter_context(program(*registry_words))
        eventually(lambda: [states(back.url).get(one) for one in ("Api", "Client", "Second")] == ["up"] * 3, BACK_S)
        back_s = time.monotonic() - back_at
        time.sleep(1)
        for one in looking:
            one.stop()
    failures = [failure for one in looking for failure in one.failures]
    if failures:
        raise RuntimeError(f"{len(failures)} look-ups failed, the first: {failures[0]}; expected 0")
    return [
        ("outage", "registry away", "s", away_s),
        ("outage", "look-ups", "in all", looking[0].asked),
        ("outage", "look-ups, restarted", "in all", looking[1].asked),
        ("outage", "failed", "in all", len(failures)),
        ("outage", "all up again", "s", back_s),
    ]


async def pillion(scale: Scale) -> list[Row]:
    return await asyncio.to_thread(_once, 6.0 if scale.quick else AWAY_S)


PEERS = {OURS: pillion}
