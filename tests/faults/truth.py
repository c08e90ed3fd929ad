"""What dependents should know, and what they were told: the account of a suite in which providers come and go. Pure; times are given.

A provider is *wanted* (True: healthy, all who require it must have it), *unwanted* (False), or *unsure* (None: a write about it is under
way, so either is right). A change is told when every dependent's table agrees with it, which must be within a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

GRACE_S = 0.5  # for which a healthy provider may be missing: what was in doubt is removed and then added
BOUND_S = 5.0


@dataclass
class _Provider:
    name: str
    wanted: bool | None = False
    since: float = 0.0
    waiting: set[str] = field(default_factory=set)  # dependents whose tables do not agree yet
    late: bool = False


class Truth:
    """The providers, and the dependents' tables as they keep them.

    Attributes:
        doubled: entries that were added where they were already, by classic dependents, who append.
        missing: entries that were not there in time; lingering: that were there still.
        withdrawn: times that a healthy provider that was known was missing for more than the grace.
        needless: entries that were removed where they were not.
        slowest_s: the longest that a change took since `begin`.
        faults: what went wrong, in words.
    """

    def __init__(self, requires: Mapping[str, Iterable[str]], bound_s: float = BOUND_S) -> None:
        self.bound_s = bound_s
        self.requires = {dependent: frozenset(names) for dependent, names in requires.items()}
        self.tables: dict[str, Counter[tuple[str, str]]] = {dependent: Counter() for dependent in self.requires}
        self.doubled = self.missing = self.lingering = self.withdrawn = self.needless = 0
        self.told = 0
        self.slowest_s = 0.0
        self.faults: list[str] = []
        self._providers: dict[str, _Provider] = {}
        self._open: set[str] = set()  # URLs of changes that are not told yet
        self._gone: dict[tuple[str, str], float] = {}  # (dependent, URL) -> since when a healthy provider is missing; below 0: counted
        self._base: float | None = 0.0

    # What is true.

    def begin(self, now: float | None) -> None:
        """Measure from now on: no change is late within the bound after this moment. None: nothing is late until this is called again."""
        self._base = now
        self.slowest_s = 0.0

    def change(self, url: str, name: str, wanted: bool | None, now: float) -> None:
        """Note what is true of a provider from now on."""
        provider = self._providers.setdefault(url, _Provider(name))
        provider.wanted, provider.since, provider.late = wanted, now, False
        self._gone = {key: since for key, since in self._gone.items() if key[1] != url}
        provider.waiting.clear()
        self._open.discard(url)
        if wanted is not None:
            provider.waiting = {one for one, names in self.requires.items() if name in names and self._knows(one, url, name) != wanted}
            self._settle(url, now)

    def settled(self, url: str) -> bool:
        """Return whether everybody knows what is true of a provider."""
        provider = self._providers.get(url)
        return provider is None or (provider.wanted is not None and not provider.waiting)

    @property
    def all_settled(self) -> bool:
        """Return whether everybody knows all that is true."""
        return not self._open

    def open(self) -> str:
        """Return what is not known to all yet, in words."""
        some = [(url, self._providers[url]) for url in sorted(self._open)]
        told = [f"{url} ({'up' if one.wanted else 'gone'}): {len(one.waiting)}, as {min(one.waiting)}" for url, one in some]
        return f"{len(told)} changes, among them {'; '.join(told[:3])}" if told else "nothing"

    # What is told.

    def added(self, dependent: str, name: str, url: str, now: float, appends: bool) -> None:
        """Note an entry that a dependent was given."""
        table, key = self.tables[dependent], (name, url)
        if name not in self.requires[dependent]:
            self.faults.append(f"{dependent} was told of {name}, which it does not require")
            return
        if table[key] and appends:
            self.doubled += 1
            self.faults.append(f"{dependent} has {url} of {name} doubled")
        table[key] = table[key] + 1 if appends else 1
        if now - self._gone.get((dependent, url), now) > GRACE_S:
            self.look(now)
        self._gone.pop((dependent, url), None)
        self._compare(dependent, url, name, now)

    def removed(self, dependent: str, name: str, url: str, now: float) -> None:
        """Note an entry that a dependent was told to remove."""
        table, key = self.tables[dependent], (name, url)
        if not table[key]:
            self.needless += 1
            return
        table[key] -= 1
        provider = self._providers.get(url)
        if provider is not None and provider.wanted and not table[key] and dependent not in provider.waiting:
            self._gone[dependent, url] = now  # it was known in this life, and is healthy
        else:
            self._compare(dependent, url, name, now)

    def replaced(self, dependent: str, names: Iterable[str], entries: Iterable[tuple[str, str]], now: float) -> None:
        """Note that a dependent was told the whole truth of some names."""
        held, given = {key for key, count in self.tables[dependent].items() if count and key[0] in names}, set(entries)
        for name, url in held - given:
            self.removed(dependent, name, url, now)
        for name, url in given - held:
            self.added(dependent, name, url, now, appends=False)

    # What is wrong.

    def look(self, now: float) -> None:
        """Count what is late, and who has been missing for too long."""
        for key, since in self._gone.items():
            if 0 <= since < now - GRACE_S:
                self._gone[key] = -1.0
                self.withdrawn += 1
                self.faults.append(f"{key[0]} lost {key[1]}, which is healthy, for more than {GRACE_S:g} s")
        if self._base is None:
            return
        for url in self._open:
            provider = self._providers[url]
            if provider.waiting and not provider.late and now > max(provider.since, self._base) + self.bound_s:
                provider.late = True
                self._count(provider, url, f"{now - provider.since:.1f} s after it changed")

    def compare(self) -> int:
        """Count all that is not as it should be, now that there was time enough; return how many entries were looked at."""
        looked = 0
        for dependent, table in self.tables.items():
            looked += len(table)
            for (_, url), count in table.items():
                if count > 1:
                    self.faults.append(f"at the end {dependent} has {url} {count} times")
                if count and url not in self._providers:
                    self.faults.append(f"{dependent} has {url}, which never was")
        for url, provider in self._providers.items():
            if provider.wanted is not None and not provider.late:
                wrong = {one for one in self.requires if self._is_wrong(one, url, provider)}
                if wrong:
                    provider.waiting, provider.late = wrong, True
                    self._open.add(url)
                    self._count(provider, url, "at the end")
        return looked

    # Inside.

    def _is_wrong(self, dependent: str, url: str, provider: _Provider) -> bool:
        return provider.name in self.requires[dependent] and self._knows(dependent, url, provider.name) != provider.wanted

    def _knows(self, dependent: str, url: str, name: str) -> bool:
        return self.tables[dependent][name, url] > 0

    def _compare(self, dependent: str, url: str, name: str, now: float) -> None:
        provider = self._providers.get(url)
        if provider is None or provider.wanted is None:
            return
        if self._knows(dependent, url, name) == provider.wanted:
            provider.waiting.discard(dependent)
        else:
            provider.waiting.add(dependent)
        self._settle(url, now)

    def _settle(self, url: str, now: float) -> None:
        provider = self._providers[url]
        if provider.waiting:
            self._open.add(url)
        elif url in self._open:
            self._open.discard(url)
            self.told += 1
            if self._base is not None:
                self.slowest_s = max(self.slowest_s, now - max(provider.since, self._base))

    def _count(self, provider: _Provider, url: str, when: str) -> None:
        what = "miss" if provider.wanted else "have still"
        if provider.wanted:
            self.missing += len(provider.waiting)
        else:
            self.lingering += len(provider.waiting)
        self.faults.append(f"{len(provider.waiting)} dependents {what} {url} of {provider.name} {when}, among them {min(provider.waiting)}")
