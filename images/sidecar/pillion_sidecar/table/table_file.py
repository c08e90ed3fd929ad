"""Keeps the table on disk, so that a sidecar that is started while the registry is away still knows whom it knew last.

The file is replaced as a whole and not fsynced: after a power cut it may be missing, and then the registry has to be there.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from pillion_common.errors import InvalidInput
from pillion_common.logs import EventLog
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Provider, encode_provider, read_provider

_log = EventLog("table file")

FILE = "table.json"
MAX_BYTES = 8 * 1024 * 1024
COALESCE_S = 0.2


class TableFile:
    """The table's copy in the state folder."""

    def __init__(self, state_dir: str, table: ProviderTable) -> None:
        self._path = os.path.join(state_dir, FILE)
        self._table = table
        self._due: asyncio.TimerHandle | None = None
        self.saved_at = 0.0  # when what `restore` found was written, in seconds since 1970

    def restore(self) -> list[str]:
        """Give the table what was kept; return the names that had providers. A file that cannot be read counts as none."""
        try:
            with open(self._path, "rb") as file:
                kept = json.loads(file.read(MAX_BYTES))
            entries = [read_provider(entry, FILE) for entry in kept["Providers"]]
            self.saved_at = float(kept["SavedAt"])
            epoch = None if kept.get("Epoch") is None else str(kept["Epoch"])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError, KeyError, TypeError, InvalidInput) as exc:
            _log.warning("table_not_read", f"{self._path} is not used: {type(exc).__name__}: {exc}; the registry will tell anew")
            return []
        kept_by_name: dict[str, list[Provider]] = {}
        for entry in entries:
            kept_by_name.setdefault(entry.name, []).append(entry)
        return self._table.restore(kept_by_name, epoch)

    def changed(self) -> None:
        """Write soon; changes that come close together are written once."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(COALESCE_S, self.save)

    def save(self) -> None:
        """Write now."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        entries = [encode_provider(entry) for name in self._table.names() for entry in self._table.all(name)]
        kept: dict[str, Any] = {"SavedAt": round(time.time(), 3), "Epoch": self._table.epoch, "Providers": entries}
        try:
            with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                json.dump(kept, file, ensure_ascii=False)
            os.replace(f"{self._path}.new", self._path)
        except OSError as exc:
            # Only a restart while the registry is away would miss it.
            _log.warn_seldom("table_not_kept", f"{self._path} was not written: {exc}; make room, or give it another --state-dir")

    def close(self) -> None:
        """Write what waits to be written."""
        if self._due is not None:
            self.save()
