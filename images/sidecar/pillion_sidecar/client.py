"""The commands that ask the sidecar beside an app: `pillion lookup`, `wait`, `status` and `drain`. On the standard library alone.

For entry points, init containers, health checks and people: `pillion wait LogService Db:2 --timeout 60` exits 0 once all are there.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pillion_common.config import parse_duration
from pillion_common.lifecycle import EXIT_CONFIG, EXIT_FAILED, EXIT_OK

DEFAULT_LOCAL = "127.0.0.1:7071"
ANSWER_S = 10.0
SLICE_S = 20.0  # of one waiting request; a sidecar that is restarted meanwhile is asked again
RETRY_S = 0.25


class Unreachable(Exception):
    """The sidecar did not answer."""


Command = Callable[[list[str]], int]


def _command(run: Command) -> Command:
    """Let a command say that no sidecar answered, and fail."""

    @functools.wraps(run)
    def guarded(argv: list[str]) -> int:
        try:
            return run(argv)
        except Unreachable as exc:
            print(f"pillion {run.__name__}: {exc}", file=sys.stderr)
            return EXIT_FAILED

    return guarded


@_command
def lookup(argv: list[str]) -> int:
    """Print the URL of one provider, or of all."""
    parser = _parser("lookup", "Prints the URL of one provider that is up, chosen by the sidecar; exit code 1 if there is none.")
    parser.add_argument("name", help="the service's name")
    parser.add_argument("--all", action="store_true", help="print all of them, one a line")
    parser.add_argument("--strategy", help="random, round-robin, weighted, least-recent, hash or zone")
    parser.add_argument("--key", help="for the strategy hash")
    parser.add_argument("--tag", help="only providers with this tag")
    parser.add_argument("--version", help="only providers of this version")
    parser.add_argument("--wait", default="0", metavar="TIME", help="wait for one, e.g. 30s (default 0)")
    words = parser.parse_args(argv)
    query = {key: value for key in ("strategy", "key", "tag", "version") if (value := getattr(words, key))}
    query |= {"format": "text", "wait": words.wait, **({"all": "1"} if words.all else {})}
    status, body = _ask(words.local, "GET", f"/providers/{quote(words.name, safe='')}?{urlencode(query)}", _seconds(parser, words.wait))
    if status == 200:
        print(body, end="")
        return EXIT_OK if body else EXIT_FAILED
    return _refused(body)


@_command
def wait(argv: list[str]) -> int:
    """Wait until services are there."""
    parser = _parser("wait", "Waits until services are there: exit code 0, or 1 with what is missing. Db:2 means two of it.")
    parser.add_argument("names", nargs="+", metavar="NAME[:COUNT]")
    parser.add_argument("--timeout", default="60", metavar="TIME", help="longest wait, e.g. 90s or 2m (default 60)")
    words = parser.parse_args(argv)
    timeout_s = _seconds(parser, words.timeout)
    ends = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, ends - time.monotonic())
        slice_s = min(left_s, SLICE_S)
        try:
            query = urlencode({"for": ",".join(words.names), "timeout": f"{slice_s:.3f}"})
            status, body = _ask(words.local, "GET", f"/wait?{query}", slice_s)
        except Unreachable as exc:
            if left_s <= 0:
                raise
            missing = str(exc)
            time.sleep(min(RETRY_S, left_s))  # the sidecar may be starting still
            continue
        if status == 200:
            return EXIT_OK
        if status != 504:
            return _refused(body)
        if time.monotonic() >= ends:
            missing = ", ".join(f"{name} ({what})" for name, what in _json(body).get("Missing", {}).items())
            print(f"pillion wait: still missing after {timeout_s:g} s: {missing}", file=sys.stderr)
            return EXIT_FAILED


@_command
def status(argv: list[str]) -> int:
    """Print how the sidecar stands."""
    parser = _parser("status", "Prints how the sidecar and its app stand, as JSON; exit code 1 while it is not ready.")
    words = parser.parse_args(argv)
    _, told = _ask(words.local, "GET", "/status")
    ready, body = _ask(words.local, "GET", "/readyz")
    print(json.dumps({**_json(told), "Ready": ready == 200, "Checks": _json(body).get("Checks")}, indent=2, ensure_ascii=False))
    return EXIT_OK if ready == 200 else EXIT_FAILED


@_command
def drain(argv: list[str]) -> int:
    """Withdraw the app, which goes on working."""
    parser = _parser("drain", "Withdraws the app beside the sidecar and waits until its dependents know; it goes on working.")
    parser.add_argument("--undo", action="store_true", help="let it come back")
    words = parser.parse_args(argv)
    code, body = _ask(words.local, "POST", "/undrain" if words.undo else "/drain", 300.0)
    if code != 200:
        return _refused(body)
    told = _json(body)
    waiting = told.get("Waiting") or []
    if words.undo:
        print("it is let back; the registry offers it again once a check has passed")
    elif told.get("Acknowledged") is None:
        print("withdrawn; the registry does not say who knows")
    else:
        print(f"withdrawn; {told['Acknowledged']} dependents know" + (f", {len(waiting)} have not answered" if waiting else ""))
    return EXIT_FAILED if waiting else EXIT_OK


def _parser(command: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"pillion {command}", description=what, allow_abbrev=False)
    default = os.environ.get("PILLION_URL") or DEFAULT_LOCAL
    text = f"the sidecar's local listener (env PILLION_URL; default {DEFAULT_LOCAL})"
    parser.add_argument("--local", default=default, metavar="HOST:PORT", help=text)
    return parser


def _seconds(parser: argparse.ArgumentParser, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as exc:
        parser.error(f"{text!r} {exc}")


def _ask(local: str, method: str, target: str, within_s: float = 0.0) -> tuple[int, str]:
    """Return the status and the body of an answer.

    Raises:
        Unreachable: there was none.
    """
    parts = urlsplit(local if "//" in local else f"http://{local}")
    try:
        connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 7071, timeout=within_s + ANSWER_S)
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
    except (OSError, ValueError, HTTPException) as exc:
        raise Unreachable(f"no sidecar answers at {local}: {exc}; is it running, or is its --local another?") from exc


def _json(body: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _refused(body: str) -> int:
    said = _json(body)
    print(f"pillion: {said.get('Message') or body.strip()}", file=sys.stderr)
    return EXIT_CONFIG if str(said.get("Error", "")).startswith(("invalid", "unknown", "out_of")) else EXIT_FAILED
