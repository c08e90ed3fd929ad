"""What a key's text may be, and what an app is called that says no name. Pure; for whatever puts a sidecar beside an app."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pillion_common.config import parse_count, parse_names
from pillion_common.errors import InvalidInput
from pillion_common.names import check_name

MAX_VALUE_CHARS = 1000

_CHECK = re.compile(r"tcp|none|[a-z]+:.+")


def name_of(text: str) -> str:
    """Return a service name in the form of the others: `grading-service` is GradingService."""
    return "".join(part[0].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", text) if part)


def fault_of(option: str, text: str) -> str:
    """Return why this is no text for a key, as what follows the quoted text; empty if it is one."""
    try:
        _check(option, text)
    except (ValueError, InvalidInput) as exc:
        reason = str(exc)
        return reason[reason.index("is no name") :] if "is no name" in reason else reason
    return ""


def nearest(word: str, names: Iterable[str]) -> str:
    """Return `; did you mean …?` for a word that is not among the names, or what there is."""
    known = sorted(names)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known[:20])}{' and more' if len(known) > 20 else ''}" if known else "; there are none"


def _check(option: str, text: str) -> None:
    if len(text) > MAX_VALUE_CHARS or not text.isprintable():
        raise ValueError(f"is longer than {MAX_VALUE_CHARS} characters or has characters that cannot be shown")
    if option == "name":
        check_name(text, "name")
    elif option == "port":
        parse_count(1, 65535)(text)
    elif option == "weight":
        parse_count(1, 1000)(text)
    elif option == "requires":
        for part in parse_names(text):
            name, _, count = part.partition(":")
            check_name(name, "requires")
            if count:
                parse_count(1, 1000)(count)
    elif option == "check" and not _CHECK.fullmatch(text):
        raise ValueError("is not a check; use tcp, none, or http:/path")
