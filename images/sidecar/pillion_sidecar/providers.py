"""The table of providers: what this sidecar knows of the services its app requires. Pure; patches come in, lookups go out.

It keeps what it last knew for as long as the registry is away: a stale provider is better than none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from pillion_common.errors import Conflict, NotFound
from pillion_common.models import Patch, ProviderEntry


class ProviderTable:
    """Providers by service name.

    Args:
        required: name -> how many are needed. Other names are never taken in.
        rand: a number below n, for the random strategy.
    """

    def __init__(self, required: Mapping[str, int], rand: Callable[[int], int] = random.randrange) -> None:
        self._required = dict(required)
        self._rand = rand
        self._providers: dict[str, dict[str, ProviderEntry]] = {name: {} for name in required}
        self._choices: dict[str, tuple[ProviderEntry, ...]] = dict.fromkeys(required, ())
        self._afresh = False
        self.revision: int | None = None
        self.epoch: str | None = None

    def expect_afresh(self) -> None:
        """Let the next patch without a revision replace the table.

        A classic registry that has forgotten us will never say Removed of what it forgot too; when we register again it sends all there is.
        """
        self._afresh = True

    def apply(self, patch: Patch) -> list[str]:
        """Take a patch in.

        Args:
            patch: a full one replaces what is known of its services; any other is a difference, and one that carries a revision must
                start from the revision reached. A classic registry's carry none.

        Returns:
            The names whose providers changed.

        Raises:
            Conflict: there is a gap; the registry answers with a full one.
        """
        if patch.full:
            changed = self._replace(patch)
        else:
            if patch.revision is not None and (patch.epoch, patch.previous) != (self.epoch, self.revision):
                raise Conflict(
                    f"the patch starts from revision {patch.previous} of {patch.epoch}, "
                    f"this sidecar is at {self.revision} of {self.epoch}; send a full one",
                    code="gap",
                )
            changed = self._begin_afresh() if patch.revision is None and self._afresh else []
            changed = list(dict.fromkeys(changed + self._change(patch)))
        if patch.revision is not None:
            self.revision, self.epoch = patch.revision, patch.epoch
        for name in changed:
            self._choices[name] = tuple(self._providers[name].values())
        return changed

    def choose(self, name: str) -> ProviderEntry:
        """Return one provider, at random.

        Raises:
            NotFound: the service is not required here, or has no provider now.
        """
        choices = self._choices.get(name)
        if not choices:
            raise self._none(name)
        return choices[0] if len(choices) == 1 else choices[self._rand(len(choices))]

    def all(self, name: str) -> tuple[ProviderEntry, ...]:
        """Return all providers of a service.

        Raises:
            NotFound: the service is not required here.
        """
        if name not in self._choices:
            raise self._none(name)
        return self._choices[name]

    def names(self) -> tuple[str, ...]:
        """Return the names this table is about."""
        return tuple(self._choices)

    def missing(self) -> dict[str, str]:
        """Return what is required and not there, e.g. {"Db": "1 of 2"}."""
        return {
            name: f"{len(self._choices[name])} of {needed}" for name, needed in self._required.items() if len(self._choices[name]) < needed
        }

    def _replace(self, patch: Patch) -> list[str]:
        truth: dict[str, dict[str, ProviderEntry]] = {name: {} for name in patch.services or () if name in self._providers}
        for entry in patch.added or ():
            if entry.name in truth:
                truth[entry.name][entry.url] = entry
        changed = [name for name, entries in truth.items() if entries != self._providers[name]]
        self._providers.update(truth)
        return changed

    def _begin_afresh(self) -> list[str]:
        self._afresh = False
        known = [name for name, entries in self._providers.items() if entries]
        self._providers = {name: {} for name in self._providers}
        return known

    def _change(self, patch: Patch) -> list[str]:
        changed: dict[str, None] = {}
        for entry in patch.removed or ():
            if self._providers.get(entry.name, {}).pop(entry.url, None) is not None:
                changed[entry.name] = None
        for entry in patch.added or ():
            if entry.name in self._providers:
                self._providers[entry.name][entry.url] = entry
                changed[entry.name] = None
        return list(changed)

    def _none(self, name: str) -> NotFound:
        if name not in self._providers:
            known = ", ".join(self._providers) or "nothing"
            return NotFound(f"{name} is not among what this app requires ({known}); add it to PILLION_REQUIRES", code="not_required")
        return NotFound(f"no provider of {name} is up now", code="no_provider")
