"""What the sidecar keeps of a line: an entry with the app's name, cut where it is too long, and the entry that tells of a gap. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pillion_common.clock import rfc3339

MAX_LINE_BYTES = 64 * 1024  # of an entry as JSON: what the log service takes
MAX_CUTS = 8  # tries to cut a message whose characters are of different length as JSON
MARK_BYTES = 96  # of the mark that a cut message ends with, and of the field that says the same

Entry = dict[str, Any]


class EntryMaker:
    """Makes entries of one app.

    Args:
        service: its name.
        instance: its id at the registry.
        clock: seconds since 1970.
        pod: the name of the pod that all this is in, told with each entry; empty: none.
    """

    def __init__(self, service: str, instance: Callable[[], str], clock: Callable[[], float], pod: str = "") -> None:
        self._service = service
        self._instance = instance
        self._clock = clock
        self._pod = {"Pod": pod} if pod else {}

    def make(self, message: str, level: str = "info", time: str = "", fields: Mapping[str, object] | None = None) -> Entry:
        """Return an entry.

        Args:
            time: RFC 3339; without it, now.
            fields: more of it.
        """
        return self.complete({"Time": time or rfc3339(self._clock()), "Level": level, "Message": message, **(fields or {})})

    def complete(self, given: Mapping[str, Any]) -> Entry:
        """Return an entry with what was not given. Whose it is, is not the app's to say, nor how much is missing (Gap)."""
        own = {"Time": rfc3339(self._clock()), "Service": self._service, "Instance": self._instance(), "Level": "info"}
        entry = {**own, **given, "Service": self._service, "Instance": own["Instance"], **self._pod}
        if "Gap" in entry:
            entry["gap"] = entry.pop("Gap")
        return entry


def encode(entry: Mapping[str, object], source: str, seq: int) -> bytes | None:
    """Return an entry as one line; a message that is too long is cut, with a mark. None: it is too long even so."""
    line = _encode({**entry, "Source": source, "Seq": seq})
    for _ in range(MAX_CUTS):
        over = len(line) - MAX_LINE_BYTES
        if over <= 0:
            return line
        message = entry.get("Message")
        if not isinstance(message, str):
            return None
        as_json = len(_encode(message))
        # Characters are of one to six bytes as JSON; so this is too few at times, and then cut again.
        keep = int(len(message) * (1 - (over + MARK_BYTES) / as_json))
        if keep <= 0:
            return None
        entry = _cut(entry, message[:keep], message)
        line = _encode({**entry, "Source": source, "Seq": seq})
    return line if len(line) <= MAX_LINE_BYTES else None


def cut_mark(missing: int) -> str:
    """Return what a message ends with of which so many bytes are left out."""
    return f"…[cut: {missing} bytes]"


def time_of(line: bytes) -> str:
    """Return the Time of an entry's line; empty if it has none."""
    return str(json.loads(line).get("Time") or "")


def make_gap(source: str, seq: int, missing: int, since: str, first_kept: bytes) -> bytes:
    """Return the entry that tells how many entries are missing, as a line.

    Args:
        seq: of the last of them.
        missing: how many.
        since: the time of the last one before them.
        first_kept: the line after them; empty if there is none.
    """
    kept = json.loads(first_kept) if first_kept else {}
    until = str(kept.get("Time") or since)
    service = str(kept.get("Service") or "unknown")
    entries = "entry" if missing == 1 else "entries"
    entry = {
        "Time": until,
        "Service": service,
        "Level": "warning",
        "Message": f"{missing} {entries} of {service} {'is' if missing == 1 else 'are'} missing: the sidecar's spool or its disk was full",
        **({"Instance": kept["Instance"]} if kept.get("Instance") else {}),
        "Gap": missing,
        "From": since or until,
        "To": until,
        "Source": source,
        "Seq": seq,
    }
    return _encode(entry)


def _cut(entry: Mapping[str, object], kept: str, message: str) -> Entry:
    cut = entry.get("Cut")
    earlier = cut if isinstance(cut, int) else 0
    if earlier:
        message = message.removesuffix(cut_mark(earlier))
        kept = kept[: len(message)]
    missing = earlier + len(message.encode("utf-8", "replace")) - len(kept.encode("utf-8", "replace"))
    return {**entry, "Message": kept + cut_mark(missing), "Cut": missing}


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
