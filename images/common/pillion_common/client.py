"""The commands that ask the registry: `pillion services`, `why`, `events`, `drain`, `hide` and `forget`. On the standard library alone, and
in every image: where a sidecar is, its PILLION_REGISTRY says which registry is meant.

Tables for people, `--json` for programs. What a registry tells was said by others: it is made printable before it reaches a terminal.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pillion_common.config import parse_duration
from pillion_common.lifecycle import EXIT_CONFIG, EXIT_FAILED, EXIT_OK

DEFAULT_REGISTRY = "http://127.0.0.1:3000"
ANSWER_S = 10.0
MAX_DRAIN_S = 300.0
DRAIN_SLACK_S = 15.0
MAX_ANSWER_BYTES = 64 * 2**20


class Failed(Exception):
    """The command cannot be done; carries what to say."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


Command = Callable[[list[str]], int]


def _command(run: Command) -> Command:
    @functools.wraps(run)
    def guarded(argv: list[str]) -> int:
        try:
            return run(argv)
        except Failed as exc:
            print(f"pillion {run.__name__}: {exc}", file=sys.stderr)
            return exc.code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains when it flushes
            return EXIT_OK

    return guarded


@_command
def services(argv: list[str]) -> int:
    """List what is registered."""
    parser = _parser("services", "Lists the instances that are registered, or those of one service, with states and reasons.")
    parser.add_argument("name", nargs="?", help="only this service; exit code 1 if it was never registered")
    for name, what in (("state", "in this state"), ("tag", "with this tag"), ("zone", "in this zone")):
        parser.add_argument(f"--{name}", help=f"only instances {what}")
    parser.add_argument("--at", metavar="TIME", help="as it was at a moment, such as 2026-01-31T14:03:00Z; needs a name")
    words = parser.parse_args(argv)
    if words.at and not words.name:
        parser.error("--at needs a name")
    query = {key: value for key in ("state", "tag", "zone", "at") if (value := getattr(words, key))}
    told = _get(words, "/services" + (f"/{quote(words.name, safe='')}" if words.name else ""), query)
    if words.json:
        return _print_json(told)
    listed = [{"ServiceName": told["Name"], **one} for one in told["Instances"]] if words.at else told["Services"]
    told = [{**one, "Reason": one["Reason"] or one.get("Suspect")} for one in listed]
    rows = [[one[key] for key in ("ServiceName", "State", "ServiceURL", "Since", "Reason", "InstanceID")] for one in told]
    _print_table(("SERVICE", "STATE", "URL", "SINCE", "REASON", "ID"), sorted(rows, key=lambda row: (str(row[0]).lower(), str(row[2]))))
    return EXIT_OK


@_command
def why(argv: list[str]) -> int:
    """Say why a consumer does or does not see a service."""
    parser = _parser("why", "Says why a consumer does or does not see a service, the likeliest reason first; exit code 1 if it does not.")
    parser.add_argument("consumer", help="the service, or the id of the instance, that should see it")
    parser.add_argument("service", help="the name of what it should see")
    words = parser.parse_args(argv)
    told = _get(words, "/why", {"consumer": words.consumer, "service": words.service})
    if words.json:
        _print_json(told)
    else:
        for number, one in enumerate(told["Findings"], 1):
            error = f"\n   last error: {_clean(one['LastError'])}" if one["LastError"] else ""
            ids = f"\n   instances: {', '.join(map(_clean, one['Instances']))}" if one["Instances"] else ""
            warning = "warning: " if one["Warning"] else ""
            print(f"{number}. {warning}{_clean(one['Text'])}{error}{ids}\n   {_clean(one['Do'])}")
    return EXIT_OK if told["Findings"][0]["Code"] == "fine" else EXIT_FAILED


@_command
def events(argv: list[str]) -> int:
    """List what happened."""
    parser = _parser("events", "Lists what happened: who registered, came up, went down and why, was drained, and by whom.")
    parser.add_argument("--since", help="after the event with this number, or from a time on; else the newest")
    parser.add_argument("--name", help="only this service")
    parser.add_argument("--limit", help="most events (default 100)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens; --json prints one a line")
    words = parser.parse_args(argv)
    query = {key: value for key in ("since", "name", "limit") if (value := getattr(words, key))}
    if words.follow:
        return _follow(words, query)
    told = _get(words, "/events", query)
    if words.json:
        return _print_json(told)
    rows = [(one["Time"], one["Event"], one["Service"], one["ServiceURL"], one["Reason"], one["By"]) for one in told["Events"]]
    _print_table(("TIME", "EVENT", "SERVICE", "URL", "REASON", "BY"), rows)
    return EXIT_OK


@_command
def drain(argv: list[str]) -> int:
    """Withdraw an instance by its id, or without one the app beside this sidecar."""
    parser = _parser("drain", "Withdraws an instance, which goes on working, and waits until its dependents know.", writes=True)
    parser.add_argument("id", nargs="?", help="the instance's id (pillion services); without it the app beside this sidecar is meant")
    parser.add_argument("--undo", action="store_true", help="let it come back")
    parser.add_argument("--timeout", metavar="TIME", help="longest wait for the dependents, such as 10s (default: the registry's)")
    parser.add_argument("--local", metavar="HOST:PORT", help="without an id: the sidecar's local listener")
    words = parser.parse_args(argv)
    if words.id is None:
        return _drain_beside(words)
    if words.undo:
        told = _post(words, words.id, "undrain", {})
        return _done(words, told, f"{words.id} is let back; it is offered again once a check has passed")
    timeout_s = _seconds(parser, words.timeout) if words.timeout else None
    told = _post(words, words.id, "drain", {"Timeout": timeout_s}, (MAX_DRAIN_S if timeout_s is None else timeout_s) + DRAIN_SLACK_S)
    waiting = told["Waiting"]
    late = f"; {len(waiting)} have not acknowledged: {', '.join(map(_clean, waiting))}" if waiting else ""
    _done(words, told, f"{words.id} is withdrawn; {told['Acknowledged']} dependents know{late}")
    return EXIT_FAILED if waiting else EXIT_OK


@_command
def hide(argv: list[str]) -> int:
    """Withdraw a healthy instance for a while."""
    parser = _parser("hide", "Withdraws a healthy instance for a while, to see how its dependents bear it.", writes=True)
    parser.add_argument("id", help="the instance's id (pillion services)")
    parser.add_argument("time", help="how long, such as 30s; at most 1h")
    words = parser.parse_args(argv)
    told = _post(words, words.id, "hide", {"Seconds": _seconds(parser, words.time)})
    return _done(words, told, f"{words.id} is {_clean(told['Reason'])}")


@_command
def forget(argv: list[str]) -> int:
    """Remove an instance from the registry."""
    parser = _parser("forget", "Removes an instance from the registry. One that lives registers again.", writes=True)
    parser.add_argument("id", help="the instance's id (pillion services)")
    words = parser.parse_args(argv)
    return _done(words, _post(words, words.id, "forget", {}), f"{words.id} is forgotten")


# Words.


def _parser(command: str, what: str, writes: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"pillion {command}", description=what, allow_abbrev=False)
    default = os.environ.get("PILLION_REGISTRY") or DEFAULT_REGISTRY
    text = f"the registry's URL; of several, comma-separated, the first that answers (env PILLION_REGISTRY; default {DEFAULT_REGISTRY})"
    parser.add_argument("--registry", default=default, metavar="URL", help=text)
    parser.add_argument("--json", action="store_true", help="print the registry's answer as JSON")
    if writes:
        token = os.environ.get("PILLION_TOKEN_FILE", "")
        parser.add_argument("--token-file", default=token, metavar="FILE", help="file with the shared token (env PILLION_TOKEN_FILE)")
        parser.add_argument("--reason", default="", help="why, for the journal")
        name = os.environ.get("USER", "")
        parser.add_argument("--by", default=name, help="who does it, for the journal (default: USER)")
    return parser


def _seconds(parser: argparse.ArgumentParser, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as exc:
        parser.error(f"{text!r} {exc}")


def _drain_beside(words: argparse.Namespace) -> int:
    if find_spec("pillion_sidecar") is None:
        raise Failed("give the id of an instance (pillion services); there is no sidecar in this image", EXIT_CONFIG)
    argv = (["--undo"] if words.undo else []) + (["--local", words.local] if words.local else [])
    beside: Command = import_module("pillion_sidecar.client").drain
    return beside(argv)


# Asking.


def _get(words: argparse.Namespace, path: str, query: dict[str, str]) -> Any:
    target = f"{path}?{urlencode(query)}" if query else path
    return _read(_ask(words, "GET", target, {}, None, ANSWER_S))


def _post(words: argparse.Namespace, instance_id: str, what: str, body: dict[str, Any], within_s: float = ANSWER_S) -> Any:
    body = {key: value for key, value in {**body, "Reason": words.reason, "By": words.by}.items() if value not in (None, "")}
    headers = {"Content-Type": "application/json"}
    if words.token_file:
        try:
            with open(words.token_file, encoding="ascii") as file:
                headers["Authorization"] = f"Bearer {file.read().strip()}"
        except (OSError, UnicodeDecodeError) as exc:
            raise Failed(f"the token file {words.token_file} cannot be read: {exc}", EXIT_CONFIG) from exc
    return _read(_ask(words, "POST", f"/services/{quote(instance_id, safe='')}/{what}", headers, json.dumps(body), within_s))


def _ask(words: argparse.Namespace, method: str, target: str, headers: dict[str, str], body: str | None, within_s: float) -> HTTPResponse:
    """Return the answer of the first registry that gives one.

    Raises:
        Failed: none does.
    """
    fault = "no registry is named; give --registry URL"
    for url in filter(None, (part.strip() for part in words.registry.split(","))):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
            connection = kind(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), timeout=within_s)
            connection.request(method, target, body, headers)
            return connection.getresponse()
        except (OSError, ValueError, HTTPException) as exc:
            fault = f"no registry answers at {url}: {exc}; is it running, or is its --registry another?"
    raise Failed(fault)


def _read(answer: HTTPResponse) -> Any:
    """Return what was answered.

    Raises:
        Failed: an error, or no JSON.
    """
    with answer:
        try:
            said = json.loads(answer.read(MAX_ANSWER_BYTES))
        except (OSError, ValueError, HTTPException) as exc:
            raise Failed(f"the registry's answer cannot be read: {exc}") from exc
    if answer.status != 200:
        message = said.get("Message") if isinstance(said, dict) else None
        raise Failed(_clean(message or f"the registry answered {answer.status}"), EXIT_CONFIG if answer.status == 400 else EXIT_FAILED)
    return said


def _follow(words: argparse.Namespace, query: dict[str, str]) -> int:
    last = ""
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        answer = _ask(words, "GET", f"/events?{urlencode(query)}", headers, None, 60.0)
        if answer.status != 200:
            _read(answer)
        with answer:
            try:
                for line in iter(answer.readline, b""):
                    key, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
                    if key == "id":
                        last = value
                    elif key == "data":
                        _print_event(value, words.json)
            except (OSError, HTTPException):
                pass  # it is asked again: where it was
            except KeyboardInterrupt:
                return EXIT_OK


def _print_event(data: str, as_json: bool) -> None:
    if as_json:
        print(data, flush=True)
        return
    one = json.loads(data)
    where = " at ".join(part for part in (one["Service"], one["ServiceURL"]) if part) or "the registry"
    reason = f": {one['Reason']}" if one["Reason"] else ""
    by = f" (by {one['By']})" if one["By"] else ""
    print(_clean(f"{one['Time']}  {one['Event']:10}  {where}{reason}{by}"), flush=True)


# Printing.


def _print_json(told: Any) -> int:
    print(json.dumps(told, indent=2, ensure_ascii=False))
    return EXIT_OK


def _done(words: argparse.Namespace, told: Any, text: str) -> int:
    return _print_json(told) if words.json else print(_clean(text)) or EXIT_OK


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print columns as wide as what stands in them."""
    lines = [tuple(head), *(tuple(_clean(cell or "-") for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _clean(text: str) -> str:
    """Return the text without what would command a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
