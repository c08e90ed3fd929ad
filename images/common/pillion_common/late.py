"""Modules that others import at once and use seldom or never: put off until something in them is asked for.

asyncio, dataclasses, subprocess and traceback import these for what a sidecar that runs well never does (debugging, tracebacks); with what
they import in turn they are 1.4 MB of each sidecar's memory. Whoever asks gets the real thing: the same module
object fills itself.
"""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec
from types import ModuleType
from typing import Any

SELDOM = ("inspect", "locale", "textwrap", "tokenize")

_lock = threading.RLock()


class _Late(ModuleType):
    """A module that is loaded when the first name is looked for in it. (importlib's LazyLoader would be at the next import of it.)"""

    def __getattr__(self, name: str) -> Any:
        # Only names that are not there come here. Import itself asks for some of these, which is no use of the module.
        if not (name.startswith("__") and name.endswith("__")):
            with _lock:
                if type(self) is _Late and not vars(self).get("_loading"):
                    self._loading = True
                    assert self.__spec__ is not None
                    assert self.__spec__.loader is not None
                    self.__spec__.loader.exec_module(self)
                    self.__class__ = ModuleType  # type: ignore[assignment]
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def put_off(*names: str) -> None:
    """Put modules off that have not been imported yet. Call it before anything else is imported."""
    for name in names:
        spec = find_spec(name) if name not in sys.modules else None
        if spec is not None:
            module = _Late(name)
            module.__spec__ = spec
            module.__file__ = spec.origin
            if name == "inspect" and sys.version_info < (3, 14):
                vars(module)["get_annotations"] = _annotations_of  # of every dataclass, from Python 3.12 on
            sys.modules[name] = module


def _annotations_of(cls: type) -> dict[str, Any]:
    """Do for a class what inspect's function of that name does."""
    return dict(vars(cls).get("__annotations__") or {})
