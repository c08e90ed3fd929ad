r"""Which lines are one: stack traces of Python, Java, Go and Node become one entry. Pure.

    Traceback (most recent call last):        java.lang.IllegalStateException: no
      File "app.py", line 3, in <module>          at shop.Cart.add(Cart.java:17)
        main()                                Caused by: java.io.IOException: gone
    ValueError: no                                ... 3 more

A trace begins with a line that looks like one; it goes on with lines that can only be inside of one; where a language has empty lines
inside, what follows those decides. A line that begins a trace is held until the next one comes, or until the caller ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

MAX_LINES = 1000  # of one entry; more begin another
MAX_CHARS = 60_000

T = TypeVar("T")


class _Language(NamedTuple):
    """How a language writes a trace. `last`: a line that still belongs to it, after which only an empty line and `resumed` do."""

    first: re.Pattern[str]
    inside: re.Pattern[str]
    resumed: re.Pattern[str] | None = None  # after an empty line
    last: re.Pattern[str] | None = None


_PYTHON_FIRST = r"\s*(?:[+|] )?\s*(?:Exception Group )?Traceback \(most recent call last\):\s*$"

LANGUAGES = {
    "python": _Language(
        first=re.compile(_PYTHON_FIRST),
        inside=re.compile(r"\s+\S|[+|]"),
        resumed=re.compile(rf"During handling of the above exception|The above exception was the direct cause|{_PYTHON_FIRST}"),
        last=re.compile(r"[A-Za-z_][\w.]*(?:: |:?$)"),
    ),
    "java": _Language(
        first=re.compile(r"(?:.*[\s:>(])?(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable|Failure)\b"),
        inside=re.compile(r"\s+at \S|\s*\.\.\. \d+ |\s*Caused by: |\s*Suppressed: |\s*\[CIRCULAR REFERENCE"),
    ),
    "go": _Language(
        first=re.compile(r"panic: |fatal error: |goroutine \d+ \[|.*\bpanic serving "),
        inside=re.compile(
            r"\t|goroutine \d+ \[|\[signal |created by |panic: |exit status \d+$|\.\.\.additional frames|r\w+ +0x|\S*\.\S*\(.*\)$"
        ),
        resumed=re.compile(r"goroutine \d+ \[|r\w+ +0x|exit status \d+$"),
    ),
    "node": _Language(
        first=re.compile(r"(?:.*\s)?[A-Z]\w*(?:Error|Exception)(?: \[\w+\])?(?:: |$)|(?:file://)?/\S+:\d+$"),
        inside=re.compile(r"\s+\S|\}"),
        resumed=re.compile(r"(?:Uncaught )?(?:\w*Error|\w*Exception)(?: \[\w+\])?(?:: |$)"),
    ),
}


class Joined(NamedTuple, Generic[T]):
    """One entry's text, where its last line stood, and whether it is a trace."""

    text: str
    place: T
    is_trace: bool


class TraceJoiner(Generic[T]):
    """Joins the lines of one stream.

    Args:
        languages: names in LANGUAGES; none joins nothing.
    """

    def __init__(self, languages: Iterable[str]) -> None:
        self._languages = [LANGUAGES[name] for name in languages]
        self._lines: list[str] = []
        self._chars = 0
        self._empty = 0  # empty lines after them, of which it is not known yet whether they belong to them
        self._candidates: list[_Language] = []  # what the trace can be; several until a line tells
        self._closed = False  # its `last` line has come
        self._place: T | None = None

    @property
    def holds(self) -> bool:
        """Return whether lines are held back."""
        return bool(self._lines)

    def feed(self, text: str, place: T) -> list[Joined[T]]:
        """Take a line; return what is whole now. Empty lines outside of traces are left out.

        Args:
            place: where it stands, for the caller.
        """
        if self._lines and self._goes_on(text, place):
            return []
        done = self.end()
        if not text.strip():
            return done
        self._candidates = [language for language in self._languages if language.first.match(text)]
        if not self._candidates:
            return [*done, Joined(text, place, False)]
        self._lines, self._chars, self._place = [text], len(text), place
        return done

    def end(self) -> list[Joined[T]]:
        """Take note that no more comes for now; return what was held back."""
        if not self._lines or self._place is None:
            return []
        joined = Joined("\n".join(self._lines), self._place, len(self._lines) > 1)
        self._lines, self._empty, self._closed, self._place = [], 0, False, None
        return [joined]

    def _goes_on(self, text: str, place: T) -> bool:
        """Take a line in, if it belongs to the trace that is held."""
        if len(self._lines) >= MAX_LINES or self._chars + len(text) > MAX_CHARS:
            return False
        if not text.strip():
            if not any(language.resumed for language in self._candidates):
                return False
            self._empty += 1
            return True
        if self._empty:
            left = [one for one in self._candidates if one.resumed and one.resumed.match(text)]
            closes = False
        else:
            left = [] if self._closed else [one for one in self._candidates if one.inside.match(text)]
            closes = not left and not self._closed and any(one.last and one.last.match(text) for one in self._candidates)
            left = [one for one in self._candidates if one.last and one.last.match(text)] if closes else left
        if not left:
            return False
        self._candidates, self._closed = left, closes
        self._lines += [""] * self._empty + [text]
        self._empty = 0
        self._chars += len(text)
        self._place = place
        return True
