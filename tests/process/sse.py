"""Reads server-sent events from a stream, as a browser's EventSource does.

`with Stream(url + "/watch") as stream: stream.next() == Told("snapshot", "7", {...})`
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit


class Told(NamedTuple):
    """One event."""

    kind: str
    id: str
    data: dict[str, Any]


class Stream:
    """A stream that is read as it comes."""

    def __init__(self, url: str, last: str | None = None, **parameters: Any) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        parts = urlsplit(url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.request("GET", f"{parts.path}?{urlencode(parameters, doseq=True)}", headers=headers)
        self._socket = connection.sock
        self.answer = connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.comments: list[str] = []
        self.last_id = ""
        self._events: queue.Queue[Told | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # ended already
        self._reader.join(5)
        self._socket.close()
        self.answer.close()

    def next(self, timeout_s: float = 5.0) -> Told:
        """Return the next event."""
        told = self._events.get(timeout=timeout_s)
        assert told is not None, "the stream has ended"
        return told

    def until(self, kind: str, timeout_s: float = 5.0, **data: Any) -> Told:
        """Return the next event of a kind with these data; others are passed over."""
        while True:
            told = self.next(timeout_s)
            if told.kind == kind and data.items() <= told.data.items():
                return told

    def ended(self, timeout_s: float = 5.0) -> bool:
        """Return whether nothing comes any more but the end."""
        return self._events.get(timeout=timeout_s) is None

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            for line in iter(self.answer.readline, b""):
                text = line.decode().removesuffix("\n")
                if text.startswith(":"):
                    self.comments.append(text)
                elif text:
                    key, _, value = text.partition(": ")
                    fields[key] = value
                    self.last_id = fields.get("id", self.last_id)
                else:
                    if "data" in fields:
                        self._events.put(Told(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])))
                    fields = {}
        except (HTTPException, OSError, ValueError):
            pass  # closed by us, or cut off
        self._events.put(None)
