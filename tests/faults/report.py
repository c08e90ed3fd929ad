"""The figures of a fault suite, and whether they keep the promise."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Report:
    """What a suite did and found. It is good if it found nothing and did at least what it was meant to do."""

    suite: str
    figures: dict[str, int | str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure."""
        self.figures[what] = int(self.figures.get(what, 0)) + number

    def fault(self, text: str) -> None:
        """Note what should not have happened."""
        self.faults.append(text)

    @property
    def good(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        """Return the figures, one a line, and the first faults."""
        self.figures["seconds"] = round(time.monotonic() - self._started)
        width = max(map(len, self.figures))
        lines = [
            f"{self.suite}: {'kept' if self.good else 'BROKEN'}",
            *(f"  {name:{width}} {value}" for name, value in self.figures.items()),
        ]
        lines += [f"  fault: {text}" for text in self.faults[:20]]
        if len(self.faults) > 20:
            lines.append(f"  and {len(self.faults) - 20} more faults")
        return "\n".join(lines)
