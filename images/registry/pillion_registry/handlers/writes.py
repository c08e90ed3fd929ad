"""What changes the catalogue: by the instances themselves, and by an operator's hand."""

from __future__ import annotations

from pillion_common import models
from pillion_common.errors import InvalidInput
from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.handlers.lists import ServicesListHandler
from pillion_registry.wire import HideRequest, OperatorRequest, Removed


class WriteHandler(RegistryHandler):
    """A handler that changes the catalogue: the one of this moment."""

    def prepare(self) -> None:
        """Refuse who may not, and everybody while what is known here may be old."""
        super().prepare()
        self.registry.check_current()


class ServicesHandler(ServicesListHandler):
    """`/services`: the list, and the classic protocol's DELETE; its POST is a hot route."""

    async def delete(self) -> None:
        """Remove every registration at the URL in the body."""
        try:
            url = self.request.body.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise InvalidInput("the body is not a URL; send the ServiceURL as text/plain", code="invalid_url") from exc
        self.registry.check_current()
        removed = await self.registry.deregister(url, self.by())
        self.write_json(models.encode(Removed(removed)))


class StateHandler(WriteHandler):
    """`/services/{id}/state`: an instance's own report."""

    async def post(self, instance_id: str) -> None:
        """Take the report."""
        report = models.decode(self.request.body, models.StateReport)
        self.write_json(models.encode(await self.registry.report(instance_id, report)))


class DrainHandler(WriteHandler):
    """`/services/{id}/drain`: withdraws an instance that goes on working."""

    async def post(self, instance_id: str) -> None:
        """Drain; answers when the dependents have acknowledged it."""
        request = models.decode(self.request.body, models.DrainRequest) if self.request.body else models.DrainRequest()
        self.write_json(models.encode(await self.registry.drain(instance_id, request, self.by(request.by))))


class UndrainHandler(WriteHandler):
    """`/services/{id}/undrain`: lets a drained or hidden instance come back."""

    async def post(self, instance_id: str) -> None:
        """Undrain."""
        request = models.decode(self.request.body, OperatorRequest) if self.request.body else OperatorRequest()
        self.write_json(models.encode(await self.registry.undrain(instance_id, self.by(request.by))))


class HideHandler(WriteHandler):
    """`/services/{id}/hide`: withdraws a healthy instance for some seconds."""

    async def post(self, instance_id: str) -> None:
        """Hide."""
        request = models.decode(self.request.body, HideRequest)
        hidden = await self.registry.hide(instance_id, request.seconds, request.reason or "", self.by(request.by))
        self.write_json(models.encode(hidden))


class ForgetHandler(WriteHandler):
    """`/services/{id}/forget`: removes one instance."""

    async def post(self, instance_id: str) -> None:
        """Forget."""
        request = models.decode(self.request.body, OperatorRequest) if self.request.body else OperatorRequest()
        self.write_json(models.encode(await self.registry.forget(instance_id, request.reason or "", self.by(request.by))))
