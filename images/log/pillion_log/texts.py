"""Gathers the classic messages of a moment, so that each costs little: entries are made of all at once, one group goes to the store.

Whoever sent one is told when its group is durable. Between taking and handing over lies one turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.logs import EventLog
from pillion_log.cuts import MAX_ENTRY_BYTES
from pillion_log.entries import Run, from_long_text, from_texts, stamp
from pillion_log.store.base import Appended, Done

MAX_GATHERED_BYTES = 1024 * 1024

_STORED = Appended(1, 0)

_log = EventLog("intake")


class Sink(Protocol):
    """What of a store is needed to give it entries: see pillion_log.store.base.Store."""

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries in their order."""


class Texts:
    """What was taken in this turn of the loop.

    Args:
        store: where it goes.
        clock: seconds since 1970.
    """

    def __init__(self, store: Sink, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._texts: list[bytes] = []
        self._bytes = 0
        self._waiting: list[Done] = []

    def take(self, body: bytes, done: Done) -> None:
        """Take a message in.

        Args:
            done: called later, once, in the loop's thread, when it is durable, or with why it is not.

        Raises:
            InvalidInput: it is empty.
        """
        text = body.strip(b"\r\n")
        if not text:
            raise InvalidInput("the body is empty; send one message as text/plain", code="empty")
        if len(text) > MAX_ENTRY_BYTES:
            self._store.append([from_long_text(text, stamp(self._clock()))], done)
            return
        if not self._texts:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._texts.append(text)
        self._waiting.append(done)
        self._bytes += len(text)
        if self._bytes >= MAX_GATHERED_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        texts, self._texts = self._texts, []
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        if texts:
            self._store.append(from_texts(texts, stamp(self._clock())), partial(_tell, waiting))


def _tell(waiting: list[Done], outcome: Appended | Unavailable) -> None:
    told = outcome if isinstance(outcome, Unavailable) else _STORED
    for done in waiting:
        try:
            done(told)
        except Exception as exc:  # a fault of ours with one answer must not keep the others waiting
            _log.fault("answer_failed", f"an answer was not given: {type(exc).__name__}: {exc}", exc)
