"""Following files: each line once and in order, over both ways of rotation, restarts and kills, and while the spool has no room."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import StorageFull
from pillion_sidecar.logs.entry import EntryMaker
from pillion_sidecar.logs.sink import Sink
from pillion_sidecar.logs.sources.files import GONE_S, FileSource
from pillion_sidecar.logs.sources.lines import Line, LineReader
from pillion_sidecar.logs.spool import Spool

MAX = 1 << 20


class Bench:
    """A folder of logs, and a sidecar's file source that is told when to look and read."""

    def __init__(self, folder: Path, pattern: str = "*.log", max_bytes: int = MAX) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.app = self.logs / "app.log"
        self._pattern = pattern
        self._max_bytes = max_bytes
        self.now = 1000.0
        self.start()

    def start(self) -> None:
        self.spool = Spool(self.folder / "spool", self._max_bytes, boot=lambda: "")
        maker = EntryMaker("A", lambda: "A-1", lambda: 1_769_860_800.0)
        join = ("python", "java", "go", "node")
        sink = Sink(self.spool, lambda: None)
        self.source = FileSource([f"{self.logs}/{self._pattern}"], join, maker, sink, lambda: self.now)

    def kill(self) -> None:
        """End as by kill -9: nothing more is written."""
        self.source.close()
        for file in (self.spool._file, self.spool._lock):
            if file is not None:
                file.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def turn(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.source.look()
        for tail in list(self.source._tails.values()):
            self.source.read(tail)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in self.spool.peek(100_000, 1 << 30)]

    def messages(self) -> list[str]:
        return [entry["Message"] for entry in self.entries()]

    def write(self, text: str, path: Path | None = None) -> None:
        with (path or self.app).open("a") as file:
            file.write(text)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.kill()


def test_lines_are_entries_with_their_file(bench: Bench) -> None:
    bench.write("one\r\n\ntwo\n")
    bench.turn()
    assert bench.messages() == ["one", "two"]
    first = bench.entries()[0]
    assert (first["Service"], first["Level"], first["File"]) == ("A", "info", str(bench.app))


def test_a_line_without_an_end_waits_for_it(bench: Bench) -> None:
    bench.write("one\ntw")
    bench.turn()
    bench.turn(60)
    assert bench.messages() == ["one"]
    bench.write("o\nthree\n")
    bench.turn()
    assert bench.messages() == ["one", "two", "three"]


async def test_the_last_words_are_taken_in_at_the_end(bench: Bench) -> None:
    bench.write("one\n")
    running = asyncio.create_task(bench.source.run())
    await asyncio.sleep(0.01)
    assert bench.messages() == ["one"]
    bench.write("Traceback (most recent call last):\n  File x\nKeyError: 3\nbye")
    bench.write("first and last\n", bench.logs / "other.log")
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    assert sorted(bench.messages()) == ["Traceback (most recent call last):\n  File x\nKeyError: 3", "bye", "first and last", "one"]


async def test_files_that_are_silent_wake_nobody_up_five_times_a_second(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
            bench.now += seconds
            if len(pauses) == 60:
                bench.write("awake\n")
            if len(pauses) == 64:
                raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    bench.write("one\n")
    with pytest.raises(asyncio.CancelledError):
        await bench.source.run()
    assert pauses == [0.2] * 50 + [1.0] * 10 + [0.2] * 4
    assert bench.messages() == ["one", "awake"]


def test_a_file_that_is_renamed_is_read_to_its_end_and_its_successor_from_the_beginning(bench: Bench) -> None:
    bench.write("one\n")
    bench.turn()
    bench.app.rename(bench.logs / "app.1")
    bench.write("two\n", bench.logs / "app.1")
    bench.write("three\n")
    bench.turn()
    bench.write("four\n", bench.logs / "app.1")
    bench.turn(GONE_S - 1)
    assert sorted(bench.messages()) == ["four", "one", "three", "two"]
    bench.turn(GONE_S)
    bench.turn(GONE_S)
    assert len(bench.source._tails) == 1
    assert len(bench.spool.positions) == 1


def test_a_rotated_file_that_matches_as_well_is_not_read_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "app.log*")
    bench.write("one\n")
    bench.turn()
    bench.app.rename(bench.logs / "app.log.1")
    bench.write("two\n")
    bench.turn()
    bench.turn()
    assert bench.messages() == ["one", "two"]
    bench.kill()


@pytest.mark.parametrize("pattern", ["*.log", "app.log*"])
def test_a_file_that_is_copied_and_truncated_is_read_from_its_beginning(tmp_path: Path, pattern: str) -> None:
    bench = Bench(tmp_path, pattern)
    bench.write("one\ntwo\n")
    bench.turn()
    (bench.logs / "app.log.1").write_bytes(bench.app.read_bytes())
    os.truncate(bench.app, 0)
    bench.turn()
    bench.write("three\n")
    bench.turn()
    assert bench.messages() == ["one", "two", "three"]
    bench.kill()


def test_a_truncated_file_that_grew_beyond_what_was_read_is_noticed(bench: Bench) -> None:
    bench.write("one\n")
    bench.turn()
    os.truncate(bench.app, 0)
    bench.write("another first line\nand more\n")
    bench.turn()
    assert bench.messages() == ["one", "another first line", "and more"]


def test_what_the_copy_has_and_the_file_was_not_read_of_is_read_from_the_copy(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "app.log*")
    bench.write("one\n")
    bench.turn()
    bench.write("two\n")
    (bench.logs / "app.log.1").write_bytes(bench.app.read_bytes())
    os.truncate(bench.app, 0)
    bench.write("three, of another length\n")
    bench.turn()
    assert sorted(bench.messages()) == ["one", "three, of another length", "two"]
    bench.kill()


def test_a_restart_reads_on_where_it_was_also_what_was_rotated_away_meanwhile(bench: Bench) -> None:
    bench.write("one\ntwo\n")
    bench.turn()
    bench.restart()
    bench.turn()
    assert bench.messages() == ["one", "two"]
    bench.write("three\n")
    bench.kill()
    bench.app.rename(bench.logs / "app.1")
    bench.write("four\n")
    bench.start()
    bench.turn()
    assert sorted(bench.messages()) == ["four", "one", "three", "two"]


def test_another_file_under_the_same_inode_is_read_from_its_beginning(bench: Bench) -> None:
    bench.write("one\n")
    bench.turn()
    bench.kill()
    os.truncate(bench.app, 0)
    bench.write("uno, dos, tres\n")
    bench.start()
    bench.turn()
    assert bench.messages() == ["one", "uno, dos, tres"]


def test_a_trace_is_one_entry_once_it_is_whole(bench: Bench) -> None:
    bench.write("java.lang.Error: x\n\tat a.b(C.java:1)\n")
    bench.turn()
    assert bench.messages() == []
    bench.turn(2)
    [entry] = bench.entries()
    assert (entry["Message"], entry["Level"]) == ("java.lang.Error: x\n\tat a.b(C.java:1)", "error")


def test_a_trace_that_was_held_at_a_kill_is_read_again(bench: Bench) -> None:
    bench.write("before\njava.lang.Error: x\n")
    bench.turn()
    bench.restart()
    bench.write("\tat a.b(C.java:1)\nafter\n")
    bench.turn()
    assert bench.messages() == ["before", "java.lang.Error: x\n\tat a.b(C.java:1)", "after"]


def test_what_the_spool_has_no_room_for_waits_in_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=200_000)
    lines = [f"line {number} " + "x" * 100 for number in range(5000)]
    bench.write("\n".join(lines) + "\n")
    seen: list[str] = []
    for _ in range(100):
        bench.turn()
        bench.turn()
        found = bench.entries()
        assert bench.spool.dropped == 0
        if not found:
            break
        seen += [entry["Message"] for entry in found]
        bench.spool.ack(found[-1]["Seq"])
    assert seen == lines
    bench.kill()


def test_what_the_disk_does_not_take_is_given_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("one\n")
    bench.turn()
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise StorageFull("full")

        patched.setattr(bench.spool, "append_all", full)
        bench.write("two\n")
        bench.turn()
        bench.write("three\n")
        bench.turn()
    bench.turn()
    assert bench.messages() == ["one", "two", "three"]


def test_folders_packed_files_and_what_may_not_be_read_are_left_out(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.logs / "folder.log").mkdir()
    bench.write("x\n", bench.logs / "old.log.gz")
    bench.write("a\n")
    bench.turn()
    assert bench.messages() == ["a"]


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole(bench: Bench) -> None:
    bench.write("x" * 200_000 + "\nnext\n")
    bench.turn()
    long, after = bench.entries()
    assert long["Message"].endswith(f"…[cut: {long['Cut']} bytes]")
    assert long["Cut"] > 200_000 - 65_536
    assert after["Message"] == "next"


# Lines.


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
def test_lines_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes], max_bytes: int) -> None:
    def read(*parts: bytes) -> list[Line]:
        reader = LineReader(max_bytes)
        return [line for part in parts for line in reader.feed(part)] + reader.end()

    lines = read(b"".join(pieces))
    assert read(*pieces) == lines
    assert sum(line.size for line in lines) == sum(map(len, pieces))
