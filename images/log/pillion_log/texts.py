"""Gathers the classic messages of a moment, so that each costs little: entries are made of all at once, one group goes to the store.

Whoever sent one is told when its group is durable. Between taking and handing over lies one turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from pillion_common.errors import InvalidInput, TooLarge, Unavailable
from pillion_common.logs import EventLog
from pillion_log.entries import from_texts, stamp
from pillion_log.store.base import Appended, Done, Store

MAX_TEXT_BYTES = 64 * 1024
MAX_GATHERED_BYTES = 1024 * 1024

_STORED = Appended(1, 0)

_log = EventLog("intake")


class Texts:
    """What was taken in this turn of the loop.

    Args:
        store: where it goes.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
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
            InvalidInput: it is empty. TooLarge: over 64 KB.
        """
        if len(body) > MAX_TEXT_BYTES:
            raise TooLarge(f"the message is over {MAX_TEXT_BYTES} bytes; send less at a time")
        text = body.strip(b"\r\n")
        if not text:
            raise InvalidInput("the body is empty; send one message as text/plain", code="empty")
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
