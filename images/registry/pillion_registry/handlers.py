"""The registry's HTTP face: decodes, asks the Registry, encodes. Each handler's path stands in `make_application`."""

from __future__ import annotations

from pillion_common import models
from pillion_common.config import Network
from pillion_common.errors import InvalidInput
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
        authorization = self.request.headers.get("Authorization", "").encode("latin-1")
        self.trusted = self._token is not None and self._token.fits(authorization)
        if self.request.method not in ("GET", "HEAD"):
            check_token(self._token, authorization, self.peer, self._exempt)


class ServicesHandler(RegistryHandler):
    """`/services`: the classic protocol's one path, and the list."""

    async def post(self) -> None:
        """Register."""
        registration = models.decode(self.request.body, models.Registration)
        self.write_json(models.encode(await self.registry.register(registration, self.peer, self.trusted)))

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
        self.write_json(models.encode(self.registry.list_service(name)))


class StateHandler(RegistryHandler):
    """`/services/{id}/state`: an instance's own report."""

    def post(self, instance_id: str) -> None:
        """Take the report."""
        report = models.decode(self.request.body, models.StateReport)
        self.write_json(models.encode(self.registry.report(instance_id, report)))


def make_application(registry: Registry, readiness: Readiness, token: Token | None, exempt: tuple[Network, ...]) -> Application:
    """Return the registry's Tornado application."""
    needs = {"registry": registry, "token": token, "exempt": exempt}
    routes = [
        (r"/services", ServicesHandler, needs),
        (r"/services/([^/]+)", ServiceHandler, needs),
        (r"/services/([^/]+)/state", StateHandler, needs),
    ]
    return Application(routes, readiness)
