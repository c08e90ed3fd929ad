"""What the registry's handlers share: who may change it, who asks, and how a query is read."""

from __future__ import annotations

import math

from pillion_common.config import Network
from pillion_common.errors import Forbidden, InvalidInput
from pillion_common.http.tornado_handlers import BaseHandler
from pillion_common.trust import Token, check_token
from pillion_registry.events import Reader
from pillion_registry.prober import tidy
from pillion_registry.registry import Registry

BY = "X-Pillion-By"


def check_origin(origin: str | None, host: str) -> None:
    """Let nobody be changed by a page that somebody with access has open: a browser says where a page comes from, others say nothing.

    Raises:
        Forbidden: the page is not ours.
    """
    if origin is not None and origin.partition("//")[2] != host:
        raise Forbidden(f"a page of {origin[:80]} may not change this registry; use its own address, or no browser", code="foreign_page")


class RegistryHandler(BaseHandler):
    """A handler that knows the registry and who may change it."""

    def initialize(self, registry: Registry, token: Token | None, exempt: tuple[Network, ...]) -> None:
        """Take what make_application gives."""
        self.registry = registry
        self.reader = Reader()
        self._token = token
        self._exempt = exempt

    def prepare(self) -> None:
        """Refuse what changes something without the token, or at the bidding of a web page from elsewhere."""
        super().prepare()
        if self.request.method not in ("GET", "HEAD"):
            check_origin(self.request.headers.get("Origin"), self.request.host)
            check_token(self._token, self.request.headers.get("Authorization", "").encode("latin-1"), self.peer, self._exempt)

    def on_connection_close(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.reader.leave()

    def by(self, named: str | None = None) -> str:
        """Return who asks, for the journal: its address, and the name it gives itself."""
        name = tidy(self.request.headers.get(BY) or named or "")
        return f"{name} at {self.peer}" if name else self.peer

    def text(self, name: str) -> str | None:
        """Return a parameter of the query; None if it is not given.

        Raises:
            InvalidInput: it is given twice.
        """
        given = self.get_query_arguments(name)
        if len(given) > 1:
            raise InvalidInput(f"the parameter {name} is given {len(given)} times; give it once", code="invalid_query", field=name)
        return given[0] if given else None

    def number(self, name: str, least: float, most: float, whole: bool = True) -> float | None:
        """Return a number of the query.

        Raises:
            InvalidInput: it is none, or out of bounds.
        """
        text = self.text(name)
        if text is None:
            return None
        try:
            number = int(text) if whole and text.isascii() else float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            kind = "a whole number" if whole else "a number"
            raise InvalidInput(f"{name} {text[:40]!r} is not {kind} from {least:.0f} to {most:.0f}", code="invalid_query", field=name)
        return number
