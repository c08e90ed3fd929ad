"""Exactly once: which entries are duplicates, and which are missing."""

from __future__ import annotations

import json

from pillion_log.entries import Run
from pillion_log.store.base import Appended
from pillion_log.store.sources import Mark, Sources

T = "2026-01-31T12:00:{:02d}.000Z"


def line(source: str, seq: int, gap: int | None = None) -> bytes:
    """Return an entry whose time in seconds is its Seq."""
    fields = {"Time": T.format(seq), "Received": T.format(59), "Service": "A", "Instance": "a-1", "Source": source, "Seq": seq}
    return json.dumps(fields | ({} if gap is None else {"Gap": gap}), separators=(",", ":")).encode() + b"\n"


def entries(source: str, *seqs: int) -> list[Run]:
    return [Run(line(source, seq), 1, source, (seq,)) for seq in seqs]


def run(source: str, *seqs: int) -> Run:
    return Run(b"".join(line(source, seq) for seq in seqs), len(seqs), source, seqs)


def fresh(sources: Sources, runs: list[Run], staged: dict[str, Mark]) -> list[str]:
    """Return what is kept: `a5` for an entry, `+3` for a gap of three."""
    kept, appended = sources.fresh(runs, staged)
    lines = [json.loads(line) for run in kept for line in run.lines.splitlines()]
    assert appended.accepted + appended.duplicates == sum(run.length for run in runs)
    assert appended.accepted == sum(1 for line in lines if "Seq" in line)
    return [f"{line['Source']}{line['Seq']}" if "Seq" in line else f"+{line['Gap']}" for line in lines]


def known(*marks: tuple[str, int]) -> Sources:
    sources = Sources()
    sources.keep({source: Mark(seq, T.format(seq)) for source, seq in marks})
    return sources


def test_only_what_is_above_the_highest_seq_is_fresh() -> None:
    sources = Sources()
    staged: dict[str, Mark] = {}
    assert fresh(sources, entries("a", 0, 1, 1, 0, 2), staged) == ["a0", "a1", "a2"]
    sources.keep(staged)
    assert fresh(sources, entries("a", 2, 3), {}) == ["a3"]


def test_repeat_of_what_is_still_on_its_way_is_a_duplicate_but_fresh_again_if_it_fails() -> None:
    sources = Sources()
    staged: dict[str, Mark] = {}
    assert fresh(sources, entries("a", 1), staged) == ["a1"]
    assert fresh(sources, entries("a", 1), staged) == []
    assert fresh(sources, entries("a", 1), {}) == ["a1"]  # the first write failed: nothing was kept


def test_entries_without_a_seq_are_always_fresh() -> None:
    runs = [Run(b"x\n"), Run(b"x\nx\n", 2)]
    assert Sources().fresh(runs, {}) == (runs, Appended(3, 0))


def test_run_is_cut_where_its_repeats_end() -> None:
    sources = known(("a", 5))
    assert fresh(sources, [run("a", 4, 5, 6, 7)], {}) == ["a6", "a7"]
    assert fresh(sources, [run("a", 6, 7)], {}) == ["a6", "a7"]
    assert fresh(sources, [run("a", 3, 4, 5)], {}) == []


def test_jump_of_a_known_source_is_told_before_the_entry_after_it() -> None:
    sources = known(("a", 5))
    assert fresh(sources, [run("a", 1, 5, 9)], {}) == ["+3", "a9"]
    assert fresh(sources, [run("a", 6, 8, 9, 12)], {}) == ["a6", "+1", "a8", "a9", "+2", "a12"]
    staged: dict[str, Mark] = {}
    assert fresh(sources, entries("a", 7, 9), staged) == ["+1", "a7", "+1", "a9"]
    assert staged == {"a": Mark(9, T.format(9))}


def test_gap_entry_says_how_many_of_whom_between_which_times() -> None:
    kept, _ = known(("a", 5)).fresh([run("a", 23)], {})
    assert json.loads(kept[0].lines) == {
        "Time": T.format(23),
        "Received": T.format(59),
        "Service": "A",
        "Level": "warning",
        "Message": "17 entries of A are missing: a sent numbers that leave them out",
        "Instance": "a-1",
        "Source": "a",
        "Gap": 17,
        "From": T.format(5),
        "To": T.format(23),
    }


def test_unknown_source_has_lost_nothing_that_is_known_but_what_it_leaves_out_itself() -> None:
    assert fresh(Sources(), [run("a", 7, 8)], {}) == ["a7", "a8"]
    assert fresh(Sources(), [run("a", 7, 9)], {}) == ["a7", "+1", "a9"]


def test_gap_that_the_sender_tells_itself_is_not_told_twice() -> None:
    told = Run(line("a", 9, gap=4), 1, "a", (9,))  # 6 to 9 were dropped
    assert fresh(known(("a", 5)), [told], {}) == ["a9"]
    assert fresh(known(("a", 3)), [told], {}) == ["+2", "a9"]  # 4 and 5 are missing as well
    assert fresh(Sources(), [told], {}) == ["a9"]
    assert fresh(known(("a", 5)), [told, *entries("a", 10)], {}) == ["a9", "a10"]


def test_sender_that_does_not_know_what_had_arrived_counts_too_much_and_is_corrected() -> None:
    message = b'"Message":"4 entries of A are missing","Gap":4'
    told = Run(line("a", 9, gap=4).replace(b'"Gap":4', message), 1, "a", (9,))  # 6 to 9 were dropped, it says
    for highest, gap in ((5, 4), (6, 3), (7, 2), (8, 1)):
        kept, appended = known(("a", highest)).fresh([told], {})
        assert [json.loads(run.lines)["Gap"] for run in kept] == [gap]
        assert json.loads(kept[0].lines)["Message"] == f"{gap} entries of A are missing"
        assert appended == Appended(1, 0)
    assert known(("a", 9)).fresh([told], {}) == ([], Appended(0, 1))


def test_source_that_was_silent_longest_is_forgotten_first() -> None:
    sources = Sources(max_sources=2)
    for name in ("a", "b", "a", "c"):
        sources.keep({name: Mark(5, "")})
    assert list(sources.copy()) == ["a", "c"]


def test_stored_lines_are_learnt_again_and_damage_is_passed_over() -> None:
    sources = Sources()
    lines = [b'{"Source":"a","Seq":3,"x":1}', b'{"Source":"a","Seq":2}', b'{"Message":"m"}', b'{"Source":null}', b'{"Check":"0","Bytes":1}']
    sources.learn(b"\n".join(lines) + b"\n")
    assert sources.copy() == {"a": Mark(3, "")}
    sources.learn(b'{torn\n{"Source":5}\n{"Source":"b","Seq":1,"Time":"t"}\n\xff\n')
    assert sources.copy() == {"a": Mark(3, ""), "b": Mark(1, "t")}
