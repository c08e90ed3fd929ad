"""All who are told when the table changes: waiting look-ups, event streams, the file that outlives the sidecar, projected files, DNS."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pillion_common.logs import EventLog
from pillion_sidecar.local.bell import Bell
from pillion_sidecar.local.events import Events
from pillion_sidecar.settings import PROJECT_DIR, Settings
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.table.table_file import TableFile

if TYPE_CHECKING:  # who does not use them does not pay for them
    from pillion_sidecar.dns.server import DnsServer
    from pillion_sidecar.projection import Projection

_log = EventLog("outlets")


class Outlets:
    """Made with the sidecar, begun inside its loop.

    Args:
        stale: whether the table may be old.
    """

    def __init__(self, settings: Settings, table: ProviderTable, stale: Callable[[], bool]) -> None:
        self._settings = settings
        self._table = table
        self._projection: Projection | None = None
        self._dns: DnsServer | None = None
        self.bell = Bell()
        self.events = Events(table, stale)
        self.table_file = TableFile(settings.state_dir, table)

    async def start(self) -> list[str]:
        """Offer what an earlier sidecar knew; return the addresses listened on.

        Raises:
            OSError: the DNS address is taken or not ours.
        """
        if restored := self.table_file.restore():
            _log.info("table_restored", f"until the registry answers, what was known last is offered: {', '.join(restored)}")
        self._project()
        return await self._answer_dns()

    def heard(self, changed: Sequence[str]) -> None:
        """Tell that the registry was heard.

        Args:
            changed: the services whose providers changed; none may have.
        """
        self.bell.ring()
        if self._projection is not None:
            self._projection.changed(changed)
        if changed:
            self.table_file.changed()
            self.events.changed(changed)

    def close(self) -> None:
        """Write what waits to be written."""
        if self._dns is not None:
            self._dns.close()
        if self._projection is not None:
            self._projection.close()
        self.table_file.close()

    def _project(self) -> None:
        folder = self._settings.project_dir
        if not folder or (folder == PROJECT_DIR and not os.path.isdir(folder)):
            return  # nobody asked for files
        from pillion_sidecar.projection import Projection, what_is_wrong

        if fault := what_is_wrong(folder):
            say = _log.info if folder == PROJECT_DIR else _log.warning
            say("no_projection", f"no files are kept in PILLION_PROJECT_DIR={folder}: {fault}; mount a folder this user can write")
            return
        self._projection = Projection(folder, self._table, lambda: self._table.revision)
        self._projection.changed(self._table.names())

    async def _answer_dns(self) -> list[str]:
        if self._settings.dns is None:
            return []
        from pillion_sidecar.dns.server import DnsServer

        self._dns = DnsServer(self._table, self._settings.dns, self._settings.zone, self._settings.dns_zone)
        return [await self._dns.listen()]
