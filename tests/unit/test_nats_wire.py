"""The messages of a log in a NATS stream, and what is known of them."""

from __future__ import annotations

import msgspec
import pytest

from pillion_log.entries import Run, from_line
from pillion_log.store import nats_history
from pillion_log.store.base import Block, MemoryBlock
from pillion_log.store.nats_history import History
from pillion_log.store.nats_wire import (
    MIXED,
    Broken,
    Checkpoint,
    Chunk,
    pack_checkpoint,
    pack_entries,
    token,
    unpack_checkpoint,
    unpack_entries,
)
from pillion_log.store.nats_writer import split_runs
from pillion_log.store.sources import Mark
from pillion_log.store.summaries import summarize

NOW = "2026-01-31T12:00:00.123Z"
ROOM = 1 << 30


def entry(message: str, service: str = "A") -> Run:
    return from_line(f'{{"Message":"{message}","Service":"{service}"}}'.encode(), NOW)


def lines(*runs: Run) -> bytes:
    return b"".join(run.lines for run in runs)


@pytest.mark.parametrize(("service", "safe"), [("GradingService", "GradingService"), ("a.b-c_d.e", "a=2Eb-c_d=2Ee")])
def test_a_service_is_one_token_of_a_subject(service: str, safe: str) -> None:
    assert token(service) == safe


def test_entries_come_out_as_they_went_in_packed_or_not() -> None:
    runs = [entry("x" * 2000), entry("y")]
    for packs in (True, False):
        packet = pack_entries("p.logs", runs, lines(*runs), 17, packs)
        assert (packet.subject, packet.headers["Pillion-Start"]) == ("p.logs.A", "17")
        assert ("Pillion-Bytes" in packet.headers, len(packet.payload) < 2000) == (packs, packs)
        assert unpack_entries(packet.headers, packet.payload) == lines(*runs)
    assert pack_entries("p.logs", [entry("x"), entry("y", "B")], b"x\n", 0, True).subject == f"p.logs.{MIXED}"


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({}, b"x\n"),
        ({"Pillion-Start": "-1"}, b"x\n"),
        ({"Pillion-Start": "9" * 30}, b"x\n"),
        ({"Pillion-Start": "1"}, b"x"),
        ({"Pillion-Start": "1", "Pillion-Bytes": "2"}, b"x\n"),
        ({"Pillion-Start": "1", "Pillion-Bytes": "99999999999"}, b"x\n"),
    ],
)
def test_what_is_none_of_the_logs_messages_is_not_taken_for_one(headers: dict[str, str], payload: bytes) -> None:
    with pytest.raises(Broken):
        unpack_entries(headers, payload)


def test_a_checkpoint_comes_out_as_it_went_in() -> None:
    chunks = [Chunk(0, 10, 1, 3, summarize(entry("x").lines)), Chunk(10, 20, 4, 4, None)]
    marks = {"b": Mark(7, NOW), "a": Mark(3, "")}
    packet = pack_checkpoint("p.logs", Checkpoint(marks, chunks), 20, 5)
    found, previous = unpack_checkpoint(packet.headers, packet.payload)
    assert (packet.subject, previous, found.chunks, list(found.marks.items())) == ("p.logs.=checkpoint", 5, chunks, list(marks.items()))
    with pytest.raises(Broken):
        unpack_checkpoint(packet.headers, packet.payload[:-1])


def read(history: History, after: int = 0, newest_first: bool = False) -> list[tuple[int, int, int]]:
    """Return start and end of each block, and of a chunk the number of its first message."""
    found: list[Block | Chunk] = [*history.blocks(after, newest_first, None)]
    return [(one.start, one.end, one.first if isinstance(one, Chunk) else 0) for one in found]


def test_chunks_end_when_they_are_large_or_have_many_messages_or_where_positions_leap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_history, "CHUNK_BYTES", 100)
    monkeypatch.setattr(nats_history, "CHUNK_MESSAGES", 3)
    history = History(ROOM)
    for seq, size, start in [(1, 90, 0), (2, 20, 90), (3, 10, 110), (4, 10, 120), (5, 10, 130), (6, 10, 140), (7, 10, 500)]:
        history.add(seq, start, b"x" * (size - 1) + b"\n")
    assert read(history) == [(0, 110, 1), (110, 140, 3), (140, 150, 6), (500, 510, 0)]
    assert read(history, after=140) == [(140, 150, 6), (500, 510, 0)]
    assert read(history, newest_first=True)[0] == (500, 510, 0)
    assert (history.applied, history.end) == (7, 510)


def test_all_of_a_chunk_is_forgotten_with_its_first_message() -> None:
    history = History(64)  # so little that each message is a chunk
    for seq in range(1, 5):
        history.add(seq, 10 * seq, b"123456789\n")
    history.drop(3)
    assert [start for start, _, _ in read(history)] == [30, 40]
    stats = history.stats()
    assert (stats.oldest, stats.end, stats.removed_segments, stats.removed_bytes) == (30, 50, 2, 20)
    history.drop(5)
    assert (read(history), history.stats().oldest, history.stats().end) == ([], 50, 50)


def test_what_is_not_here_any_more_is_fetched_once_for_those_who_ask_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_history, "RECENT_BYTES", 25)
    history = History(64)
    for seq in range(1, 5):
        history.add(seq, 10 * seq, b"123456789\n")
    asked: list[int] = []

    def fetch(chunk: Chunk) -> bytes:
        asked.append(chunk.start)
        return b"fetched..\n"

    for _ in range(2):
        for block in history.blocks(0, False, None):
            if not isinstance(block, MemoryBlock):
                history.lines(block, fetch)
    assert asked == [10]


def test_stats_are_the_same_after_a_restart_from_checkpoints() -> None:
    history = History(ROOM)
    for seq in range(1, 5):
        run = entry("x" * seq, f"S{seq % 2}")
        history.add(seq, history.end, run.lines, [run])
        history.close_chunk()
    restored = History(ROOM)
    restored.restore(history.fresh, history.applied, history.end)
    assert restored.stats() == history.stats()
    assert history.stats().services["S0"].lines == 2


def test_a_long_append_is_cut_between_its_entries() -> None:
    runs = [Run(b"a\nb\nc\n", 3, "s", (1, 2, 3), "A", NOW), Run(b"dddd\n", 1), Run(b"e\n", 1)]
    parts = split_runs(runs, 5)
    assert [[(run.lines, run.length, tuple(run.seqs)) for run in part] for part in parts] == [
        [(b"a\nb\n", 2, (1, 2))],
        [(b"c\n", 1, (3,))],
        [(b"dddd\n", 1, ())],
        [(b"e\n", 1, ())],
    ]
    assert msgspec.structs.asdict(parts[0][0])["service"] == "A"
