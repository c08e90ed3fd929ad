"""Stack traces of four languages are one entry each; what is beside them is not swallowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_sidecar.logs.sources import traces
from pillion_sidecar.logs.sources.traces import LANGUAGES, TraceJoiner

PYTHON = """\
Traceback (most recent call last):
  File "/app/shop.py", line 3, in total
    return 1 / count
           ~~^~~~~~~
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/shop.py", line 9, in <module>
    main()
shop.errors.CartError: cannot add up"""

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/a.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: one
    +------------------------------------"""

JAVA = """\
2026-01-31 12:00:00 ERROR Cart - java.lang.IllegalStateException: no such item
\tat shop.Cart.add(Cart.java:17)
\tat shop.Main.main(Main.java:5)
\tSuppressed: java.io.IOException: close
\t\tat shop.Db.close(Db.java:3)
Caused by: java.io.IOException: gone
\tat shop.Db.read(Db.java:9)
\t... 2 more"""

GO = """\
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.(*Cart).Add(0xc000012345, {0x4c5, 0x3})
\t/app/main.go:8 +0x1d
main.main()
\t/app/main.go:12 +0x20

goroutine 18 [chan receive]:
main.worker(...)
\t/app/main.go:30
created by main.main in goroutine 1
\t/app/main.go:11 +0x15
exit status 2"""

NODE = """\
/app/shop.js:3
    throw new TypeError("no cart");
    ^

TypeError: no cart
    at add (/app/shop.js:3:11)
    at node:internal/main/run_main_module:28:49 {
  code: 'ENOCART',
  [cause]: Error: gone
      at read (/app/db.js:1:1)
}"""

TRACES = {"python": PYTHON, "group": GROUP, "java": JAVA, "go": GO, "node": NODE}


def joined(text: str, languages: tuple[str, ...] = tuple(LANGUAGES)) -> list[str]:
    joiner: TraceJoiner[int] = TraceJoiner(languages)
    return [one.text for number, line in enumerate(text.split("\n")) for one in joiner.feed(line, number)] + [
        one.text for one in joiner.end()
    ]


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_one_entry_and_its_neighbours_are_others(name: str) -> None:
    trace = TRACES[name]
    assert joined(f"before\n{trace}\nafter it\n{trace}\n\nlast") == ["before", trace, "after it", trace, "last"]


def test_a_trace_of_a_language_that_is_not_joined_is_lines() -> None:
    assert joined(JAVA, ("python", "go")) == JAVA.split("\n")
    assert joined(PYTHON, ()) == [line for line in PYTHON.split("\n") if line]


def test_two_python_traces_in_a_row_are_two() -> None:
    one = "\n".join(PYTHON.split("\n")[:5])
    assert joined(f"{one}\n{one}") == [one, one]


def test_lines_that_look_like_a_beginning_and_are_none_are_lines() -> None:
    assert joined("Error: disk full\npanic: no\nshop.CartError\nplain") == ["Error: disk full", "panic: no", "shop.CartError", "plain"]


def test_an_empty_line_ends_what_nothing_resumes() -> None:
    first = "\n".join(PYTHON.split("\n")[:5])
    assert joined(f"{first}\n\nplain\n\n") == [first, "plain"]


def test_the_place_of_an_entry_is_that_of_its_last_line() -> None:
    joiner: TraceJoiner[int] = TraceJoiner(("java",))
    places = [one.place for number, line in enumerate(f"{JAVA}\nafter".split("\n")) for one in joiner.feed(line, number)]
    assert places == [7, 8]


def test_a_trace_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_LINES", 3)
    found = joined("java.lang.Error: x\n" + "\tat a.b(C.java:1)\n" * 4)
    assert [text.count("\n") + 1 for text in found] == [3, 1, 1]


LINES = st.sampled_from([line for trace in TRACES.values() for line in trace.split("\n")]) | st.text(
    st.characters(exclude_characters="\n"), max_size=20
)


@given(st.lists(LINES, max_size=40))
def test_no_line_is_lost_doubled_or_reordered(lines: list[str]) -> None:
    kept = [line for text in joined("\n".join(lines)) for line in text.split("\n") if line.strip()]
    assert kept == [line for line in lines if line.strip()]
