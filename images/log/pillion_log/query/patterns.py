"""How text is found in the bytes of many stored lines at once, and what regular expressions are here. Pure.

By RE2 (the package google-re2): its time is linear in what is searched, whatever the expression, and others may run meanwhile (it
releases the interpreter's lock). It is loaded at the first search. A plain text is found without it as well, only slower.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import msgspec

from pillion_common.errors import InvalidInput
from pillion_log.escapes import escape_json

MAX_MEMORY = 4 << 20  # of one expression

# Returns where in the bytes, from an offset on, there is something; -1: nowhere.
Finder = Callable[[bytes, int], int]
Test = Callable[[str], bool]

# Escapes of JSON by which a text can be written otherwise than this log does.
ODD_ESCAPES = rb"\\[u/]"
ESCAPES = rb"\\"

_BEGIN, _END, _NOTHING = '(?:"Message":")', '(?:")', "(?:)"
_REPEATS = ("*", "+", "?", "{")
_MESSAGE = '"Message":"[^"]*'  # from there on: what stands before it in each line (times, names) may look like what is looked for
_JUMPED_TO = 4  # characters that begin an expression, for which RE2 jumps from place to place
_ODD = re.compile(r"\\[AzZCQ]|\\[pP]\{\^")  # what does not mean the same between the quotes of a stored line
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_PIECE = re.compile(r"\\.|" + _CLASS.pattern + r"|[\^$]|.", re.DOTALL)


def stored_form(text: str) -> bytes:
    """Return a text as it stands inside a stored string."""
    return escape_json(msgspec.json.encode(text))[1:-1]


def literal(needle: bytes) -> Finder:
    """Return what finds a text as it is."""
    if (re2 := _load()) is None:
        return lambda data, start: data.find(needle, start)
    return _finder(_compile(re2, re2.escape(needle)))


def one_of(needles: Sequence[bytes]) -> Finder | None:
    """Return what finds any of some texts, or None if that would be no help."""
    if len(needles) == 1:
        return literal(needles[0])
    re2 = _load()
    return _finder(_compile(re2, b"|".join(map(re2.escape, needles)))) if re2 else None


def escapes(pattern: bytes) -> Finder:
    """Return what finds ODD_ESCAPES or ESCAPES."""
    if (re2 := _load()) is None:
        return lambda data, start: data.find(b"\\", start)
    return _finder(_compile(re2, pattern))


def text_test(text: str, any_case: bool) -> tuple[Test, list[Finder]]:
    """Return what a message is tested by for a text, and what finds each line that may pass.

    Raises:
        InvalidInput: the case cannot be ignored here.
    """
    if not any_case:
        return (lambda message: text in message), [literal(stored_form(text)), escapes(ODD_ESCAPES)]
    re2 = _needed("i")
    exact = _compile(re2, b"(?i)" + re2.escape(text.encode("utf-8", "replace")))
    rough = _compile(re2, b"(?i)" + re2.escape(stored_form(text)))
    return _tester(exact), [_finder(rough), escapes(ODD_ESCAPES)]


def pattern_test(pattern: str, any_case: bool) -> tuple[Test, list[Finder] | None]:
    """Return what a message is tested by for a regular expression, and what finds each line that may pass; None: no short way.

    Raises:
        InvalidInput: it is not one.
    """
    re2 = _needed("re")
    flags = "(?i)" if any_case else ""
    try:
        exact = _compile(re2, f"{flags}(?:{pattern})".encode("utf-8", "replace"))
        _compile(re2, pattern.encode("utf-8", "replace"))  # nothing that is right only between those brackets
    except re2.error as exc:
        why = exc.args[0].decode("utf-8", "replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise InvalidInput(f"re is not a regular expression of RE2: {why[:200]}", code="invalid_query", field="re") from None
    within = _within_line(pattern, "?i:" if any_case else "?:")
    if within is None:
        return _tester(exact), None
    try:
        rough = _compile(re2, within.encode("utf-8", "replace"), never_nl=True)
    except re2.error:
        return _tester(exact), None
    return _tester(exact), [_finder(rough), escapes(ESCAPES)]


def _within_line(pattern: str, flags: str) -> str | None:
    """Return an expression that finds, in lines without any escape, at least all messages in which `pattern` is found.

    Args:
        flags: the beginning of a group, `?i:` or `?:`.

    A `^` that begins it and a `$` that ends it are the message's quotes; elsewhere they are left out, so that more is found. None: this
    expression is not of the kind for which that is so.
    """
    if _ODD.search(pattern):
        return None
    pieces = _PIECE.findall(pattern)
    begins = pieces[:1] == ["^"] and (len(pieces) == 1 or pieces[1] not in _REPEATS)
    ends = len(pieces) > 1 and pieces[-1] == "$"
    within = [_NOTHING if piece in ("^", "$") else piece for piece in pieces]
    if begins:
        within[0] = _BEGIN
    if ends:
        within[-1] = _END
    anywhere = f"({flags}{''.join(within)})"
    return anywhere if begins or _begins_plainly(pieces) else _MESSAGE + anywhere


def _begins_plainly(pieces: list[str]) -> bool:
    """Return whether a match can only begin with some characters that are known: such places are found quicker in whole lines."""
    plain = [piece.isalnum() or piece in " -_=/:,;@#%&<>~!" for piece in pieces[: _JUMPED_TO + 1]]
    longer = len(plain) > _JUMPED_TO and pieces[_JUMPED_TO] in _REPEATS  # then the last of them need not be there
    return len(plain) >= _JUMPED_TO and all(plain[:_JUMPED_TO]) and not longer and "|" not in pieces


@functools.cache
def _load() -> Any:
    try:
        return import_module("re2")
    except ImportError:
        return None


def _needed(parameter: str) -> Any:
    re2 = _load()
    if re2 is None:
        raise InvalidInput(
            f"{parameter} needs the package google-re2, which this log service does not have; search by q",
            code="not_installed",
            field=parameter,
        )
    return re2


def _compile(re2: Any, pattern: bytes, never_nl: bool = False) -> Any:
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.never_capture = True
    options.log_errors = False
    options.never_nl = never_nl
    compiled = re2.compile(pattern, options)
    re2.purge()  # else it would keep 128 of them
    return compiled


def _finder(compiled: Any) -> Finder:
    search = compiled.search

    def find(data: bytes, start: int) -> int:
        found = search(data, start)
        return found.start() if found is not None else -1

    return find


def _tester(compiled: Any) -> Test:
    search = compiled.search
    return lambda message: search(message.encode("utf-8", "replace")) is not None
