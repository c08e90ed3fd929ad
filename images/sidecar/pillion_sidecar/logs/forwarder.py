"""Carries log lines from the spool to a LogService provider, in batches, until each is acknowledged.

A classic log service, which has only POST /log, gets the lines one by one.
"""

from __future__ import annotations

import asyncio
import json

from pillion_common.backoff import Backoff
from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_common.http.client import Channel
from pillion_common.logs import EventLog
from pillion_common.names import parse_url
from pillion_common.trust import Token
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.table.providers import ProviderTable

_log = EventLog("forwarder")

BATCH_LINES = 500
BATCH_BYTES = 512 * 1024
TIMEOUT_S = 10.0
BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 5.0
LINGER_S = 0.02  # lets lines of one burst go together


class Forwarder:
    """Empties the spool for ever.

    Args:
        service: the name whose providers take log lines; empty forwards nothing.
    """

    def __init__(self, spool: Spool, table: ProviderTable, service: str, token: Token | None) -> None:
        self._spool = spool
        self._table = table
        self._service = service
        self._headers = (token.header,) if token else ()
        self._something = asyncio.Event()
        self._somebody = asyncio.Event()
        self._channel: tuple[str, Channel] | None = None
        self._classic: set[str] = set()
        self._failing = False

    def nudge(self) -> None:
        """Say that there is something to send."""
        self._something.set()

    def try_now(self) -> None:
        """Say that somebody else may be there to send to: a pause after a failure ends, and what was found of the earlier ones is void."""
        self._classic.clear()
        self._somebody.set()

    async def run(self) -> None:
        """Forward what comes."""
        if not self._service:
            await asyncio.Event().wait()
        backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S)
        while True:
            self._something.clear()
            self._somebody.clear()
            fault = await self._forward() if self._spool.waiting else ""
            self._tell_turn(fault)
            if fault:
                await self._pause(backoff.next_delay())
                continue
            backoff.reset()
            if not self._spool.waiting:
                await self._something.wait()
                await asyncio.sleep(LINGER_S)

    async def flush(self, timeout_s: float) -> None:
        """Send what is left, for at most timeout_s; the rest stays on disk for the next start."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._service and self._spool.waiting and not await self._forward():
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
        """Send one batch; return what went wrong, or nothing."""
        provider = self._table.choose(self._service)
        if provider is None:
            return f"no provider of {self._service} is up now"
        url = provider.url
        channel = self._channel_to(url)
        batch = self._spool.peek(BATCH_LINES, BATCH_BYTES)
        if not batch:
            return "the spool's lines cannot be read" if self._spool.waiting else ""
        try:
            if url not in self._classic:
                answer = await self._send(channel, url, "/logs", b"".join(line for _, line in batch), "application/x-ndjson")
                if answer.status == 200:
                    self._spool.ack(batch[-1][0])
                    self._tell_rejected(answer)
                    return ""
                if answer.status not in (404, 405):
                    return f"{url} answered {answer.status}: {answer.body.decode('utf-8', 'replace').strip()[:200]}"
                self._classic.add(url)
            return await self._send_classic(channel, url, batch)
        except PeerError as exc:
            return exc.message

    async def _send_classic(self, channel: Channel, url: str, batch: list[tuple[int, bytes]]) -> str:
        for seq, line in batch:
            entry = json.loads(line)
            message = " ".join(str(entry.get("Message", "")).splitlines())
            answer = await self._send(channel, url, "/log", f"[{entry.get('Service', 'unknown')}] - {message}".encode(), "text/plain")
            if answer.status != 200:
                return f"{url} answered {answer.status}"
            self._spool.ack(seq)
        return ""

    async def _send(self, channel: Channel, url: str, path: str, body: bytes, kind: str) -> Answer:
        target = parse_url(url, "URL").target.rstrip("/") + path
        return await channel.request("POST", target, body=body, headers=(f"Content-Type: {kind}", *self._headers), timeout_s=TIMEOUT_S)

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
