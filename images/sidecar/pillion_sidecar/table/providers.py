"""The table of providers: what this sidecar knows of the services its app requires. Pure; patches come in, look-ups go out.

It keeps what it last knew for as long as the registry is away: a stale provider is better than none. When a registry comes back without
its memory, what it does not name yet stays as well, *unconfirmed*, until its providers had their time to register again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from pillion_common.errors import Conflict
from pillion_sidecar.table.choice import Chooser, Wish
from pillion_sidecar.wire import Patch, Provider

MAX_UNDECLARED = 64  # names that were looked up without having been required


class ProviderTable:
    """Providers by service name.

    Args:
        required: name -> how many are needed (0: none, but it is of interest). Other names are taken in only after `add`.
        zone: this sidecar's own.
        rand: a number from 0 to below 1.
    """

    def __init__(self, required: Mapping[str, int], zone: str = "", rand: Callable[[], float] = random.random) -> None:
        self._required = dict(required)
        self._zone = zone
        self._rand = rand
        self._providers: dict[str, dict[str, Provider]] = {name: {} for name in required}
        self._choices: dict[str, tuple[Provider, ...]] = dict.fromkeys(required, ())
        self._choosers: dict[str, Chooser] = {}
        self._told: set[str] = set()  # the names about which the registry has said something
        self._undeclared: list[str] = []
        self._unconfirmed: set[tuple[str, str]] = set()  # (name, URL) that the registry of today has not named
        self.revision: int | None = None
        self.epoch: str | None = None

    # What is told.

    def add(self, name: str) -> bool:
        """Take a name in that was not required; False if there are too many of the kind."""
        if name in self._choices:
            return True
        if len(self._undeclared) >= MAX_UNDECLARED:
            return False
        self._undeclared.append(name)
        self._providers[name], self._choices[name] = {}, ()
        return True

    def restore(self, providers: Mapping[str, Iterable[Provider]], epoch: str | None = None) -> list[str]:
        """Take in what an earlier sidecar knew, until the registry says otherwise; return the names it had providers of.

        Args:
            epoch: of the registry that told it.
        """
        for name in self._providers:
            self._providers[name] = {entry.url: entry for entry in providers.get(name, ())}
        self.epoch = epoch
        self.expect_afresh()
        self._renew(self._providers)
        return [name for name, choices in self._choices.items() if choices]

    def expect_afresh(self) -> None:
        """Take nothing as confirmed until it is named again: the registry has lost its memory, or will tell all there is once more.

        A classic registry that has forgotten us will never say Removed of what it forgot too.
        """
        self._unconfirmed = {(name, url) for name, entries in self._providers.items() for url in entries}

    @property
    def unconfirmed(self) -> bool:
        """Return whether something is offered that the registry of today has not named."""
        return bool(self._unconfirmed)

    def drop_unconfirmed(self) -> list[str]:
        """Drop what nobody has named again; return the names that changed."""
        changed = list(dict.fromkeys(name for name, _ in self._unconfirmed))
        for name, url in self._unconfirmed:
            self._providers[name].pop(url, None)
        self._unconfirmed.clear()
        self._renew(changed)
        return changed

    def take_silence_as_none(self) -> None:
        """Take it that what was not told of is not there: a classic registry does not say so."""
        self._told.update(self._providers)

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
            self._told.update(name for name in patch.services or () if name in self._providers)
        else:
            if patch.revision is not None and (patch.epoch, patch.previous) != (self.epoch, self.revision):
                raise Conflict(
                    f"the patch starts from revision {patch.previous} of {patch.epoch}, "
                    f"this sidecar is at {self.revision} of {self.epoch}; send a full one",
                    code="gap",
                )
            changed = self._change(patch)
            self._told.update(changed)
        if patch.revision is not None:
            self.revision, self.epoch = patch.revision, patch.epoch
        self._renew(changed)
        return changed

    # What is asked.

    def choose(self, name: str, wish: Wish | None = None) -> Provider | None:
        """Return one provider, without a wish at random; None where there is none, or none that fits."""
        choices = self._choices.get(name, ())
        if wish is not None and wish.filters:
            choices = tuple(provider for provider in choices if wish.fits(provider))
        if not choices:
            return None
        if wish is None or wish.strategy == "random":
            return choices[int(self._rand() * len(choices))]
        return self._chooser(name).choose(choices, wish)

    def all(self, name: str) -> tuple[Provider, ...]:
        """Return all providers of a service; none for one that is not known here."""
        return self._choices.get(name, ())

    def find(self, name: str) -> tuple[Provider, ...] | None:
        """Return all providers of a service; None while nobody can say, because the registry has not been heard about it."""
        choices = self._choices.get(name, ())
        return choices if choices or name in self._told else None

    def knows(self, name: str) -> bool:
        """Return whether this table is about a service."""
        return name in self._choices

    def names(self) -> tuple[str, ...]:
        """Return the names this table is about."""
        return tuple(self._choices)

    def undeclared(self) -> tuple[str, ...]:
        """Return the names that were looked up without having been required."""
        return tuple(self._undeclared)

    def missing(self, needs: Mapping[str, int] | None = None) -> dict[str, str]:
        """Return what is needed (default: required) and not there, e.g. {"Db": "1 of 2"}."""
        return {
            name: f"{len(self.all(name))} of {needed}"
            for name, needed in (self._required if needs is None else needs).items()
            if len(self.all(name)) < needed
        }

    # Inside.

    def _chooser(self, name: str) -> Chooser:
        chooser = self._choosers.get(name)
        if chooser is None:
            chooser = self._choosers[name] = Chooser(self._zone, self._rand)
        return chooser

    def _renew(self, names: Iterable[str]) -> None:
        for name in names:
            self._choices[name] = tuple(self._providers[name].values())

    def _replace(self, patch: Patch) -> list[str]:
        truth: dict[str, dict[str, Provider]] = {name: {} for name in patch.services or () if name in self._providers}
        for entry in patch.added or ():
            if entry.name in truth:
                truth[entry.name][entry.url] = entry
        lost_memory = self.epoch not in (None, patch.epoch)
        for name, entries in truth.items():
            held = self._providers[name]
            left = {url: held[url] for url in held if lost_memory and url not in entries}
            self._unconfirmed = {one for one in self._unconfirmed if one[0] != name} | {(name, url) for url in left}
            entries.update(left)
        changed = [name for name, entries in truth.items() if entries != self._providers[name]]
        self._providers.update(truth)
        return changed

    def _change(self, patch: Patch) -> list[str]:
        changed: dict[str, None] = {}
        for entry in patch.removed or ():
            self._unconfirmed.discard((entry.name, entry.url))
            if self._providers.get(entry.name, {}).pop(entry.url, None) is not None:
                changed[entry.name] = None
        for entry in patch.added or ():
            if entry.name in self._providers:
                self._unconfirmed.discard((entry.name, entry.url))
                self._providers[entry.name][entry.url] = entry
                changed[entry.name] = None
        return list(changed)
