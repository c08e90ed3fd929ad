"""What texts and regular expressions find in messages, and in nothing else."""

from __future__ import annotations

import json
import random

import pytest
from query_lab import NOW_S, CountedBlock, entry

from pillion_common.errors import InvalidInput
from pillion_log.query import patterns
from pillion_log.query.matching import Matcher
from pillion_log.query.question import parse_question

TEXTS = ['say "hi"', "tab\there", "back\\slash", "caf\u00e9", "\u202eturned", "\U000e0041tag", "a\x7fb", "/slash/", "line\nend"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("by", ["q", "re2", "python", "i", "re"])
def test_text_is_found_however_it_is_stored(text: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "python":
        monkeypatch.setattr(patterns, "_load", lambda: None)
    odd = json.dumps({"Time": "2026-01-31T12:00:00.000Z", "Service": "A", "Level": "info", "Message": f"<{text}>"}, ensure_ascii=True)
    lines = [entry(f"<{text}>"), entry("no"), odd.replace("/", "\\/").encode(), entry("yes", other=text)]
    found = _messages(lines, **({"re": patterns.re.escape(text)} if by == "re" else {"q": text, "i": "1" if by == "i" else "0"}))
    assert found == [f"<{text}>", f"<{text}>"]


def _messages(lines: list[bytes], **parameters: str) -> list[str]:
    question = parse_question(parameters, NOW_S)
    return [match.stored.message for match in Matcher(question.filter).look(CountedBlock(*lines).read(), 0)]


def test_text_is_found_in_the_message_alone() -> None:
    lines = [entry("nothing", service="Needle", Instance="Needle", more="Needle"), entry("a Needle")]
    assert _messages(lines, q="Needle") == ["a Needle"]
    assert _messages(lines, re="N..dle") == ["a Needle"]
    assert _messages(lines, q="needle") == []
    assert _messages(lines, q="needle", i="1") == ["a Needle"]
    assert _messages(lines, re="^A n", i="1") == ["a Needle"]


MESSAGES = [
    "GET /students 200",
    "foo first",
    "bar last",
    "foo and bar",
    'said "foo"',
    "two\nlines",
    "foo",
    "Message",
    "x" * 50,
    "ends with foo",
    "a.b",
    "ÄRGER",
]
PATTERNS = [
    "foo", "^foo", "foo$", "^foo$", "foo.*bar", "foo[^x]*bar", "^(foo|bar)", "(^|a)foo", r"\bfoo\b", r"\Afoo", r"foo\z",
    "(?m)^lines", "(?s)two.lines", r"two\nlines", "[[:upper:]]+", "[^[:alpha:]]", r"\d{3}", "x{50}", "", "$", "^", "^M", "e$", '"',
    r"\"foo", "[]^$]", r"[\]^]", r"a\.b", r"\Qa.b\E", "(?i)ärger", r"\pL+$", r"\p{^L}", "foo|last$", "^^foo", r"\b^foo",
    "(?i)^FOO|BAR$", "Message", "Level", ",", ":", "}", "(?:)", "^{2}f", "o${2}", r"\b(?m:^)foo", "^*x",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_finds_what_re2_finds_in_each_message(pattern: str) -> None:
    import re2

    expected = [message for message in MESSAGES if re2.search(pattern, message)]
    assert _messages([entry(message) for message in MESSAGES], re=pattern or "(?:)") == expected


LETTERS = ["a", "b", '"', "\\", "\n", "é", "/", ":", "}", "M", "$", "^", " ", "\x1b", "0"]
PARTS = [
    *"ab\"é/:}M.^$|(*+?", r"\\", r"\n", r"\$", r"\^", ".*", "(?:", ")", "[^a]", '[^"]', r"\b", r"\B", r"\s", r"\S", r"\W", r"\pL", r"\PL",
    "(?i)", "(?s)", "(?m)", "(?U)", "[[:^alpha:]]", r"\x22", r"\x5c", "{2}", "(?m:^)", "(?s:.)", r"\Qa\E", r"\z", r"\A", r"[^\n]", r"[\^$]",
]  # fmt: skip


def test_any_pattern_and_text_find_what_looking_at_each_message_finds() -> None:
    import re2

    quiet = re2.Options()
    quiet.log_errors = False
    chance = random.Random(20260131)
    tried = 0
    while tried < 500:
        spoken = ["".join(chance.choices(LETTERS, k=chance.randint(1, 6))) for _ in range(8)]
        pattern, text = "".join(chance.choices(PARTS, k=chance.randint(1, 5))), "".join(chance.choices(LETTERS, k=chance.randint(1, 3)))
        lines = [entry(message) for message in spoken]
        assert _messages(lines, q=text) == [message for message in spoken if text in message], text
        try:
            found = _messages(lines, re=pattern)
        except InvalidInput:
            continue
        tried += 1
        assert found == [message for message in spoken if re2.search(pattern, message, quiet)], pattern


@pytest.mark.parametrize("pattern", [r"\d\d:\d\d", "[A-Z]rading", "Time|Level", ":", "(?i)info"])
def test_what_stands_before_the_message_of_every_line_is_not_looked_at(pattern: str) -> None:
    _, finders = patterns.pattern_test(pattern, any_case=False)
    data = entry("nothing of the kind") * 100
    assert finders is not None
    assert [find(data, 0) for find in finders] == [-1, -1]


@pytest.mark.parametrize("pattern", ["lost after [0-9]+", "losta?fter", "lost*", "lost|x", "los.", "lost{2}"])
@pytest.mark.parametrize("any_case", ["", "1"])
def test_pattern_that_begins_with_plain_text_finds_the_same(pattern: str, any_case: str) -> None:
    import re2

    spoken = ["lost after 31", "losfter", "los", "x", "LOST AFTER 31", "lostt", "nothing"]
    expected = [one for one in spoken if re2.search(("(?i)" if any_case else "") + pattern, one)]
    assert _messages([entry(one) for one in spoken], re=pattern, i=any_case) == expected


def test_pattern_that_would_take_for_ever_elsewhere_is_answered() -> None:
    lines = [entry("a" * 5000 + "!") for _ in range(20)]
    assert _messages(lines, re="^(a+)+$") == []
    assert len(_messages(lines, re="(a*)*!$")) == 20


def test_without_re2_a_pattern_is_refused_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_load", lambda: None)
    for parameters in ({"re": "x"}, {"q": "x", "i": "1"}):
        with pytest.raises(InvalidInput, match="needs the package google-re2") as refusal:
            _messages([], **parameters)
        assert refusal.value.code == "not_installed"


@pytest.mark.parametrize("pattern", ["(", "a**b)", r"(a)\1", "(?=x)", "x{2000}", "a)(b"])
def test_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="re is not a regular expression of RE2: ") as refusal:
        _messages([], re=pattern)
    assert refusal.value.field == "re"
