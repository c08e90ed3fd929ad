"""TLS, for those who need it. Importing ssl maps OpenSSL into the process: 7 MB for each sidecar, of which most never speak TLS.

asyncio and hashlib import OpenSSL when they find it and do without when they do not: so it is hidden from them until the first https URL.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

HIDDEN: dict[str, Any] = {"ssl": None, "_hashlib": None}  # None in sys.modules makes an import fail
USERS = ("asyncio.base_events", "asyncio.selector_events")  # each holds the ssl module, or None, under that name


def keep_out() -> None:
    """Hide OpenSSL from every later import. Call it before anything else is imported; it changes nothing that is there already."""
    for name, nothing in HIDDEN.items():
        sys.modules.setdefault(name, nothing)


def client_context() -> ssl.SSLContext:
    """Return a context that verifies the server by the system's authorities; loads OpenSSL if it was kept out."""
    return load().create_default_context()  # type: ignore[no-any-return]


def load() -> ModuleType:
    """Return the ssl module, and let asyncio know of it."""
    if sys.modules.get("ssl", sys) is not None:
        return importlib.import_module("ssl")
    for name in HIDDEN:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]
    module = importlib.import_module("ssl")
    for user in USERS:
        if user in sys.modules:
            vars(sys.modules[user])["ssl"] = module
    if "asyncio.sslproto" in sys.modules:
        importlib.reload(sys.modules["asyncio.sslproto"])  # it makes its tables of errors from ssl as it is imported
    return module
