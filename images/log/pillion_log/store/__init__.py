"""Where entries are kept. `open_store` picks a store by its URI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pillion_common.errors import ConfigError
from pillion_log.store.base import Store
from pillion_log.store.memory import MemoryStore

if TYPE_CHECKING:
    from pillion_log.store.files import FileOptions


def open_store(uri: str, options: FileOptions) -> Store:
    """Return the store of a URI: `memory:` or `files:DIR`.

    Args:
        options: how files are kept.

    Raises:
        ConfigError: no such kind of store.
    """
    kind, _, rest = uri.partition(":")
    if kind == "memory" and not rest:
        return MemoryStore()
    if kind == "files" and rest:
        from pillion_log.store.files import FileStore

        return FileStore(Path(rest), options)
    raise ConfigError([f"--store {uri!r} is not a store; use files:DIR or memory:"])
