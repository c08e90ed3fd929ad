"""Tells the API server, as Events, why pods got no sidecar: best effort, few at a time, and never in the way of an answer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from pillion_common.clock import rfc3339
from pillion_common.errors import ConfigError
from pillion_common.logs import EventLog

_log = EventLog("events")

MAX_WAITING = 100
MAX_KEPT = 500
KEEP_S = 300.0  # the same is not told again for so long: a ReplicaSet makes its pods one by one
PAUSE_S = 0.2  # between two, so that a storm stays small
TIMEOUT_S = 3.0
MAX_MESSAGE_CHARS = 1000  # the API server takes 1,024 bytes in events.k8s.io


class Api(NamedTuple):
    """Where the API server is, and the files that say who we are; the token is read each time, for it is replaced every hour."""

    url: str
    token_file: str
    ca_file: str


def find_api(url: str, account_dir: str, environ: Mapping[str, str]) -> Api:
    """Return where the API server is.

    Raises:
        ConfigError: this is no pod, or it has no service account.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not url and not host:
        raise ConfigError(["PILLION_API is needed where KUBERNETES_SERVICE_HOST is not set; or set PILLION_EVENTS=no"])
    token = os.path.join(account_dir, "token")
    if not os.path.isfile(token):
        raise ConfigError([f"PILLION_ACCOUNT_DIR {account_dir} has no file `token`, so no Event can be made; or set PILLION_EVENTS=no"])
    return Api((url or f"https://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/"), token, os.path.join(account_dir, "ca.crt"))


class Events:
    """A short queue of Events and the one task that posts them."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[Mapping[str, str], str]] = asyncio.Queue(MAX_WAITING)
        self._told: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._client = AsyncHTTPClient(force_instance=True)
        self.posted = self.failed = self.dropped = 0

    def tell(self, about: Mapping[str, str], message: str) -> None:
        """Have an Event made, unless the same was told a short time ago or too many wait.

        Args:
            about: kind, apiVersion, namespace, name and uid of the object it is about.
        """
        key = (about["kind"], about["namespace"], about["name"], message)
        now = self._clock()
        if now - self._told.get(key, -KEEP_S) < KEEP_S:
            return
        try:
            self._waiting.put_nowait((about, message))
        except asyncio.QueueFull:
            self.dropped += 1
            return
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > MAX_KEPT:
            self._told.popitem(last=False)

    async def work(self) -> None:
        """Post what waits; ends only when it is cancelled."""
        while True:
            about, message = await self._waiting.get()
            try:
                await self._post(about, message)
                self.posted += 1
            except (OSError, HTTPClientError) as exc:
                self.failed += 1
                _log.warn_seldom("event_failed", f"the API server has not taken an Event: {exc}")
            await asyncio.sleep(PAUSE_S)

    def close(self) -> None:
        """Give up what waits."""
        self._client.close()

    async def _post(self, about: Mapping[str, str], message: str) -> None:
        token = _read(self._api.token_file)
        body = json.dumps(document(about, message, time.time()))
        request = HTTPRequest(
            f"{self._api.url}/api/v1/namespaces/{about['namespace']}/events",
            method="POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            body=body,
            ca_certs=self._api.ca_file if self._api.url.startswith("https://") else None,
            connect_timeout=TIMEOUT_S,
            request_timeout=TIMEOUT_S,
            follow_redirects=False,
        )
        await self._client.fetch(request)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def document(about: Mapping[str, str], message: str, now: float) -> dict[str, object]:
    """Return an Event of core/v1."""
    at = rfc3339(now).partition(".")[0].removesuffix("Z") + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "pillion-", "namespace": about["namespace"]},
        "involvedObject": {key: text for key, text in about.items() if text},
        "reason": "SidecarNotInjected",
        "message": message[:MAX_MESSAGE_CHARS],
        "type": "Warning",
        "source": {"component": "pillion-injector"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
