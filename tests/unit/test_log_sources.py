"""Exactly once: which entries are duplicates."""

from __future__ import annotations

from pillion_log.entries import Entry
from pillion_log.store.sources import Sources


def entries(source: str, *seqs: int) -> list[Entry]:
    return [Entry(f"{source}{seq}".encode(), source, seq) for seq in seqs]


def test_only_what_is_above_the_highest_seq_is_fresh() -> None:
    sources = Sources()
    staged: dict[str, int] = {}
    assert sources.fresh(entries("a", 0, 1, 1, 0, 2), staged) == [b"a0", b"a1", b"a2"]
    sources.keep(staged)
    assert sources.fresh(entries("a", 2, 3), {}) == [b"a3"]


def test_repeat_of_what_is_still_on_its_way_is_a_duplicate_but_fresh_again_if_it_fails() -> None:
    sources = Sources()
    staged: dict[str, int] = {}
    assert sources.fresh(entries("a", 1), staged) == [b"a1"]
    assert sources.fresh(entries("a", 1), staged) == []
    assert sources.fresh(entries("a", 1), {}) == [b"a1"]  # the first write failed: nothing was kept


def test_entries_without_a_seq_are_always_fresh() -> None:
    assert Sources().fresh([Entry(b"x", "", None), Entry(b"x", "a", None)], {}) == [b"x", b"x"]


def test_source_that_was_silent_longest_is_forgotten_first() -> None:
    sources = Sources(max_sources=2)
    for name in ("a", "b", "a", "c"):
        sources.keep({name: 5})
    assert sources.fresh([*entries("a", 5), *entries("b", 5), *entries("c", 5)], {}) == [b"b5"]


def test_stored_lines_are_learnt_again_and_damage_is_counted() -> None:
    sources = Sources()
    lines = [b'{"Source":"a","Seq":3,"x":1}', b'{"Source":"a","Seq":2}', b'{"Message":"m"}', b'{"Source":null}', b"{torn", b'{"Source":5}']
    assert sources.learn(lines) == 2
    assert sources.fresh(entries("a", 3, 4), {}) == [b"a4"]
