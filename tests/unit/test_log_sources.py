"""Exactly once: which entries are duplicates."""

from __future__ import annotations

from pillion_log.entries import Run
from pillion_log.store.base import Appended
from pillion_log.store.sources import Sources


def entries(source: str, *seqs: int) -> list[Run]:
    return [Run(f"{source}{seq}\n".encode(), 1, source, (seq,)) for seq in seqs]


def fresh(sources: Sources, runs: list[Run], staged: dict[str, int]) -> list[bytes]:
    lines, appended = sources.fresh(runs, staged)
    assert appended.accepted + appended.duplicates == sum(run.length for run in runs)
    assert appended.accepted == b"".join(lines).count(b"\n")
    return b"".join(lines).splitlines()


def test_only_what_is_above_the_highest_seq_is_fresh() -> None:
    sources = Sources()
    staged: dict[str, int] = {}
    assert fresh(sources, entries("a", 0, 1, 1, 0, 2), staged) == [b"a0", b"a1", b"a2"]
    sources.keep(staged)
    assert fresh(sources, entries("a", 2, 3), {}) == [b"a3"]


def test_repeat_of_what_is_still_on_its_way_is_a_duplicate_but_fresh_again_if_it_fails() -> None:
    sources = Sources()
    staged: dict[str, int] = {}
    assert fresh(sources, entries("a", 1), staged) == [b"a1"]
    assert fresh(sources, entries("a", 1), staged) == []
    assert fresh(sources, entries("a", 1), {}) == [b"a1"]  # the first write failed: nothing was kept


def test_entries_without_a_seq_are_always_fresh() -> None:
    assert Sources().fresh([Run(b"x\n"), Run(b"x\nx\n", 2)], {}) == ([b"x\n", b"x\nx\n"], Appended(3, 0))


def test_run_is_cut_where_its_repeats_end() -> None:
    sources = Sources()
    sources.keep({"a": 5})
    for seqs, left, expected in (
        (range(4, 8), b"a6\na7\n", Appended(2, 2)),
        (range(6, 8), b"a6\na7\n", Appended(2, 0)),
        (range(3, 6), b"", Appended(0, 3)),
        ([1, 5, 9], b"a9\n", Appended(1, 2)),
    ):
        run = Run(b"".join(b"a%d\n" % seq for seq in seqs), len(seqs), "a", seqs)
        assert sources.fresh([run], {}) == ([left], expected)


def test_source_that_was_silent_longest_is_forgotten_first() -> None:
    sources = Sources(max_sources=2)
    for name in ("a", "b", "a", "c"):
        sources.keep({name: 5})
    assert fresh(sources, [*entries("a", 5), *entries("b", 5), *entries("c", 5)], {}) == [b"b5"]


def test_stored_lines_are_learnt_again_and_damage_is_counted() -> None:
    sources = Sources()
    lines = [b'{"Source":"a","Seq":3,"x":1}', b'{"Source":"a","Seq":2}', b'{"Message":"m"}', b'{"Source":null}', b"{torn", b'{"Source":5}']
    assert sources.learn(lines) == 2
    assert fresh(sources, entries("a", 3, 4), {}) == [b"a4"]
