"""Names that may be meant when another was written: `grading-service`, `GradingServce` or `Grading` for `GradingService`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

MOST_SLIPS = 2
SHORT = 5  # a name of fewer characters may have one slip alone: Db is no slip of Ui
MAX_LOOKED_AT = 2_000

_ENDINGS = ("service", "server", "svc")


def similar(name: str, names: Iterable[str]) -> str | None:
    """Return the name most like another one, if any is like it enough; never the same.

    Args:
        names: those that there are; no more than MAX_LOOKED_AT are looked at closely.
    """
    best: tuple[int, str] | None = None
    plain = _plain(name)
    looked_at = 0
    for other in names:
        if other == name:
            continue
        if _plain(other) == plain:
            return other
        most = 1 if min(len(name), len(other)) < SHORT else MOST_SLIPS
        if abs(len(other) - len(name)) > most or looked_at >= MAX_LOOKED_AT:
            continue
        looked_at += 1
        count = slips(name.lower(), other.lower(), most)
        if count <= most and (best is None or (count, other) < best):
            best = count, other
    return best[1] if best else None


def slips(one: str, other: str, most: int) -> int:
    """Return how many letters were left out, put in, changed or swapped with their neighbour; or most + 1 if there are more.

    The optimal string alignment distance, row by row, of what lies between the beginning and the end that both have.
    """
    begun = 0
    while begun < min(len(one), len(other)) and one[begun] == other[begun]:
        begun += 1
    one, other = one[begun:], other[begun:]
    ended = 0
    while ended < min(len(one), len(other)) and one[-1 - ended] == other[-1 - ended]:
        ended += 1
    one, other = one[: len(one) - ended], other[: len(other) - ended]
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, another in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != another))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == another:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


@lru_cache(4096)
def _plain(name: str) -> str:
    """Return a name without what people write differently: case, separators, an ending."""
    plain = name.lower().replace("-", "").replace("_", "").replace(".", "")
    for ending in _ENDINGS:
        if plain.endswith(ending) and len(plain) > len(ending) + 1:
            plain = plain.removesuffix(ending)
            break
    return plain.removesuffix("s") if len(plain) > 3 else plain
