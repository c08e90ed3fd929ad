"""Which one of several providers: the strategies of a look-up. Pure; the random source is a parameter.

random        any, each as likely
round-robin   one after the other
weighted      as often as its Weight says, spread evenly (the smooth way of nginx: 5,1,1 gives a a b a c a a)
least-recent  the one that was given out longest ago
hash          by the key: the same key gives the same provider, and one that leaves moves only its own keys (rendezvous hashing)
zone          any in this sidecar's own zone; where none is, any
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import NamedTuple

from pillion_common.errors import InvalidInput
from pillion_sidecar.wire import Provider

STRATEGIES = ("random", "round-robin", "weighted", "least-recent", "hash", "zone")
MAX_KEY_CHARS = 1024
SPARE = 64  # providers that are remembered beyond those there are

_HASH_BYTES = 7  # a float holds 53 bits: the sixth of a billion that is lost decides nothing


class Wish(NamedTuple):
    """What a look-up asks for besides the name. `tags`: the provider has all of them; an empty `version` is any."""

    strategy: str = "random"
    key: str = ""
    tags: frozenset[str] = frozenset()
    version: str = ""

    @property
    def filters(self) -> bool:
        """Return whether not every provider will do."""
        return bool(self.tags or self.version)

    def fits(self, provider: Provider) -> bool:
        """Return whether a provider will do."""
        return self.tags.issubset(provider.tags or ()) and self.version in ("", provider.version)


def read_wish(query: dict[str, str], default: str) -> Wish:
    """Make a wish of a look-up's query.

    Args:
        query: may have `strategy`, `key`, `tag` (several separated by commas) and `version`.
        default: the strategy where none is named.

    Raises:
        InvalidInput: an unknown strategy, or `hash` without a key.
    """
    strategy, key = query.get("strategy") or default, query.get("key", "")
    if strategy not in STRATEGIES:
        raise InvalidInput(f"there is no strategy {strategy!r}; use {', '.join(STRATEGIES)}", code="unknown_strategy", field="strategy")
    if strategy == "hash" and not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidInput(f"the strategy hash needs a key of 1 to {MAX_KEY_CHARS} characters: &key=...", code="invalid_key", field="key")
    return Wish(strategy, key, frozenset(tag for tag in query.get("tag", "").split(",") if tag), query.get("version", ""))


class Chooser:
    """Chooses among the providers of one service, and remembers whose turn it is.

    Args:
        zone: this sidecar's own; empty is none.
        rand: a number from 0 to below 1.
    """

    __slots__ = ("_credit", "_given", "_rand", "_turn", "_zone")

    def __init__(self, zone: str, rand: Callable[[], float]) -> None:
        self._zone = zone
        self._rand = rand
        self._turn = count(1)
        self._given: dict[str, int] = {}  # by URL: when it was last given out, counted in turns
        self._credit: dict[str, int] = {}  # by URL: how much the smooth way owes it

    def choose(self, providers: Sequence[Provider], wish: Wish) -> Provider:
        """Return one of the providers, of which there is at least one."""
        match wish.strategy:
            case "hash":
                return max(providers, key=lambda provider: _affinity(wish.key, provider))
            case "weighted":
                return self._by_weight(providers)
            case "least-recent":
                return self._longest_ago(providers)
            case "round-robin":
                # By age of the last turn, ties in the table's order: right also when providers come and go between two turns.
                return self._longest_ago(sorted(providers, key=lambda provider: provider.url))
            case "zone":
                near = [provider for provider in providers if self._zone and provider.zone == self._zone]
                return self._any(near or providers)
            case _:
                return self._any(providers)

    def _any(self, providers: Sequence[Provider]) -> Provider:
        return providers[int(self._rand() * len(providers))]

    def _longest_ago(self, providers: Sequence[Provider]) -> Provider:
        chosen = min(providers, key=lambda provider: self._given.get(provider.url, 0))
        self._given[chosen.url] = next(self._turn)
        _forget(self._given, providers)
        return chosen

    def _by_weight(self, providers: Sequence[Provider]) -> Provider:
        credit = self._credit
        total = 0
        for provider in providers:
            weight = provider.weight or 1
            total += weight
            credit[provider.url] = credit.get(provider.url, 0) + weight
        chosen = max(providers, key=lambda provider: credit[provider.url])
        credit[chosen.url] -= total
        _forget(credit, providers)
        return chosen


def _forget(remembered: dict[str, int], providers: Iterable[Provider]) -> None:
    """Drop those that are not there any more, once they are many."""
    present = {provider.url for provider in providers} if len(remembered) > SPARE else None
    if present is not None and len(remembered) > len(present) + SPARE:
        for url in remembered.keys() - present:
            del remembered[url]


def _affinity(key: str, provider: Provider) -> float:
    """Return how much a key likes a provider: the higher its weight, the more keys like it best (weighted rendezvous hashing)."""
    from hashlib import blake2b  # only who asks for it pays for it

    digest = blake2b(f"{key}\n{provider.url}".encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    share = (int.from_bytes(digest, "big") + 1) / (1 << 8 * _HASH_BYTES)
    return (provider.weight or 1) / -math.log(share) if share < 1.0 else math.inf
