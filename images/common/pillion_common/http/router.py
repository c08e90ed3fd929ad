"""Routes for programs without Tornado: exact paths, and paths that end in one free part (`/providers/{name}`)."""

from __future__ import annotations

from pillion_common.errors import MethodNotAllowed, NotFound
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request


class Router:
    """A route for the core's Server: finds the handler of a request; 404 and 405 are its own."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._prefixes: dict[str, dict[str, Route]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Serve a path; one that ends in `/` serves everything just below it. GET serves HEAD as well."""
        self.add_route(method, path, lambda request: handler)

    def add_route(self, method: str, path: str, route: Route) -> None:
        """Serve a path by what the route makes of a request's head, once for all requests with that head."""
        table = self._prefixes if path.endswith("/") and path != "/" else self._exact
        methods = table.setdefault(path, {})
        methods[method] = route
        if method == "GET":
            methods["HEAD"] = route

    def __call__(self, request: Request) -> Handler | None:
        """Find who answers a request.

        Raises:
            NotFound, MethodNotAllowed: no such route.
        """
        path = request.path
        methods = self._exact.get(path) or self._prefixes.get(path[: path.rfind("/") + 1])
        if methods is None:
            raise NotFound(f"there is nothing at {path}", code="no_such_path")
        route = methods.get(request.method)
        if route is None:
            raise MethodNotAllowed(request.method, tuple(sorted(methods)))
        return route(request)
