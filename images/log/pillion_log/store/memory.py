"""A store that forgets: for tests, and for those who want a log without a disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pillion_log.entries import Run
from pillion_log.store.base import Block, Done
from pillion_log.store.sources import Sources

MAX_ENTRIES = 100_000
BLOCK_ENTRIES = 1_000


class _Lines:
    """A block that is in memory."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def lines(self) -> list[bytes]:
        """Return the lines."""
        return self._lines


class MemoryStore:
    """Keeps the last entries in this object: durable as long as it lives, not over a restart of the process."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._lines: deque[bytes] = deque(maxlen=max_entries)
        self._sources = Sources()

    async def load(self) -> None:
        """Do nothing: there is nothing to open."""

    def append(self, runs: Sequence[Run], done: Done) -> None:
        """Keep the entries."""
        staged: dict[str, int] = {}
        lines, answer = self._sources.fresh(runs, staged)
        self._lines.extend(b"".join(lines).split(b"\n")[:-1])
        self._sources.keep(staged)
        done(answer)

    @contextmanager
    def blocks(self) -> Iterator[Iterator[Block]]:
        """Return the entries in blocks, newest first."""
        lines = list(self._lines)
        yield (_Lines(lines[max(0, end - BLOCK_ENTRIES) : end]) for end in range(len(lines), 0, -BLOCK_ENTRIES))

    def fault(self) -> str | None:
        """Return None: memory does not fail."""
        return None

    async def close(self) -> None:
        """Do nothing: there is nothing to finish."""
