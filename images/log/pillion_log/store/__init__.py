"""Where entries are kept. `open_store` picks a store by its URI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pillion_common.errors import ConfigError
from pillion_log.store.base import Store
from pillion_log.store.memory import MemoryStore

if TYPE_CHECKING:
    from pillion_log.store.files import FileOptions


def open_store(uri: str, options: FileOptions, token_file: str = "") -> Store:
    """Return the store of a URI: `memory:`, `files:DIR` or `nats://HOST:PORT,…`.

    Args:
        options: how much is kept, and how.
        token_file: for NATS.

    Raises:
        ConfigError: no such kind of store, or its address or token file is not valid.
    """
    kind, _, rest = uri.partition(":")
    if kind == "memory" and not rest:
        return MemoryStore()
    if kind == "files" and rest:
        from pillion_log.store.files import FileStore

        return FileStore(Path(rest), options)
    if kind == "nats":
        from pillion_common.nats_link import parse_place
        from pillion_log.store.nats_store import NatsStore

        return NatsStore(parse_place(uri), options, token_file)
    raise ConfigError([f"--store {uri!r} is not a store; use files:DIR, nats://HOST:PORT,HOST:PORT,HOST:PORT or memory:"])
