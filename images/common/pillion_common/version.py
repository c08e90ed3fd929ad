"""`pillion version`."""

from __future__ import annotations

from pillion_common import __version__


def main(argv: list[str]) -> int:
    """Print the version."""
    print(f"pillion {__version__}")
    return 0
