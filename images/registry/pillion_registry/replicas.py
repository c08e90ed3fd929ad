"""Which kind of registry a store asks for."""

from __future__ import annotations

from pillion_common.tasks import Supervisor
from pillion_common.trust import Token
from pillion_registry.registry import Registry
from pillion_registry.settings import Settings
from pillion_registry.store import Store


def make_registry(settings: Settings, store: Store, token: Token | None, tasks: Supervisor) -> Registry:
    """Return a registry: one of several where the store is NATS, which is loaded only there."""
    if settings.store.startswith("nats:"):
        from pillion_registry.shared_registry import SharedRegistry
        from pillion_registry.store.nats import NatsStore

        assert isinstance(store, NatsStore)
        return SharedRegistry(settings, store, token, tasks)
    return Registry(settings, store, token, tasks)
