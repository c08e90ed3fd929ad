"""Where the catalogue is kept. `open_store` picks a store by its URI."""

from __future__ import annotations

from pathlib import Path

from pillion_common.errors import ConfigError
from pillion_registry.store.base import Store
from pillion_registry.store.memory import MemoryStore

__all__ = ["Store", "open_store"]


def open_store(uri: str) -> Store:
    """Return the store of a URI: `memory:` or `sqlite:PATH`.

    Raises:
        ConfigError: no such kind of store.
    """
    kind, _, rest = uri.partition(":")
    if kind == "memory" and not rest:
        return MemoryStore()
    if kind == "sqlite" and rest:
        from pillion_registry.store.sqlite import SqliteStore

        return SqliteStore(Path(rest))
    raise ConfigError([f"--store {uri!r} is not a store; use sqlite:PATH or memory:"])
