"""A dependent: an instance that requires services, and what it has acknowledged of their providers. Pure.

Level-triggered: a patch is always the difference from what was acknowledged to the truth of this moment, so nothing is lost or doubled,
and changes that come while a dependent is slow or away melt into one patch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pillion_common.models import Patch
from pillion_registry.provider_set import EMPTY, ProviderSet, difference

Providers = Callable[[str], ProviderSet]


class Delivery(NamedTuple):
    """One patch, and what the dependent knows once it has answered 200."""

    patch: Patch
    results: Mapping[str, ProviderSet]
    revision: int


@dataclass(slots=True)
class Dependent:
    """What one dependent was told. `acknowledged[name]` is None when that is not known: then only a Full helps (Protocol 2)."""

    instance_id: str
    generation: int
    requires: tuple[str, ...]
    classic: bool
    acknowledged: dict[str, ProviderSet | None] = field(default_factory=dict)
    revision: int | None = None

    def start_afresh(self) -> None:
        """Note that the dependent has just registered: a classic one starts with an empty table, a Protocol 2 one is sent a Full."""
        self.acknowledged = dict.fromkeys(self.requires, EMPTY if self.classic else None)
        self.revision = None

    def plan(self, providers: Providers, revision: int, epoch: str) -> Delivery | None:
        """Return the patch that is due now, or None.

        Args:
            providers: the present providers of a service.
            revision, epoch: the registry's own, to which the patch brings the receiver.
        """
        if not self.classic and None in self.acknowledged.values():
            full = self._plan_full(providers, revision, epoch)
            if full is not None:
                return full
        return self._plan_difference(providers, revision, epoch)

    def acknowledge(self, delivery: Delivery) -> None:
        """Note that the dependent answered 200."""
        self.acknowledged.update(delivery.results)
        self.revision = delivery.revision

    def _plan_full(self, providers: Providers, revision: int, epoch: str) -> Delivery | None:
        # A set with unchecked members is not the whole truth yet: it has to wait, for a Full would withdraw them.
        results = {name: truth for name, known in self.acknowledged.items() if known is None and (truth := providers(name)).settled}
        if not results:
            return None
        added = tuple(entry for truth in results.values() for entry in truth.entries.values())
        patch = Patch(added=added, removed=(), revision=revision, epoch=epoch, full=True, services=tuple(results))
        return Delivery(patch, results, revision)

    def _plan_difference(self, providers: Providers, revision: int, epoch: str) -> Delivery | None:
        steps = {name: difference(known, providers(name), self.classic) for name, known in self.acknowledged.items() if known is not None}
        added = tuple(entry for step in steps.values() for entry in step.added)
        removed = tuple(entry for step in steps.values() for entry in step.removed)
        results = {name: step.result for name, step in steps.items()}
        if not added and not removed:
            self.acknowledged.update(results)
            return None
        patch = Patch(added=added, removed=removed, revision=revision, previous=self.revision, epoch=epoch)
        return Delivery(patch, results, revision)
