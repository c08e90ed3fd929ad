"""What the file projection and the DNS server ask the provider table, and nothing else of it."""

from __future__ import annotations

from typing import Protocol

from pillion_sidecar.wire import Provider


class Known(Protocol):
    """The provider table as those see it who only tell what it knows."""

    def names(self) -> tuple[str, ...]:
        """Return the service names it is about."""

    def all(self, name: str) -> tuple[Provider, ...]:
        """Return a service's providers; none for one that has none or is not known."""

    def find(self, name: str) -> tuple[Provider, ...] | None:
        """Return a service's providers; None while nobody can say, for the registry was not heard about it yet."""
