"""The registry's HTTP face: decodes, asks the Registry, encodes. Each handler's path stands in `make_application`."""

from __future__ import annotations

from collections.abc import Awaitable

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import InvalidInput, MethodNotAllowed
from pillion_common.http.interfaces import Handler, Route
from pillion_common.http.message import Request, Response
from pillion_common.http.tornado_handlers import Application, BaseHandler
from pillion_common.lifecycle import Readiness
from pillion_common.trust import Token, check_token
from pillion_registry.registry import Registry

FILTERS = ("name", "state", "tag", "zone")


class RegistryHandler(BaseHandler):
    """A handler that knows the registry and who may change it."""

    def initialize(self, registry: Registry, token: Token | None, exempt: tuple[Network, ...]) -> None:
        """Take what make_application gives."""
        self.registry = registry
        self._token = token
        self._exempt = exempt

    def prepare(self) -> None:
        """Refuse what changes something without the token."""
        super().prepare()
        if self.request.method not in ("GET", "HEAD"):
            check_token(self._token, self.request.headers.get("Authorization", "").encode("latin-1"), self.peer, self._exempt)


class ServicesHandler(RegistryHandler):
    """`/services`: the list, and the classic protocol's DELETE; its POST is a hot route."""

    async def delete(self) -> None:
        """Remove every registration at the URL in the body."""
        try:
            url = self.request.body.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise InvalidInput("the body is not a URL; send the ServiceURL as text/plain", code="invalid_url") from exc
        removed = await self.registry.deregister(url)
        self.write_json(b'{"Removed":%d}' % removed)

    def get(self) -> None:
        """List instances."""
        wanted = {name: self.get_query_argument(name, None) for name in FILTERS}
        self.write_json(models.encode(self.registry.list(**wanted)))


class ServiceHandler(RegistryHandler):
    """`/services/{name}`: the instances of one service."""

    def get(self, name: str) -> None:
        """List instances of one name."""
        self.write_json(models.encode(self.registry.list_service(name, self.get_query_argument("state", None))))


class StateHandler(RegistryHandler):
    """`/services/{id}/state`: an instance's own report."""

    def post(self, instance_id: str) -> None:
        """Take the report."""
        report = models.decode(self.request.body, models.StateReport)
        self.write_json(models.encode(self.registry.report(instance_id, report)))


class DrainHandler(RegistryHandler):
    """`/services/{id}/drain`: withdraws an instance that goes on working."""

    async def post(self, instance_id: str) -> None:
        """Drain; answers when the dependents have acknowledged it."""
        request = models.decode(self.request.body, models.DrainRequest) if self.request.body else models.DrainRequest()
        self.write_json(models.encode(await self.registry.drain(instance_id, request)))


class UndrainHandler(RegistryHandler):
    """`/services/{id}/undrain`: lets a drained instance come back."""

    def post(self, instance_id: str) -> None:
        """Undrain."""
        self.write_json(models.encode(self.registry.undrain(instance_id)))


def make_application(registry: Registry, readiness: Readiness, token: Token | None, exempt: tuple[Network, ...]) -> Application:
    """Return the registry's Tornado application."""
    needs = {"registry": registry, "token": token, "exempt": exempt}
    routes = [
        (r"/services", ServicesHandler, needs),
        (r"/services/([^/]+)", ServiceHandler, needs),
        (r"/services/([^/]+)/state", StateHandler, needs),
        (r"/services/([^/]+)/drain", DrainHandler, needs),
        (r"/services/([^/]+)/undrain", UndrainHandler, needs),
    ]
    return Application(routes, readiness)


def hot_routes(registry: Registry, token: Token | None, exempt: tuple[Network, ...]) -> dict[bytes, Route]:
    """Return what is answered straight from bytes, beside Tornado: registrations, of which many come at once after a restart."""

    def services(request: Request) -> Handler | None:
        if request.method in ("GET", "HEAD", "DELETE"):
            return None
        if request.method != "POST":
            raise MethodNotAllowed(request.method, ("DELETE", "GET", "HEAD", "POST"))
        authorization = request.header(b"authorization")
        trusted = token is not None and token.fits(authorization)

        def register(request: Request) -> Awaitable[Response]:
            if not trusted:
                check_token(token, authorization, request.peer, exempt)
            return answer(models.decode(request.body, models.Registration), request.peer, trusted)

        return register

    async def answer(registration: models.Registration, peer: str, trusted: bool) -> Response:
        return Response(200, models.encode(await registry.register(registration, peer, trusted)))

    return {b"/services": services}
