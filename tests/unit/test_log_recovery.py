"""What a start makes of the files it finds: torn tails, damage, an earlier version's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

from pillion_log.store import checks, recovery
from pillion_log.store.base import CHECK
from pillion_log.store.checks import check_line, find_groups
from pillion_log.store.folder import Folder
from pillion_log.store.segments import segment_path
from pillion_log.store.snapshot import Snapshot, read_snapshot, write_snapshot
from pillion_log.store.sources import Mark, Sources

NOW = "2026-01-31T12:00:00.123Z"


def line(letter: str, service: str = "A") -> bytes:
    return f'{{"Time":"{NOW}","Received":"{NOW}","Service":"{service}","Message":"{letter}","Source":"s","Seq":{ord(letter)}}}\n'.encode()


def group(*letters: str) -> bytes:
    lines = b"".join(map(line, letters))
    return lines + check_line(lines)


def opened(path: Path, sources: Sources | None = None) -> Folder:
    folder = Folder(path)
    folder.open(sources or Sources())
    folder.close()
    return folder


def read(folder: Folder) -> bytes:
    with folder.blocks(newest_first=False) as found:
        return b"".join(line for block in found for line in block.read().splitlines(True) if not line.startswith(CHECK))


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.event == name]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tail", "entries"),
    [
        (b"torn", 1),
        (b"torn" + b"\0" * 70_000, 1),
        (line("x"), 1),
        (group("x", "y", "z")[:-1], 3),
        (line("x") + line("y") + check_line(line("x") + line("z")), 2),
    ],
    ids=["half a line", "before zeros", "no checksum", "half a checksum", "wrong checksum"],
)
def test_torn_tail_is_cut_off_and_told(tmp_path: Path, tail: bytes, entries: int, caplog: pytest.LogCaptureFixture) -> None:
    path = segment_path(tmp_path, 0)
    path.write_bytes(group("a", "b") + tail)
    sources = Sources()
    folder = opened(tmp_path, sources)
    assert path.read_bytes() == group("a", "b")
    assert read(folder) == line("a") + line("b")
    found = events(caplog, "torn_tail")
    assert [found[0]["bytes"], len(found)] == [len(tail.rstrip(b"\0")), 1]
    assert found[0]["entries"] in (entries, entries + 1)
    assert sources.copy() == {"s": Mark(ord("b"), NOW)}


@pytest.mark.parametrize("lines", [b"", group("a", "b")])
def test_zeros_at_the_end_are_cut_off_without_a_word(tmp_path: Path, lines: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = segment_path(tmp_path, 0)
    path.write_bytes(lines + b"\0" * 200_000)
    assert read(opened(tmp_path)).count(b"\n") == lines.count(b"\n") - bool(lines)
    assert (path.read_bytes() if path.exists() else b"") == lines
    assert events(caplog, "torn_tail") == []


def test_a_file_that_fills_its_last_page_is_not_read_beyond_its_end(tmp_path: Path) -> None:
    """What lies behind it may be mapped or not: here it is not, so that one byte too many ends the process."""
    paths = [tmp_path / str(shift) for shift in range(10)]  # as far as a search steps
    for shift, path in enumerate(paths):
        lines = b"x" * shift + b"\n" + group("a", "b")
        path.write_bytes(lines + bytes(16_384 - len(lines)))
    code = """
import mmap, sys
from pillion_log.store.checks import find_groups
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for _ in range(8)]  # side by side
    for other in maps[::2]:
        other.close()
    print({len(find_groups(one).ends) for one in maps[1::2]})
"""
    plain, words = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(words, env=plain, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["{1}"] * 10), done.stderr


@pytest.mark.parametrize("size", [200, 64, len(CHECK), 1])
def test_groups_are_found_wherever_a_window_ends(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "WINDOW_BYTES", size)
    data = group("a") + b"damage\n" + group("b", "c") + group("d")
    found = find_groups(data)
    first = len(group("a"))
    assert found.ends == [first, len(data) - len(group("d")), len(data)]
    assert found.damaged == [(first, first + 7)]
    assert found.whole == len(data)


def test_segment_of_nothing_but_a_torn_tail_holds_nothing(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(b"torn")
    segment_path(tmp_path, 5000).write_bytes(b"")  # a crash between making it and writing to it
    folder = opened(tmp_path)
    assert read(folder) == b""
    assert not segment_path(tmp_path, 5000).exists()


@pytest.mark.parametrize("content", [b"", b"torn"])
def test_position_of_an_empty_segment_can_be_used_again(tmp_path: Path, content: bytes) -> None:
    segment_path(tmp_path, 0).write_bytes(content)
    assert (opened(tmp_path).end, list(tmp_path.glob("0*"))) == (0, [])


def test_damage_amid_groups_is_told_counted_and_passed_over_and_nothing_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(group("a") + group("b") + group("c"))
    content[len(group("a")) + 5] ^= 1
    path = segment_path(tmp_path, 0)
    path.write_bytes(content)
    folder = opened(tmp_path)
    assert path.read_bytes() == content
    assert folder.damaged == 1
    assert events(caplog, "damaged_segment") == [{"first": len(group("a")), "last": len(group("a")) + len(group("b"))}]
    stats = folder.stats().services["A"]
    assert (stats.lines, stats.bytes) == (3, 3 * len(line("a")))  # a flipped bit in a key leaves it an entry for the eye
    assert read(folder).count(b"\n") == 3


def test_damaged_end_of_a_segment_that_is_not_the_newest_is_no_torn_tail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment_path(tmp_path, 0).write_bytes(group("a") + line("b") + b"\0\0\0")
    segment_path(tmp_path, 1000).write_bytes(group("c"))
    folder = opened(tmp_path)
    assert read(folder) == line("a") + line("b") + line("c")
    assert folder.damaged == 1
    assert len(events(caplog, "torn_tail")) == 0
    assert segment_path(tmp_path, 0).stat().st_size == len(group("a") + line("b")) + 3


def test_checksum_that_an_app_imitates_vouches_for_nothing() -> None:
    inner = check_line(b"x")[:-1]
    data = b'{"Time":"","x":' + inner + b"}\n"
    assert find_groups(data + check_line(data)) == ([len(data) + len(check_line(data))], [], len(data) + len(check_line(data)))
    assert find_groups(b"y\n" + inner + b"\n").whole == 0


def test_blocks_begin_and_end_with_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BLOCK_BYTES", 300)
    segment_path(tmp_path, 0).write_bytes(group("a") + group("b") + group("c") + group("d"))
    with opened(tmp_path).blocks(newest_first=False) as found:
        blocks = [(block.start, block.read(), block.summary and block.summary.services["A"].lines) for block in found]
    assert blocks == [(0, group("a") + group("b"), 2), (len(group("a")) * 2, group("c") + group("d"), 2)]


def test_earlier_versions_files_become_segments_in_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "entries.log").write_bytes(line("d") + b"torn")
    (tmp_path / "entries.1.log").write_bytes(line("c"))
    (tmp_path / "entries.10.log").write_bytes(line("a") + b"damaged\n" + line("b"))
    (tmp_path / "entries.notes.log").write_bytes(b"not ours")
    sources = Sources()
    folder = opened(tmp_path, sources)
    assert read(folder) == line("a") + b"damaged\n" + line("b") + line("c") + line("d")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00000000000000000000.lines",
        f"{2 * len(line('a')) + 8:020d}.lines",
        f"{3 * len(line('a')) + 8:020d}.lines",
        "entries.notes.log",
        "lock",
    ]
    assert sources.copy()["s"].seq == ord("d")
    assert events(caplog, "torn_tail") == [{"bytes": 4, "entries": 1}]
    assert read(opened(tmp_path)) == read(folder)


def test_take_over_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000000.lines").write_bytes(line("a"))
    (tmp_path / "entries.log").write_bytes(line("b"))
    assert read(opened(tmp_path)) == line("a") + line("b")


def test_files_of_an_earlier_version_that_ran_again_meanwhile_come_last(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(group("a"))
    segment_path(tmp_path, 5000).write_bytes(group("b"))
    (tmp_path / "entries.log").write_bytes(line("c"))
    assert read(opened(tmp_path)) == line("a") + line("b") + line("c")
    assert segment_path(tmp_path, 5000 + (1 << 40), ".lines").exists()


def test_snapshot_that_is_damaged_is_none(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    write_snapshot(tmp_path, Snapshot(5, True, {"a": Mark(7, NOW)}))
    assert read_snapshot(tmp_path) == Snapshot(5, True, {"a": Mark(7, NOW)})
    content = (tmp_path / "sources.json").read_bytes()
    for broken in (b"", content[:-1], content.replace(b"7", b"8", 1), b"{}\n"):
        (tmp_path / "sources.json").write_bytes(broken)
        assert read_snapshot(tmp_path) is None


@pytest.mark.parametrize("size", [0, 1, 5120, 5121, 65_536, 65_537, 300_000])
def test_checksum_is_the_same_however_large_the_group(size: int) -> None:
    data = (b"0123456789\n" * (size // 11 + 1))[:size]
    assert check_line(data) == b'{"Check":"%08x","Bytes":%d}\n' % (crc32(data), size)
