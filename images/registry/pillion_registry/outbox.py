"""What is on its way to one dependent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pillion_common.backoff import Backoff
from pillion_common.http.client import Channel, encode_head
from pillion_common.names import Url, parse_url
from pillion_registry.catalog import Record
from pillion_registry.dependent import Dependent


class Outbox:
    """The state of telling one dependent, which is the notifier's to change."""

    __slots__ = (
        "backoff",
        "channel",
        "dependent",
        "failing_s",
        "fault",
        "head",
        "queued",
        "record",
        "retired",
        "retry",
        "sending",
        "sent_s",
        "status",
        "told_s",
        "tries",
        "unkept",
        "url",
    )

    def __init__(self, dependent: Dependent, record: Record, headers: tuple[str, ...]) -> None:
        self.dependent = dependent
        self.record = record
        self.url: Url = parse_url(record.registration.service_update_url or "", "ServiceUpdateURL")
        self.head = encode_head(self.url, "POST", self.url.target, headers)
        self.channel: Channel | None = None  # kept for Protocol 2; a classic one gets a new one for each patch
        self.backoff: Backoff | None = None  # made at the first failure
        self.retry: asyncio.TimerHandle | None = None
        self.retired: Callable[[], None] | None = None  # another registry goes on: called when what is under way has ended
        self.queued = self.sending = False
        self.unkept = False  # what it has acknowledged is to be kept together with the next patch
        self.sent_s = 0.0
        self.told_s: float | None = None  # when it last acknowledged a patch
        self.failing_s: float | None = None  # when the first of the tries was made that have failed since
        self.tries = 0
        self.status = 0
        self.fault = ""

    def calm(self) -> None:
        """End a wait for the next try."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
