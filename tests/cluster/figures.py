"""What the tests have measured, for the table at the end."""

from __future__ import annotations

_rows: list[tuple[str, str]] = []


def note(what: str, value: float | str, unit: str = "") -> None:
    """Keep one figure."""
    text = value if isinstance(value, str) else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
    _rows.append((what, f"{text} {unit}".strip()))


def table() -> str:
    """Return all figures as text."""
    width = max((len(what) for what, _ in _rows), default=0)
    return "\n".join(f"{what:<{width}}  {value}" for what, value in _rows)
