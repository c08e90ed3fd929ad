"""Asks one of several replicas, and the next one where one does not answer or cannot: as a sidecar does."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from load import Caller
from processes import Died

TIMEOUT_S = 3.0  # of a sidecar's request
ROTATE_S = 0.1
BACKOFF_S, BACKOFF_MOST_S = 0.2, 3.0
UNTIL_S = 60.0
NOT_NOW = (503, 507)


class Outcome(NamedTuple):
    """An answer, which replica gave it, and whether an earlier try had none, so that it may have been carried out already."""

    status: int
    body: bytes
    replica: int
    doubtful: bool


async def ask(url: str, method: str, path: str, body: bytes = b"", timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """Ask once, on a connection of its own.

    Raises:
        OSError: there was no answer; TimeoutError is one.
    """
    async with asyncio.timeout(timeout_s):
        caller = await Caller.connect(url)
        try:
            return await caller.call(method, url + path, body)
        finally:
            caller.close()


class FailOver:
    """Replicas to ask.

    Args:
        urls: of them.
        on_answered: called with when a request began that was answered 200, in seconds of the monotonic clock.
    """

    def __init__(self, urls: Sequence[str], on_answered: Callable[[float], None] = lambda began: None) -> None:
        self._urls = urls
        self._on_answered = on_answered
        self.refused = self.unanswered = 0

    async def write(self, turn: int, method: str, path: str, body: bytes = b"") -> Outcome:
        """Ask until somebody answers.

        Args:
            turn: the replica that is asked first.

        Raises:
            Died: nobody did for a long time.
        """
        ends, doubtful, failed = time.monotonic() + UNTIL_S, False, 0
        while True:
            began, replica = time.monotonic(), turn % len(self._urls)
            try:
                status, answer = await ask(self._urls[replica], method, path, body)
            except ConnectionRefusedError:
                self.unanswered += 1
            except OSError:
                self.unanswered += 1
                doubtful = True
            else:
                if status not in NOT_NOW:
                    if status == 200:
                        self._on_answered(began)
                    return Outcome(status, answer, replica, doubtful)
                self.refused += 1
                doubtful = True  # NATS may have kept what the replica could not see in time
            if time.monotonic() > ends:
                raise Died(f"no replica has taken {method} {path} for {UNTIL_S:g} s")
            turn, failed = turn + 1, failed + 1
            backoff_s = min(BACKOFF_MOST_S, BACKOFF_S * 2 ** (failed // len(self._urls))) * random.random()
            await asyncio.sleep(ROTATE_S if failed % len(self._urls) else backoff_s)
