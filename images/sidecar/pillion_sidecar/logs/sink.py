"""Where sources of log lines put what they read: into the spool, with how far they have read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pillion_common.errors import PillionError, TooLarge
from pillion_common.logs import EventLog
from pillion_sidecar.logs.entry import Entry
from pillion_sidecar.logs.spool import Spool

_log = EventLog("lines")


class Sink:
    """Where sources put their entries. A source is never answered, so what happens to them is decided here.

    Args:
        on_line: called after entries went in.
    """

    def __init__(self, spool: Spool, on_line: Callable[[], None]) -> None:
        self._spool = spool
        self._on_line = on_line

    @property
    def crowded(self) -> bool:
        """Return whether a source that has its lines elsewhere as well should wait."""
        return self._spool.crowded

    @property
    def positions(self) -> Mapping[str, str]:
        """Return how far sources were read."""
        return self._spool.positions

    def keep(self, entries: Sequence[Entry], positions: Mapping[str, str | None] | None = None) -> bool:
        """Keep entries with their source's position; False if the disk does not take them: they are to be given again.

        An entry that is too large by its fields is kept without them.
        """
        try:
            try:
                self._spool.append_all(entries, positions)
            except TooLarge:
                self._spool.append_all([_bare(entry) for entry in entries], positions)
        except PillionError as exc:
            _log.warn_seldom("lines_not_kept", exc.message)
            return False
        if entries:
            self._on_line()
        return True

    def keep_or_lose(self, entries: Sequence[Entry]) -> None:
        """Keep entries that will not come again; what the disk does not take is told of by a gap entry."""
        if entries and not self.keep(entries):
            self._spool.lose(len(entries))

    def lose(self, count: int) -> None:
        """Take note of lines that could not even be given."""
        self._spool.lose(count)


def _bare(entry: Entry) -> Entry:
    return {key: entry[key] for key in ("Time", "Service", "Instance", "Level", "Message") if key in entry}
