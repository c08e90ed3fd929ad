"""Makes entries of syslog messages, and counts them and those that are none. Knows no sockets.

`<165>1 2026-10-11T22:14:15.003Z web1 shop 8710 ID47 [ex@32473 user="eve"] it works` becomes
`{"Time":"2026-10-11T22:14:15.003Z","Received":"…","Service":"shop","Level":"info","Message":"it works","Instance":"web1",
"Facility":20,"Process":"8710","Kind":"ID47","ex@32473":{"user":"eve"}}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pillion_common.logs import EventLog
from pillion_common.syslog import Message, parse
from pillion_log.composing import Parts, service_name
from pillion_log.entries import Run
from pillion_log.intake import Intake

_log = EventLog("syslog")


def local_offset(now_s: float) -> float:
    """Return what this machine's zone (TZ) is ahead of UTC: RFC 3164's times do not say theirs."""
    return float(time.localtime(now_s).tm_gmtoff)


class Reading:
    """Reads messages of one transport.

    Args:
        intake: makes the entries.
        clock: seconds since 1970.
        offset: what the senders' clocks are ahead of UTC at a time.
    """

    def __init__(self, intake: Intake, clock: Callable[[], float] = time.time, offset: Callable[[float], float] = local_offset) -> None:
        self._intake = intake
        self._clock = clock
        self._offset = offset
        self.received = 0  # messages
        self.headless = 0  # messages that had no syslog header, or none that could be read
        self._next_word = 1  # how many of them are worth a word in our own log: 1, 10, 100, …

    def read(self, data: bytes, peer: str, missing: int = 0) -> Run:
        """Return the entry of one message; what has no header is all message, of service unknown.

        Args:
            data: as it came.
            peer: the sender's IP address: the instance, if the message names no host.
            missing: bytes at its end that were left out already.
        """
        self.received += 1
        now_s = self._clock()
        message = parse(data, now_s, self._offset(now_s))
        if not message.time and not message.app:
            self.headless += 1
            if self.headless == self._next_word:
                self._next_word *= 10
                what = f"{self.headless} syslog messages so far had no header that can be read, the last one of {peer}"
                _log.warning("syslog_headless", f"{what}; they are kept as messages of service unknown", count=self.headless)
        return self._intake.make(
            Parts(message.text, message.app, message.host or peer, message.level, message.time, _fields(message), missing)
        )


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"Facility": message.facility}
    if message.process:
        fields["Process"] = message.process
    if message.kind:
        fields["Kind"] = message.kind
    if message.app and service_name(message.app) != message.app:
        fields["App"] = message.app  # as it was, since no service can have that name
    return {**fields, **message.data}
