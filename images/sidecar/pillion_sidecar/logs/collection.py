"""All of a sidecar's log lines: where they come from, the spool, and where they go. Sources are loaded only where they are switched on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pillion_common.logs import EventLog
from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.forwarder import Forwarder, gzip
from pillion_sidecar.logs.intake import Intake
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.settings import Settings
from pillion_sidecar.table.providers import ProviderTable

if TYPE_CHECKING:
    from pillion_sidecar.logs.sources.syslog import SyslogListener
    from pillion_sidecar.logs.sync import SpoolSync

_log = EventLog("lines")


class Collection:
    """The log lines of one app.

    Args:
        instance: the app's id at the registry.
    """

    def __init__(self, settings: Settings, spool: Spool, table: ProviderTable, token: Token | None, instance: Callable[[], str]) -> None:
        self._settings = settings
        self._spool = spool
        self.forwarder = Forwarder(spool, table, settings.log_to, token, pack=gzip if settings.log_gzip else None)
        self.maker = EntryMaker(settings.name, instance, time.time, settings.pod)
        self.sink = Sink(spool, self.forwarder.nudge)
        self._sync: SpoolSync | None = None
        self._syslog: SyslogListener | None = None
        if settings.spool_sync != "os":
            from pillion_sidecar.logs.sync import SpoolSync

            self._sync = SpoolSync(spool)

    def intake(self) -> Intake:
        """Return what takes lines over HTTP."""
        settle = self._sync.settle if self._sync is not None and self._settings.spool_sync == "always" else None
        return Intake(self._spool, self.maker, self.forwarder.nudge, settle)

    async def start(self, tasks: Supervisor) -> list[str]:
        """Take lines in and forward them; return the addresses listened on."""
        tasks.keep("forwarder", self.forwarder.run())
        if self._sync is not None:
            tasks.keep("spool sync", self._sync.run())
        if self._settings.log_files:
            from pillion_sidecar.logs.sources.files import FileSource

            tasks.keep("log files", FileSource(self._settings.log_files, self._settings.log_join, self.maker, self.sink).run())
        if self._settings.syslog is None:
            return []
        from pillion_sidecar.logs.sources.syslog import SyslogListener

        self._syslog = SyslogListener(self.maker, self.sink)
        return [await self._syslog.listen(self._settings.syslog)]

    def stop_taking(self) -> None:
        """Take nothing more from sources that listen."""
        if self._syslog is not None:
            self._syslog.close()

    async def flush(self, timeout_s: float) -> None:
        """Send what is left; see Forwarder.flush."""
        await self.forwarder.flush(timeout_s)

    def close(self) -> None:
        """Let go of everything."""
        self.stop_taking()
        self.forwarder.close()
        self._spool.close()
