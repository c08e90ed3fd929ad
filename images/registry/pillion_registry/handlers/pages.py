"""`GET /`: the dashboard. Its files are read once; what they show comes from /watch, /events and /graph."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pillion_common.errors import NotFound
from pillion_registry.handlers.base import RegistryHandler

FOLDER = Path(__file__).parent.parent / "dashboard"
FILES = {"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}
# Nothing from elsewhere, no script but the page's own file, nobody may frame it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class PageHandler(RegistryHandler):
    """`GET /`."""

    def get(self) -> None:
        """Show the dashboard."""
        self.show("index.html", "text/html; charset=utf-8")

    def show(self, name: str, kind: str) -> None:
        """Answer with one of the dashboard's files."""
        self.set_header("Content-Type", kind)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")
        self.write(_read(name))


class PageFileHandler(PageHandler):
    """`GET /dashboard/{file}`."""

    def get(self, name: str) -> None:  # type: ignore[override]
        """Answer with a file of the dashboard.

        Raises:
            NotFound: there is no such file.
        """
        if name not in FILES:
            raise NotFound(f"there is nothing at {self.request.path}", code="no_such_path")
        self.show(name, FILES[name])


@lru_cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
