"""`pillion logs`: shows the log on a terminal, and follows it. On the standard library alone, so that every image has it.

pillion logs GradingService -f --level warning,error
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit

from pillion_common.lifecycle import EXIT_CONFIG, EXIT_FAILED, EXIT_OK

DEFAULT_LOG = "http://127.0.0.1:4000"
DEFAULT_SIDECAR = "127.0.0.1:7071"
DEFAULT_LINES = 100
MAX_LINES = 10_000
ANSWER_S = 30.0  # a query searches for ten seconds at most, and a tail says something every fifteen
LOOK_UP_S = 2.0
RETRY_S = 1.0

_PLAIN, _DIM, _RED, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m"
_COLOURS = {"error": _RED, "fatal": _RED, "critical": _RED, "warning": _YELLOW, "warn": _YELLOW, "debug": _DIM, "trace": _DIM}

Show = Callable[[str], None]


class Refused(Exception):
    """The log service answers that it will not, or cannot to the end."""

    def __init__(self, status: int, body: bytes | str) -> None:
        try:
            message = str(json.loads(body)["Message"])
        except (ValueError, KeyError, TypeError):
            message = "it gives no reason"
        super().__init__(f"the log service answers {status}: {shown(message)}")
        self.status = status


def main(argv: list[str]) -> int:
    """Show the log; returns the exit code."""
    parser = _parser()
    words = parser.parse_args(argv)
    if words.follow and words.until:
        parser.error("--until has no sense with -f")
    if words.lines is not None and not 0 <= words.lines <= MAX_LINES:
        parser.error(f"-n is a number from 0 to {MAX_LINES}; for more use --since")
    url = words.log or os.environ.get("PILLION_LOG") or _from_sidecar() or DEFAULT_LOG
    show: Show = print if words.json else _Lines(sys.stdout.isatty() and not os.environ.get("NO_COLOR")).show
    try:
        _follow(url, words, show) if words.follow else _show_pages(url, words, show)
        sys.stdout.flush()
    except Refused as exc:
        return _failed(str(exc), EXIT_CONFIG if exc.status == 400 else EXIT_FAILED)
    except BrokenPipeError:  # `pillion logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed there at the end
    except (OSError, ValueError, HTTPException) as exc:
        return _failed(f"no log service answers at {url}: {exc}; is it running, or is its --log another?", EXIT_FAILED)
    except KeyboardInterrupt:
        pass
    return EXIT_OK


def shown(text: str) -> str:
    """Return one line of text with each character shown as its escape that is no letter, mark, sign or space."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode() for char in text
    )


class _Lines:
    """Shows entries as lines of text."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def show(self, line: str) -> None:
        """Print an entry, given as JSON."""
        try:
            entry: dict[str, Any] = json.loads(line)
            time_, service, level, message = (shown(str(entry.get(name, ""))) for name in ("Time", "Service", "Level", "Message"))
        except (ValueError, AttributeError):
            print(shown(line))  # not an entry: shown as it is rather than not at all
            return
        if not self._colours:
            print(f"{time_} {service} {level:5} {message}")
            return
        colour = _COLOURS.get(level, "")
        print(f"{_DIM}{time_}{_PLAIN} {service} {colour}{level:5} {message}{_PLAIN}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pillion logs", description="Shows the log of some services, or of all.", allow_abbrev=False)
    parser.add_argument("services", nargs="*", metavar="SERVICE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, also over a restart of the log service")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help=f"the newest N (default {DEFAULT_LINES}, with --since all)")
    parser.add_argument("--since", metavar="TIME", help="a time ago such as 5m, or a time such as 2026-01-31T12:00:00Z")
    parser.add_argument("--until", metavar="TIME", help="the same; not with -f")
    parser.add_argument("--level", metavar="LEVELS", help="e.g. warning,error")
    parser.add_argument("--instance", metavar="IDS", help="only these instances, comma-separated")
    parser.add_argument("--grep", metavar="TEXT", dest="q", help="only messages with this text in them")
    parser.add_argument("--re", metavar="EXPRESSION", help="only messages in which this regular expression (RE2) is found")
    parser.add_argument("-i", "--ignore-case", dest="i", action="store_const", const="1", help="for --grep and --re")
    parser.add_argument("--events", dest="with", action="store_const", const="events", help="with what the registry said of them")
    parser.add_argument("--json", action="store_true", help="entries as they are stored, one a line")
    parser.add_argument(
        "--log",
        metavar="URL",
        help=f"the log service (env PILLION_LOG; default: the sidecar's LogService, else {DEFAULT_LOG})",
    )
    return parser


def _parameters(words: argparse.Namespace) -> dict[str, str]:
    given = {name: value for name in ("since", "until", "level", "instance", "q", "re", "i", "with") if (value := getattr(words, name))}
    return given | ({"service": ",".join(words.services)} if words.services else {})


def _show_pages(url: str, words: argparse.Namespace, show: Show) -> None:
    """Show what there is, page by page."""
    if words.since and words.lines is None:
        for line in _forth(url, _parameters(words)):
            show(line)
        return
    left = DEFAULT_LINES if words.lines is None else words.lines
    pages: list[list[str]] = []
    cursor: str | None = ""
    while left and cursor is not None:  # a page with less may have a cursor: its search took too long
        lines, cursor = _page(url, _parameters(words) | {"limit": str(left)} | ({"cursor": cursor} if cursor else {}))
        pages.append(lines)
        left -= len(lines)
    for page in reversed(pages):
        for line in page:
            show(line)


def _forth(url: str, parameters: dict[str, str]) -> Iterator[str]:
    """Return all lines there are, oldest first."""
    start = {"from": "oldest"}
    while True:
        lines, cursor = _page(url, parameters | start | {"limit": str(MAX_LINES)})
        yield from lines
        if cursor is None or cursor == start.get("cursor"):
            return
        start = {"cursor": cursor}


def _page(url: str, parameters: dict[str, str]) -> tuple[list[str], str | None]:
    """Return a page and where the next one begins; None: there is none."""
    connection, answer = _open(url, f"/logs?{urlencode(parameters)}", {"Accept": "application/x-ndjson"}, ANSWER_S)
    try:
        lines = answer.read().decode("utf-8", "replace").splitlines()
    finally:
        connection.close()
    if lines and lines[-1].startswith('{"Error":"') and not lines[-1].startswith('{"Error":"not_done"'):
        raise Refused(answer.status, lines[-1])
    return [line for line in lines if not line.startswith('{"Error":"')], answer.headers.get("X-Pillion-Cursor")


def _follow(url: str, words: argparse.Namespace, show: Show) -> None:
    """Show what comes, for ever. Whatever cuts the connection: it goes on after the last entry shown."""
    parameters = _parameters(words)
    if words.lines is not None or not words.since:
        parameters["last"] = str(DEFAULT_LINES if words.lines is None else words.lines)
    seen = ""
    cut = False
    while True:
        try:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": seen} if seen else {})}
            connection, answer = _open(url, f"/logs/tail?{urlencode(parameters)}", headers, ANSWER_S)
            try:
                cut = _say(cut, "", "it is there again")
                for kind, number, data in _events(answer):
                    seen = number or seen
                    if kind == "gap":
                        _tell(_gap(data))
                    elif kind == "store":
                        _tell(_store(data))
                    elif data:
                        show(data)
                        sys.stdout.flush()
            finally:
                connection.close()
        except Refused as exc:
            if exc.status != 503:
                raise
        except (HTTPException, ConnectionError, TimeoutError) as exc:
            if isinstance(exc, BrokenPipeError) or not seen:
                raise
        cut = _say(cut, "the log service has gone; trying again", "")
        time.sleep(RETRY_S)


def _events(answer: HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """Return server-sent events: kind, id, data."""
    fields: dict[str, str] = {}
    while line := answer.readline():
        text = line.decode("utf-8", "replace").rstrip("\n")
        if not text:
            if fields:
                yield fields.get("event", ""), fields.get("id", ""), fields.get("data", "")
            fields = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value


def _gap(data: str) -> str:
    told = json.loads(data)
    missed = told.get("Missed")
    what = "an unknown number of entries" if missed is None else f"{missed} entries"
    return f"{what} were not sent; to see them: GET /logs?cursor={shown(str(told.get('Cursor')))}"


def _store(data: str) -> str:
    fault = json.loads(data).get("Fault")
    return "the log takes entries again" if fault is None else f"nothing new can come: {shown(str(fault))}"


def _open(url: str, target: str, headers: dict[str, str], timeout_s: float) -> tuple[HTTPConnection, HTTPResponse]:
    """Ask; returns an answer of status 200 that is still to be read, and its connection.

    Raises:
        Refused: the answer is another. OSError, HTTPException: there is none.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http":
        raise ValueError(f"{parts.scheme} is not spoken here, only http")
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 4000, timeout=timeout_s)
    try:
        connection.request("GET", parts.path.rstrip("/") + target, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(answer.status, answer.read())
    except BaseException:
        connection.close()
        raise
    return connection, answer


def _from_sidecar() -> str | None:
    """Return the log service that the sidecar beside us knows, if there is a sidecar and it knows one."""
    local = os.environ.get("PILLION_URL") or DEFAULT_SIDECAR
    try:
        connection, answer = _open(local, "/providers/LogService?format=text", {}, LOOK_UP_S)
        try:
            return answer.read().decode().strip() or None
        finally:
            connection.close()
    except (Refused, OSError, ValueError, HTTPException):
        return None


def _say(cut: bool, gone: str, back: str) -> bool:
    """Tell once that the log service has gone, and once that it is back; returns whether it has gone."""
    if gone and not cut:
        _tell(gone)
    if back and cut:
        _tell(back)
    return bool(gone)


def _tell(what: str) -> None:
    print(f"pillion logs: {what}", file=sys.stderr, flush=True)


def _failed(why: str, code: int) -> int:
    _tell(why)
    return code
