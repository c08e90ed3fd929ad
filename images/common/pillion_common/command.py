"""The console command `pillion`: finds the part of the name given and runs it.

Knows the parts by name alone, so that each image carries only its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from pillion_common import late, tls

# command: (module, or module:function, with `main(argv) -> exit code`; what it does)
COMMANDS = {
    "registry": ("pillion_registry.__main__", "run the registry"),
    "log": ("pillion_log.__main__", "run the log service"),
    "sidecar": ("pillion_sidecar.__main__", "run the sidecar beside an app"),
    "run": ("pillion_sidecar.run", "run a local command with a sidecar beside it"),
    "agent": ("pillion_sidecar.agent.__main__", "stand in for sidecars on one container engine"),
    "lookup": ("pillion_sidecar.client:lookup", "ask the sidecar for a provider of a service"),
    "wait": ("pillion_sidecar.client:wait", "wait until services are there"),
    "status": ("pillion_sidecar.client:status", "tell how the sidecar and its app stand"),
    "services": ("pillion_common.client:services", "list what is registered, with states and reasons"),
    "why": ("pillion_common.client:why", "say why a consumer does or does not see a service"),
    "events": ("pillion_common.client:events", "list what happened, and by whom"),
    "drain": ("pillion_common.client:drain", "withdraw an instance, or the app beside the sidecar, or let it back"),
    "hide": ("pillion_common.client:hide", "withdraw a healthy instance for a while"),
    "forget": ("pillion_common.client:forget", "remove an instance from the registry"),
    "logs": ("pillion_common.log_client", "show the log of services, and follow it"),
    "attach": ("pillion_attach.attach", "put a sidecar beside a compose service or a running container"),
    "detach": ("pillion_attach.detach", "take such a sidecar off again"),
    "inject": ("pillion_injector.filter:inject", "write the sidecar into the pods of Kubernetes files"),
    "uninject": ("pillion_injector.filter:uninject", "take it out of them again"),
    "injector": ("pillion_injector.__main__", "run the webhook that does so for annotated pods"),
    "healthcheck": ("pillion_common.healthcheck", "exit 0 if a URL answers 200, else 1 with the reason"),
    "token": ("pillion_common.token_file", "make a random token file if there is none"),
    "version": ("pillion_common.version", "print the version"),
}
LEAN = ("sidecar", "run", "agent")  # multiplied by every app, or every host

# package or module of ours: (extra that brings what it imports, modules to look for)
EXTRAS = {
    "pillion_attach": ("attach", ("docker", "ruamel.yaml")),
    "pillion_injector.filter": ("inject", ("ruamel.yaml",)),
    "pillion_injector.__main__": ("injector", ("tornado",)),
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
    module, _, function = COMMANDS[name][0].partition(":")
    lack = _lack(name, module)
    if lack:
        print(f"pillion: {lack}", file=sys.stderr)
        return 2
    if name in LEAN:
        tls.keep_out()
        late.put_off(*late.SELDOM)
    run: Callable[[list[str]], int] = getattr(import_module(module), function or "main")
    return run(argv[1:])


def _lack(name: str, module: str) -> str:
    """Return what a command lacks here and how to get it, or nothing."""
    package = module.partition(".")[0]
    if find_spec(package) is None:
        return f"{name} is not part of this image; it lacks the package {package}"
    extra, modules = EXTRAS.get(module) or EXTRAS.get(package, ("", ()))
    missing = [needed for needed in modules if not _is_here(needed)]
    return f"{name} lacks {' and '.join(missing)}: pip install 'pillion[{extra}]'" if missing else ""


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # so says `find_spec("a.b")` where there is no `a`
        return False


def usage() -> str:
    """Return the list of commands."""
    rows = "\n".join(f"  {name:12} {what}" for name, (_, what) in COMMANDS.items())
    return f"usage: pillion COMMAND [options]\n\n{rows}\n\n`pillion COMMAND --help` tells its options."
