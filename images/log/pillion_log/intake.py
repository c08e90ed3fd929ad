"""Takes in what clients send: bounds, one verdict per line, and the store's word that all of it is durable. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pillion_common.errors import InvalidInput, Unavailable
from pillion_common.models import Model
from pillion_log.batches import Rejected, read_batch
from pillion_log.composing import Parts, compose
from pillion_log.entries import UNKNOWN_SERVICE, Run, stamp, to_run, with_field
from pillion_log.metrics import Counts
from pillion_log.otlp import read_records
from pillion_log.store.base import Appended, Done
from pillion_log.texts import Sink, Texts


class Taken(Model, frozen=True, omit_defaults=False):
    """The answer to a batch: `{"Accepted":2,"Duplicates":0,"Rejected":[{"Line":3,"Error":"…"}]}`."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejected, ...]


class Exported(NamedTuple):
    """The answer to log records: how many were stored, and why others were not."""

    accepted: int
    rejected: tuple[str, ...]


class _Marking:
    """A store in which each entry says that nobody has vouched for it."""

    def __init__(self, store: Sink) -> None:
        self._store = store

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries, marked."""
        self._store.append([with_field(run, b'"Unverified":true') for run in runs], done)


class _Counting:
    """A store that counts what became of the entries."""

    def __init__(self, store: Sink, counts: Counts) -> None:
        self._store = store
        self._counts = counts

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries, and count them once they are."""

        def tell(outcome: Appended | Unavailable) -> None:
            if isinstance(outcome, Appended):
                self._counts.accepted += outcome.accepted
                self._counts.duplicates += outcome.duplicates
            done(outcome)

        self._store.append(runs, tell)


class Intake:
    """Makes entries and stores them. What becomes of them is told later, once, in the loop's thread.

    Args:
        store: where they go.
        clock: seconds since 1970.
        counts: added to.
    """

    def __init__(self, store: Sink, clock: Callable[[], float] = time.time, counts: Counts | None = None) -> None:
        self._clock = clock
        self._counts = counts or Counts()
        self._uncounted = store
        self._store = _Counting(store, self._counts)
        self._texts = Texts(self._store, clock)

    def unverified(self) -> Intake:
        """Return an intake into the same store for those who have not shown the token: each of their entries says `"Unverified":true`."""
        return Intake(_Marking(self._uncounted), self._clock, self._counts)

    def take_text(self, body: bytes, done: Done) -> None:
        """Store one classic message.

        Args:
            done: called when it is durable, or with why it is not.

        Raises:
            InvalidInput: it is empty.
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
        self._counts.rejected += len(rejected)

        def tell(outcome: Appended | Unavailable) -> None:
            done(Taken(outcome.accepted, outcome.duplicates, tuple(rejected)) if isinstance(outcome, Appended) else outcome)

        if runs:
            self._store.append(runs, tell)
        else:
            tell(Appended(0, 0))

    def take_records(self, body: bytes, done: Callable[[Exported | Unavailable], None]) -> None:
        """Store OpenTelemetry's log records.

        Args:
            body: an ExportLogsServiceRequest in JSON.
            done: called when those that are entries are durable, or with why nothing was stored.

        Raises:
            InvalidInput: it is no such request. TooLarge: over 10,000 records, or too much to store at once.
        """
        runs, rejected = read_records(body, stamp(self._clock()))
        self._counts.rejected += len(rejected)

        def tell(outcome: Appended | Unavailable) -> None:
            done(Exported(outcome.accepted, tuple(rejected)) if isinstance(outcome, Appended) else outcome)

        if runs:
            self._store.append(runs, tell)
        else:
            tell(Appended(0, 0))

    def make(self, parts: Parts) -> Run:
        """Return an entry that came in by another protocol, to be given to `take_runs`."""
        return compose(parts, stamp(self._clock()))

    def make_gap(self, message: str, count: int, first: str, last: str) -> Run:
        """Return an entry that says that so many are missing, of senders that cannot be told any more.

        Args:
            first, last: between which times they were dropped, as `stamp` writes them.
        """
        received = stamp(self._clock())
        head = {"Time": received, "Received": received, "Service": UNKNOWN_SERVICE, "Level": "warning", "Message": message}
        return to_run({**head, "Gap": count, "From": first, "To": last})

    def take_runs(self, runs: Sequence[Run], done: Done) -> None:
        """Store what `make` made; refused for want of room or of a working disk it can be given again."""
        self._store.append(runs, done)
