"""Where the catalogue is kept. `open_store` picks a store by its URI."""

from __future__ import annotations

from pathlib import Path

from pillion_common.errors import ConfigError
from pillion_registry.store.base import Store
from pillion_registry.store.memory import MemoryStore

__all__ = ["Store", "open_store"]


def open_store(uri: str, token_file: str = "") -> Store:
    """Return the store of a URI: `memory:`, `sqlite:PATH` or `nats://HOST:PORT,…`.

    Args:
        token_file: holds the token that NATS servers ask for.

    Raises:
        ConfigError: no such kind of store.
    """
    kind, _, rest = uri.partition(":")
    if kind == "memory" and not rest:
        return MemoryStore()
    if kind == "sqlite" and rest:
        from pillion_registry.store.sqlite import SqliteStore

        return SqliteStore(Path(rest))
    if kind == "nats":
        from pillion_common.nats_link import parse_place
        from pillion_registry.store.nats import NatsStore

        return NatsStore(parse_place(uri), token_file)
    raise ConfigError([f"--store {uri!r} is not a store; use sqlite:PATH or memory: or nats://HOST:PORT,HOST:PORT,HOST:PORT"])
