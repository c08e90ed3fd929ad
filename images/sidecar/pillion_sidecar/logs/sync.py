"""When the spool's lines are brought to the disk itself, so that they survive a power cut: always before an answer, or once a second.

Loaded only where one of the two is switched on: the third way, `os`, leaves it to the kernel.
"""

from __future__ import annotations

import asyncio
import os

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_sidecar.logs.spool import Spool

_log = EventLog("spool")

INTERVAL_S = 1.0


class SpoolSync:
    """Syncs one spool, all that wait in one go. One sync that fails is one too many: from then on lines are refused (Unavailable).

    A kernel tells of a failed write once, and forgets it; the next fdatasync would say that all is well.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None
        self.fault = ""

    async def settle(self) -> None:
        """Return when all that was appended until now is on the disk.

        Raises:
            Unavailable: it is not.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync(), name="spool sync")
        await future

    async def run(self) -> None:
        """Sync once a second, for ever."""
        synced = -1
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self._spool.next_seq != synced and not self.fault:
                synced = self._spool.next_seq
                await self._sync_once()

    async def _sync(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            await self._sync_once()
            for future in waiting:
                if future.done():
                    continue  # who waited has gone
                if self.fault:
                    future.set_exception(Unavailable(self.fault, code="spool_failed", retry_after_s=5))
                else:
                    future.set_result(None)

    async def _sync_once(self) -> None:
        descriptor = self._spool.descriptor()
        if descriptor is None or self.fault:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(None, _sync_and_close, descriptor)
            if self._spool.sync_fault is not None:  # the kernel told it of this file's failure, and so not us
                raise self._spool.sync_fault
        except OSError as exc:
            self.fault = f"the sidecar's spool cannot be written to its disk: {exc.strerror}; check the disk and restart the sidecar"
            _log.error("spool_sync_failed", self.fault)


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
