"""Takes in what clients send: bounds, one verdict per line, and the store's word that all of it is durable. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.models import Model
from pillion_log.batches import Rejected, read_batch
from pillion_log.entries import stamp
from pillion_log.store.base import Appended, Done, Store
from pillion_log.texts import Texts


class Taken(Model, frozen=True, omit_defaults=False):
    """The answer to a batch: `{"Accepted":2,"Duplicates":0,"Rejected":[{"Line":3,"Error":"…"}]}`."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejected, ...]


class Intake:
    """Makes entries and stores them. What becomes of them is told later, once, in the loop's thread.

    Args:
        store: where they go.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._texts = Texts(store, clock)

    def take_text(self, body: bytes, done: Done) -> None:
        """Store one classic message.

        Args:
            done: called when it is durable, or with why it is not.

        Raises:
            InvalidInput: it is empty. TooLarge: over 64 KB.
        """
        self._texts.take(body, done)

    def take_batch(self, body: bytes, done: Callable[[Taken | Unavailable], None]) -> None:
        """Store the good lines of an NDJSON body. Empty lines are passed over, but counted.

        Args:
            done: called when they are durable, or with why nothing was stored.

        Raises:
            InvalidInput: it is empty. TooLarge: over 10,000 lines.
        """
        runs, rejected = read_batch(body, stamp(self._clock()))
        if not runs and not rejected:
            raise InvalidInput("the body is empty; send one JSON object a line", code="empty")

        def tell(outcome: Appended | Unavailable) -> None:
            done(Taken(outcome.accepted, outcome.duplicates, tuple(rejected)) if isinstance(outcome, Appended) else outcome)

        if runs:
            self._store.append(runs, tell)
        else:
            tell(Appended(0, 0))
