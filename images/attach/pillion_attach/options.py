"""The words of `pillion attach` and `pillion detach`, and what both do with the errors that come of them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pillion_attach.facts import DEFAULT_IMAGE, DEFAULT_REGISTRY, Token, Wishes
from pillion_common import keys, lifecycle
from pillion_common.errors import ConfigError, PillionError

READY_S = 60.0
MAX_READY_S = 3600.0


def attach_parser() -> argparse.ArgumentParser:
    """Return the parser of `pillion attach`."""
    parser = argparse.ArgumentParser(
        prog="pillion attach", description="Puts a sidecar beside an app that is there already.", allow_abbrev=False
    )
    ways = parser.add_subparsers(dest="way", metavar="compose|docker", required=True)
    compose = ways.add_parser("compose", help="services of a compose file: writes an override file beside it", allow_abbrev=False)
    compose.add_argument("file", metavar="FILE", type=Path, help="the compose file; it is never changed")
    compose.add_argument("services", metavar="SERVICE", nargs="+", help="the services to attach to")
    _add_output(compose)
    _add_wishes(compose)
    container = ways.add_parser("docker", help="a running container: starts a sidecar in its network", allow_abbrev=False)
    container.add_argument("container", metavar="CONTAINER", help="the container's name or id")
    container.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=READY_S, help=f"how long to wait until it is ready; default {READY_S:g}"
    )
    _add_wishes(container)
    return parser


def detach_parser() -> argparse.ArgumentParser:
    """Return the parser of `pillion detach`."""
    parser = argparse.ArgumentParser(prog="pillion detach", description="Takes off what `pillion attach` has put on.", allow_abbrev=False)
    ways = parser.add_subparsers(dest="way", metavar="compose|docker", required=True)
    compose = ways.add_parser("compose", help="services of a compose file", allow_abbrev=False)
    compose.add_argument("file", metavar="FILE", type=Path, help="the compose file; it is never changed")
    compose.add_argument("services", metavar="SERVICE", nargs="+", help="the services to detach from")
    _add_output(compose)
    container = ways.add_parser("docker", help="a container; the word `docker` may be left out", allow_abbrev=False)
    container.add_argument("container", metavar="CONTAINER", help="the container's name or id")
    for way in (compose, container):
        _add_dry_run(way)
    return parser


def wishes_of(words: argparse.Namespace) -> Wishes:
    """Return what the user said.

    Raises:
        ConfigError: the token file is not there.
    """
    given = {key.option: getattr(words, key.option).strip() for key in keys.KEYS if getattr(words, key.option) is not None}
    token = None
    if words.no_token:
        token = Token("none")
    elif words.token_volume:
        token = Token("volume", words.token_volume)
    elif words.token_file:
        if not words.token_file.is_file():
            raise ConfigError([f"--token-file {words.token_file} is not a file; `pillion token PATH` makes one"])
        if not _readable(words.token_file):
            say_aside(
                f"--token-file {words.token_file}: the sidecar runs as user 10001, who may not read it: chown 10001 {words.token_file}"
            )
        token = Token("file", str(words.token_file))
    return Wishes(
        {option: text for option, text in given.items() if text}, words.registry.strip(), words.network, token, words.image.strip()
    )


def run(program: str, do: Callable[[], int]) -> int:
    """Run a command and turn what goes wrong into words and an exit code: 0 done, 1 failed, 2 refused."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return do()
    except ConfigError as exc:
        return lifecycle.refuse(program, exc)
    except PillionError as exc:
        print(f"pillion {program}: {exc.message}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"pillion {program}: interrupted", file=sys.stderr)
    return lifecycle.EXIT_FAILED


def say(text: str) -> None:
    """Tell the user what is done."""
    print(text, flush=True)


def say_aside(text: str) -> None:
    """Tell the user something that is no part of the output proper."""
    print(text, file=sys.stderr, flush=True)


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    for key in keys.KEYS:
        parser.add_argument(f"--{key.option}", metavar="VALUE", help=f"{key.what} (label {key.label})")
    parser.add_argument("--registry", metavar="URL", default=DEFAULT_REGISTRY, help=f"as the app reaches it; default {DEFAULT_REGISTRY}")
    parser.add_argument(
        "--network", metavar="NAME", help="the network in which the registry is; default: that of the registry that runs here"
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token-volume", metavar="NAME", help="the volume that holds the shared token; default: that of the registry")
    token.add_argument("--token-file", metavar="PATH", type=Path, help="the file with the shared token; user 10001 must be able to read it")
    token.add_argument("--no-token", action="store_true", help="the registry demands no token")
    parser.add_argument("--image", default=DEFAULT_IMAGE, help=f"the sidecar's image; default {DEFAULT_IMAGE}")
    _add_dry_run(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", type=Path, help="the override file; default docker-compose.pillion.yml beside FILE")


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")


def _readable(path: Path) -> bool:
    """Return whether the sidecar's user may read a file, going by its owner and mode."""
    facts = path.stat()
    return bool(
        facts.st_mode & 0o004 or (facts.st_uid == 10001 and facts.st_mode & 0o400) or (facts.st_gid == 10001 and facts.st_mode & 0o040)
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_READY_S:
        raise argparse.ArgumentTypeError(f"is not a number of seconds from 1 to {MAX_READY_S:g}")
    return value


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
