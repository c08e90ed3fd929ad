"""`pillion token PATH`: makes the shared token once."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


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


def make_token_file(path: Path) -> bool:
    """Make a random token file unless there is one.

    Returns:
        Whether a new one was made. Two makers at once: one wins, and the file is never seen half written.

    Raises:
        OSError: the folder cannot be written.
    """
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
