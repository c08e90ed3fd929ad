"""Lists of instances: as they are now, or as soon as something has changed."""

from __future__ import annotations

from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.reads import Filters

MAX_REVISION = 2**63 - 1
DEFAULT_WAIT_S = 30.0


class ListHandler(RegistryHandler):
    """Answers with a list of instances."""

    async def answer_list(self, filters: Filters, service: str | None = None) -> None:
        """Wait if that is asked for, then list; 304 if the client has it already.

        Raises:
            NotFound: the service was never registered. InvalidInput: the query. Unavailable: too many wait.
        """
        reads = self.registry.reads
        revision = self.number("revision", 0, MAX_REVISION)
        wait_s = self.number("wait", 0, 1e9, whole=False)
        if revision is not None:
            await reads.newer_than(int(revision), DEFAULT_WAIT_S if wait_s is None else wait_s, self.reader)
        self.set_header("Cache-Control", "no-cache")  # may be kept, but must be asked for again
        body = reads.list(filters, service)
        if self._is_known(reads.tag):
            self.set_status(304)
            return
        self.write_json(body)

    def compute_etag(self) -> str | None:
        """Return the tag of the present state, which costs no look at the body."""
        return self.registry.reads.tag

    def _is_known(self, tag: str) -> bool:
        self.set_header("Etag", tag)
        return self.check_etag_header()


class ServicesListHandler(ListHandler):
    """`GET /services`."""

    async def get(self) -> None:
        """List the instances that fit the filters."""
        await self.answer_list(Filters(self.text("name"), self.text("state"), self.text("tag"), self.text("zone")))
