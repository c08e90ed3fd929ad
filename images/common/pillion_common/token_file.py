"""`pillion token PATH`: makes the shared token once."""

from __future__ import annotations

import sys
from pathlib import Path

from pillion_common.trust import make_token_file


def main(argv: list[str]) -> int:
    """Make a random token file, mode 0440, unless there is one. Exit 0 in both cases, 1 if it cannot be written, 2 for wrong words."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: pillion token PATH", file=sys.stderr)
        return 0 if argv in (["-h"], ["--help"]) else 2
    try:
        made = make_token_file(Path(argv[0]))
    except OSError as exc:
        print(f"pillion token: {argv[0]} cannot be written: {exc}", file=sys.stderr)
        return 1
    print(f"{argv[0]}: {'made' if made else 'is there already'}")
    return 0
