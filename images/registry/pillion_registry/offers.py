"""How many instances are offered now, of each service and in all. Pure; the catalogue keeps it up, so that a look costs nothing."""

from __future__ import annotations

from collections import Counter


class Offers:
    """Counts of what is offered: what is up, and what was before the registry restarted and has not been checked since."""

    def __init__(self) -> None:
        self._by_name: Counter[str] = Counter()
        self.total = 0

    @property
    def services(self) -> int:
        """Return how many services have an offered instance."""
        return len(self._by_name)

    def of(self, name: str) -> int:
        """Return how many instances of a service are offered."""
        return self._by_name.get(name, 0)

    def clear(self) -> None:
        """Begin to count anew."""
        self._by_name.clear()
        self.total = 0

    def change(self, name: str, by: int) -> None:
        """Note that so many more (or fewer) instances of a service are offered."""
        if by:
            self.total += by
            self._by_name[name] += by
            if not self._by_name[name]:
                del self._by_name[name]
