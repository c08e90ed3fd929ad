"""The console command `pillion`: finds the part of the name given and runs it.

Knows the parts by name alone, so that each image carries only its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

# command: (module with `main(argv) -> exit code`, what it does)
COMMANDS = {
    "registry": ("pillion_registry.__main__", "run the registry"),
    "log": ("pillion_log.__main__", "run the log service"),
    "sidecar": ("pillion_sidecar.__main__", "run the sidecar beside an app"),
    "run": ("pillion_sidecar.run", "run a local command with a sidecar beside it"),
    "healthcheck": ("pillion_common.healthcheck", "exit 0 if a URL answers 200, else 1 with the reason"),
    "token": ("pillion_common.token_file", "make a random token file if there is none"),
    "version": ("pillion_common.version", "print the version"),
}


def main() -> None:
    """Run `pillion COMMAND …` and exit with its code."""
    sys.exit(dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> int:
    """Run a command.

    Returns:
        Its exit code; 2 for a command that does not exist or is not in this image.
    """
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if name == "--version":
        name = "version"
    if name not in COMMANDS:
        print(f"pillion: there is no command {name!r}\n{usage()}", file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    if find_spec(module.partition(".")[0]) is None:
        print(f"pillion: {name} is not part of this image; it lacks the package {module.partition('.')[0]}", file=sys.stderr)
        return 2
    run: Callable[[list[str]], int] = import_module(module).main
    return run(argv[1:])


def usage() -> str:
    """Return the list of commands."""
    rows = "\n".join(f"  {name:12} {what}" for name, (_, what) in COMMANDS.items())
    return f"usage: pillion COMMAND [options]\n\n{rows}\n\n`pillion COMMAND --help` tells its options."
