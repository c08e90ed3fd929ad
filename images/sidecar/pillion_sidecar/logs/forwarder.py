"""Carries log lines from the spool to a LogService provider, in batches, until each is acknowledged.

One batch is under way at a time, so a log service gets a Source's entries in their order. What was not acknowledged is sent again, to the
same provider or to another one: with log services that do not share a store, a batch whose answer was lost may then be in both.
A classic log service, which has only POST /log, gets the lines one by one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_common.http.client import Channel
from pillion_common.logs import EventLog
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.logs.entry import time_of
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.logs.targets import Targets
from pillion_sidecar.table.providers import ProviderTable

_log = EventLog("forwarder")

BATCH_LINES = 500
BATCH_BYTES = 512 * 1024
TIMEOUT_S = 10.0
LINGER_S = 0.02  # lets lines of one burst go together
PACK_BYTES = 8 * 1024  # smaller bodies are not worth packing
PACK_LEVEL = 1

Pack = Callable[[bytes], bytes]


class Forwarder:
    """Empties the spool for ever.

    Args:
        service: the name whose providers take log lines; empty forwards nothing.
        pack: makes gzip of a body; None sends as it is.
        on_room: called after lines were acknowledged.
    """

    def __init__(
        self,
        spool: Spool,
        table: ProviderTable,
        service: str,
        token: Token | None,
        *,
        pack: Pack | None = None,
        on_room: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._table = table
        self._service = service
        self._headers = (token.header,) if token else ()
        self._pack = pack
        self._on_room = on_room
        self._targets = Targets(now)
        self._something = asyncio.Event()
        self._somebody = asyncio.Event()
        self._channel: tuple[str, Channel] | None = None
        self._classic: set[str] = set()
        self._unpacked: set[str] = set()  # those that take no gzip
        self._failing = False

    def nudge(self) -> None:
        """Say that there is something to send."""
        self._something.set()

    def try_now(self) -> None:
        """Say that somebody else may be there to send to: a pause after a failure ends, and what was found of the earlier ones is void."""
        self._classic.clear()
        self._unpacked.clear()
        self._targets.forgive()
        self._somebody.set()

    async def run(self) -> None:
        """Forward what comes."""
        if not self._service:
            await asyncio.Event().wait()
        while True:
            self._something.clear()
            self._somebody.clear()
            fault = await self._forward() if self._spool.unsent else ""
            self._tell_turn(fault)
            if fault:
                await self._pause(self._targets.pause_s())
            elif not self._spool.unsent:
                await self._something.wait()
                await asyncio.sleep(LINGER_S)

    async def flush(self, timeout_s: float) -> None:
        """Send what is left, for at most timeout_s; the rest stays on disk for the next start."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._service and self._spool.unsent and not await self._forward():
                    pass
        except TimeoutError:
            pass
        if self._spool.waiting:
            _log.warning("lines_left", f"{self._spool.waiting} log lines stay in the spool for the next start", lines=self._spool.waiting)

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel[1].close()

    def _tell_turn(self, fault: str) -> None:
        """Log when forwarding begins to fail, and when it goes on again."""
        if fault and not self._failing:
            _log.warning("forward_failed", f"log lines wait in the spool: {fault}")
        elif self._failing and not fault:
            _log.info("forward_resumed", f"log lines go to {self._service} again")
        self._failing = bool(fault)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._somebody.wait()
        except TimeoutError:
            pass

    async def _forward(self) -> str:
        """Send one batch, to another provider if one fails; return what went wrong where none took it, or nothing."""
        batch = self._spool.peek(BATCH_LINES, BATCH_BYTES)
        if not batch:
            return "the spool's lines cannot be read" if self._spool.waiting else ""
        fault = ""
        while url := self._targets.choose([provider.url for provider in self._table.all(self._service)]):
            if fault:
                _log.warn_seldom("forward_failover", f"{fault}; log lines go to {url}")
            try:
                fault, wish_s = await self._send_batch(url, batch)
            except PeerError as exc:
                fault, wish_s = exc.message, 0.0
            if not fault:
                self._targets.took(url)
                self._on_room()
                return ""
            self._targets.failed(url, wish_s)
            batch = [line for line in batch if line[0] > self._spool.acked]  # of a classic one, part of it may have been taken
        return fault or f"no provider of {self._service} is up now"

    async def _send_batch(self, url: str, batch: list[tuple[int, bytes]]) -> tuple[str, float]:
        """Return what went wrong, or nothing; and for how long the provider wants to be left alone."""
        if url not in self._classic:
            answer = await self._send_packed(url, b"".join(line for _, line in batch))
            if answer.status == 200:
                self._spool.ack(batch[-1][0], time_of(batch[-1][1]))
                self._tell_rejected(answer)
                return "", 0.0
            if answer.status not in (404, 405):
                said = answer.body.decode("utf-8", "replace").strip()[:200]
                return f"{url} answered {answer.status}: {said}", _retry_after_s(answer)
            self._classic.add(url)
        for seq, line in batch:
            entry = json.loads(line)
            message = " ".join(str(entry.get("Message", "")).splitlines())
            answer = await self._send(url, "/log", f"[{entry.get('Service', 'unknown')}] - {message}".encode(), "text/plain")
            if answer.status != 200:
                return f"{url} answered {answer.status}", _retry_after_s(answer)
            self._spool.ack(seq, str(entry.get("Time") or ""))
        return "", 0.0

    async def _send_packed(self, url: str, body: bytes) -> Answer:
        if self._pack is not None and len(body) >= PACK_BYTES and url not in self._unpacked:
            answer = await self._send(url, "/logs", self._pack(body), "application/x-ndjson", "Content-Encoding: gzip")
            if answer.status != 415:
                return answer
            self._unpacked.add(url)
        return await self._send(url, "/logs", body, "application/x-ndjson")

    async def _send(self, url: str, path: str, body: bytes, kind: str, *more: str) -> Answer:
        target = parse_url(url, "URL").target.rstrip("/") + path
        headers = (f"Content-Type: {kind}", *more, *self._headers)
        return await self._channel_to(url).request("POST", target, body=body, headers=headers, timeout_s=TIMEOUT_S)

    def _tell_rejected(self, answer: Answer) -> None:
        try:
            rejected = json.loads(answer.body).get("Rejected")
        except (ValueError, AttributeError):
            return
        if rejected:
            _log.warning("lines_rejected", f"the log service rejected {len(rejected)} lines, the first: {rejected[0]}")

    def _channel_to(self, url: str) -> Channel:
        if self._channel is None or self._channel[0] != url:
            self.close()
            self._channel = url, Channel(parse_url(url, "URL"))
        return self._channel[1]


def gzip(body: bytes) -> bytes:
    """Pack a body; zlib is loaded when the first one is."""
    import zlib

    packer = zlib.compressobj(PACK_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(body) + packer.flush()


def _retry_after_s(answer: Answer) -> float:
    wish = dict(answer.headers).get(b"retry-after", b"")
    return float(wish) if wish.isdigit() else 0.0
