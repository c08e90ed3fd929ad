"""Routes for programs without Tornado: exact paths, and paths that end in one free part (`/providers/{name}`)."""

from __future__ import annotations

from collections.abc import Awaitable

from pillion_common.errors import MethodNotAllowed, NotFound
from pillion_common.http.interfaces import Handler
from pillion_common.http.message import Request, Response


class Router:
    """Finds the handler of a request; 404 and 405 are its own."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._prefixes: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Serve a path; one that ends in `/` serves everything just below it. GET serves HEAD as well."""
        table = self._prefixes if path.endswith("/") and path != "/" else self._exact
        methods = table.setdefault(path, {})
        methods[method] = handler
        if method == "GET":
            methods["HEAD"] = handler

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a request.

        Raises:
            NotFound, MethodNotAllowed: no such route.
        """
        path = request.path
        methods = self._exact.get(path) or self._prefixes.get(path[: path.rfind("/") + 1])
        if methods is None:
            raise NotFound(f"there is nothing at {path}", code="no_such_path")
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, tuple(sorted(methods)))
        return handler(request)
