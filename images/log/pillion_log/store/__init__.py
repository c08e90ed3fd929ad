"""Where entries are kept. `open_store` picks a store by its URI."""

from __future__ import annotations

from pathlib import Path

from pillion_common.errors import ConfigError
from pillion_log.store.base import Store
from pillion_log.store.memory import MemoryStore


def open_store(uri: str, rotate_bytes: int, keep: int) -> Store:
    """Return the store of a URI: `memory:` or `files:DIR`.

    Args:
        rotate_bytes: how large a file may grow.
        keep: how many files are kept.

    Raises:
        ConfigError: no such kind of store.
    """
    kind, _, rest = uri.partition(":")
    if kind == "memory" and not rest:
        return MemoryStore()
    if kind == "files" and rest:
        from pillion_log.store.files import FileStore

        return FileStore(Path(rest), rotate_bytes, keep)
    raise ConfigError([f"--store {uri!r} is not a store; use files:DIR or memory:"])
