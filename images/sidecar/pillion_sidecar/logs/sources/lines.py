"""Lines out of bytes as they come, each bounded. Pure."""

from __future__ import annotations

from typing import NamedTuple

MAX_BYTES = 64 * 1024


class Line(NamedTuple):
    """A line without its end, how many bytes of it were left out since it was too long, and how many bytes it took with all of them."""

    data: bytes
    missing: int
    size: int


class LineReader:
    """Makes lines of the bytes of one stream.

    Args:
        max_bytes: of one line; what is beyond is left out and counted.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = b""
        self._size = 0  # of the line that has no end yet

    @property
    def held(self) -> int:
        """Return how many bytes came since the last line end."""
        return self._size

    def feed(self, data: bytes) -> list[Line]:
        """Take bytes; return the lines that are whole now."""
        *whole, rest = data.split(b"\n")
        lines = []
        for part in whole:
            self._keep(part)
            lines.append(self._finish(1))
        self._keep(rest)
        return lines

    def end(self) -> list[Line]:
        """Take note that nothing more comes; return what is left, as a line."""
        return [self._finish(0)] if self._size else []

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if part and len(self._held) < self._max_bytes:
            self._held += part[: self._max_bytes - len(self._held)]

    def _finish(self, line_end: int) -> Line:
        line = Line(self._held.removesuffix(b"\r"), self._size - len(self._held), self._size + line_end)
        self._held, self._size = b"", 0
        return line
