"""A provider table that a test fills by hand: name -> providers; None while nobody can say."""

from __future__ import annotations

from pillion_sidecar.wire import Provider


class FakeTable:
    """What projection and DNS ask of a table (pillion_sidecar.table.known.Known)."""

    def __init__(self, known: dict[str, tuple[Provider, ...] | None] | None = None, **more: tuple[Provider, ...] | None) -> None:
        self.known = {**(known or {}), **more}

    def names(self) -> tuple[str, ...]:
        return tuple(self.known)

    def all(self, name: str) -> tuple[Provider, ...]:
        return self.known.get(name) or ()

    def find(self, name: str) -> tuple[Provider, ...] | None:
        return self.known.get(name, ())
