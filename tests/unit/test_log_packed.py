"""Packed segments: the same entries in less room, readable block by block, whatever is damaged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import zstandard

from pillion_log.store import packed, segments
from pillion_log.store.base import Block, ServiceCount
from pillion_log.store.checks import check_line
from pillion_log.store.folder import Folder
from pillion_log.store.index import read_index, write_index
from pillion_log.store.keeper import Keeper, Retention
from pillion_log.store.packed import PackedSegment, open_packed, pack, scan_packed
from pillion_log.store.recovery import Recovered
from pillion_log.store.segments import PlainSegment, Segment, segment_path
from pillion_log.store.sources import Mark, Sources

NOW = "2026-01-31T12:00:00.123Z"
NOW_S = 1769860800.123


def line(number: int, service: str = "A", received: str = NOW) -> bytes:
    return (
        f'{{"Time":"{received}","Received":"{received}","Service":"{service}","Message":"{"m" * 500}","Source":"s","Seq":{number}}}\n'
    ).encode()


def group(*numbers: int, service: str = "A", received: str = NOW) -> bytes:
    lines = b"".join(line(number, service, received) for number in numbers)
    return lines + check_line(lines)


def plain(folder: Path, start: int, content: bytes, monkeypatch: pytest.MonkeyPatch | None = None) -> PlainSegment:
    path = segment_path(folder, start)
    path.write_bytes(content)
    return Recovered(path, start, None, lambda data: None).segment


GROUPS = [group(1, 2), group(3, service="B"), group(4)]
CONTENT = b"".join(GROUPS)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion_log.store.recovery.BLOCK_BYTES", 200)  # a block for each group


def packed_one(folder: Path, told: list[str]) -> PackedSegment:
    segment = plain(folder, 0, CONTENT)
    segment.file.hold()
    made = pack(segment, folder, lambda: True, told.append)
    segment.file.release()
    assert made is not None
    segment_path(folder, 0).unlink()
    return made


def read(segment: Segment) -> list[tuple[int, int, bytes]]:
    segment.file.hold()
    try:
        return [(block.start, block.end, block.read()) for block in segment.blocks(newest_first=False)]
    finally:
        segment.file.release()


def expected() -> list[tuple[int, int, bytes]]:
    ends = [sum(map(len, GROUPS[: number + 1])) for number in range(3)]
    return list(zip([0, *ends[:-1]], ends, GROUPS, strict=True))


def test_packed_segment_has_the_same_blocks_at_the_same_positions(tmp_path: Path) -> None:
    told: list[str] = []
    segment = packed_one(tmp_path, told)
    assert read(segment) == expected()
    assert [block.start for block in segment.blocks(newest_first=True)] == [start for start, _, _ in expected()][::-1]
    assert segment.summary is not None
    assert segment.summary.services["B"] == ServiceCount(1, len(line(3)), 0, NOW, NOW)
    reopened = open_packed(segment.file.path, 0, told.append)
    assert (read(reopened), reopened.summary, reopened.end, told) == (expected(), segment.summary, len(CONTENT), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000000000000000.idx", "00000000000000000000.log.zst"]


def test_zstd_itself_unpacks_it_to_the_plain_segment(tmp_path: Path) -> None:
    path = packed_one(tmp_path, []).file.path
    reader = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
    assert reader.read() == CONTENT
    try:
        shown = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True, timeout=10).stdout
    except FileNotFoundError:
        return
    assert shown == CONTENT


@pytest.mark.parametrize("index", [None, b"", b"damaged", b"\0" * 100])
def test_index_that_is_not_there_or_damaged_is_made_anew(tmp_path: Path, index: bytes | None) -> None:
    segment = packed_one(tmp_path, [])
    beside = packed.index_path(segment.file.path)
    good = beside.read_bytes()
    beside.unlink()
    if index is not None:
        beside.write_bytes(index)
    reopened = open_packed(segment.file.path, 0, lambda what: None)
    assert (read(reopened), reopened.summary, beside.read_bytes()) == (expected(), segment.summary, good)


def test_index_that_is_damaged_later_does_not_keep_the_entries_from_being_read(tmp_path: Path) -> None:
    segment = packed_one(tmp_path, [])
    packed.index_path(segment.file.path).write_bytes(b"damaged")
    assert read(segment) == expected()
    packed.index_path(segment.file.path).unlink()
    assert read(segment) == expected()


def test_damaged_block_is_told_and_passed_over_with_the_index_and_without(tmp_path: Path) -> None:
    told: list[str] = []
    segment = packed_one(tmp_path, told)
    index = read_index(packed.index_path(segment.file.path).read_bytes())
    assert index is not None
    content = bytearray(segment.file.path.read_bytes())
    content[index.blocks[1].offset + 20] ^= 0xFF
    segment.file.path.write_bytes(content)
    start, end, _ = expected()[1]
    assert read(segment) == [expected()[0], (start, end, b""), expected()[2]]
    assert len(told) == 1
    assert "its block is passed over" in told[0]
    anew = scan_packed(segment.file.path, 0, told.append)
    assert [entry._replace(summary=None) for entry in anew.blocks] == [entry._replace(summary=None) for entry in index.blocks]
    assert anew.blocks[1].summary is None
    content[index.blocks[1].offset - 40 : index.blocks[1].offset] = b"\0" * 40  # now its header is gone too
    segment.file.path.write_bytes(content)
    assert [(entry.end, entry.length > 0) for entry in scan_packed(segment.file.path, 0, told.append).blocks] == [
        (expected()[0][1], True),
        (expected()[1][1], False),
        (expected()[2][1], True),
    ]


def test_index_is_read_as_it_was_written() -> None:
    for damage in (lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data + b"x"):
        data = write_index(packed.Index(0, 7, [packed.Entry(7, 40, 9, None)]))
        assert read_index(data) == packed.Index(0, 7, [packed.Entry(7, 40, 9, None)])
        assert read_index(damage(data)) is None


def test_packing_that_is_interrupted_or_fails_leaves_the_plain_segment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = plain(tmp_path, 0, CONTENT)
    segment.file.hold()
    answers = iter([True, False])
    assert pack(segment, tmp_path, lambda: next(answers), lambda what: None) is None
    monkeypatch.setattr(packed.os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        pack(segment, tmp_path, lambda: True, lambda what: None)
    segment.file.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000000000000000.log"]


# A whole folder.


def opened(path: Path, sources: Sources | None = None) -> Folder:
    folder = Folder(path)
    folder.open(sources or Sources())
    return folder


def keeper(folder: Folder, max_bytes: int = 1 << 40, max_age_s: float = 1e10, now_s: float = NOW_S) -> Keeper:
    return Keeper(folder, Retention(folder, max_bytes, max_age_s, clock=lambda: now_s))


def everything(folder: Folder) -> bytes:
    with folder.blocks(newest_first=False) as blocks:
        return b"".join(block.read() for block in blocks)


def test_keeper_packs_what_does_not_grow_and_a_reader_goes_on_meanwhile(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(CONTENT)
    segment_path(tmp_path, 5000).write_bytes(CONTENT)
    folder = opened(tmp_path)
    before = folder.stats()
    with folder.blocks(newest_first=False) as blocks:
        assert next(blocks).read() == GROUPS[0]
        keeper(folder).look_after()
        assert b"".join(block.read() for block in blocks) == (CONTENT * 2)[len(GROUPS[0]) :]
    assert everything(folder) == CONTENT * 2
    after = folder.stats()
    assert (after.services, after.disk_bytes < before.disk_bytes, after.removed_segments) == (before.services, True, 0)
    folder.close()
    assert sorted(path.suffix for path in tmp_path.glob("0*")) == [".idx", ".idx", ".zst", ".zst"]
    sources = Sources()
    again = opened(tmp_path, sources)
    assert (everything(again), again.stats().services) == (CONTENT * 2, before.services)
    assert sources.copy() == {"s": Mark(4, NOW)}
    again.close()


def test_half_made_packed_segment_gives_way_to_the_plain_one(tmp_path: Path) -> None:
    packed_one(tmp_path, [])
    segment_path(tmp_path, 0).write_bytes(CONTENT)
    (tmp_path / "00000000000000000009.log.zst.tmp").write_bytes(b"draft")
    folder = opened(tmp_path)
    assert everything(folder) == CONTENT
    folder.close()
    assert sorted(path.suffix for path in tmp_path.glob("0*")) == [".idx", ".log"]
    keeper(folder).look_after()
    assert sorted(path.suffix for path in tmp_path.glob("0*")) == [".idx", ".zst"]
    assert everything(folder) == CONTENT


def test_reader_that_knows_what_it_wants_leaves_out_the_rest(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(CONTENT)
    segment_path(tmp_path, 5000).write_bytes(GROUPS[0])
    folder = opened(tmp_path)
    for _ in range(2):
        with folder.blocks(wanted=lambda summary: summary.may_have("B")) as blocks:
            assert [block.start for block in blocks] == [len(GROUPS[0])]
        keeper(folder).look_after()
        packed.index_path(segment_path(tmp_path, 5000, ".log.zst")).unlink(missing_ok=True)  # not even the index is looked at
    folder.close()


def size(folder: Folder) -> int:
    return folder.stats().disk_bytes


def test_oldest_segments_go_when_all_is_too_large(tmp_path: Path) -> None:
    for number in range(4):
        segment_path(tmp_path, number * 1000).write_bytes(group(number))
    folder = opened(tmp_path)
    one = size(folder) // 4
    Retention(folder, 2 * one + one // 2, 1e10, clock=lambda: NOW_S).apply()
    stats = folder.stats()
    assert (stats.oldest, stats.removed_segments, stats.removed_bytes, stats.disk_bytes) == (2000, 2, 2 * one, 2 * one)
    assert stats.services["A"].lines == 2
    assert sorted(path.name for path in tmp_path.glob("0*")) == ["00000000000000002000.log", "00000000000000003000.log"]
    folder.close()


def test_segments_go_when_their_newest_entry_is_too_old(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(group(1, received="2026-01-30T12:00:00.000Z"))
    segment_path(tmp_path, 1000).write_bytes(group(1, received="2026-01-30T12:00:00.000Z") + group(1, received="2026-01-31T11:00:00.000Z"))
    folder = opened(tmp_path)
    Retention(folder, 1 << 40, 3600.0, clock=lambda: NOW_S - 1).apply()
    assert folder.stats().oldest == 1000
    Retention(folder, 1 << 40, 3600.0, clock=lambda: NOW_S).apply()
    assert list(tmp_path.glob("0*")) == []
    folder.close()


def test_growing_segment_never_goes(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    segment_path(tmp_path, 0).write_bytes(CONTENT)
    folder.begin(segment_path(tmp_path, 0))
    folder.grow(len(CONTENT), [])
    Retention(folder, 1, 0.0, clock=lambda: NOW_S * 2).apply()
    assert (everything(folder), folder.stats().removed_segments) == (CONTENT, 0)
    folder.close()


def test_disk_that_is_small_is_not_filled_to_its_brim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_blocks, f_frsize = 100, 4096

    folder = opened(tmp_path)
    monkeypatch.setattr("pillion_log.store.keeper.os.statvfs", lambda path: Disk)
    assert Retention(folder, 10 << 30, 1.0).limit() == 327_680
    assert Retention(folder, 1000, 1.0).limit() == 1000
    folder.close()


def test_blocks_of_a_growing_segment_hold_about_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK_BYTES", 250)
    segment = PlainSegment(segment_path(tmp_path, 0), 0)
    for length in (100, 100, 100, 400, 10):
        segment.grow(length, [])
    blocks: list[Block] = list(segment.blocks(newest_first=False))
    assert [(block.start, block.end) for block in blocks] == [(0, 300), (300, 700), (700, 710)]


def test_file_that_cannot_be_removed_harms_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    segment_path(tmp_path, 0).write_bytes(CONTENT)
    folder = opened(tmp_path)

    def refuse(path: Path, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    with folder.blocks() as blocks:
        folder.remove(folder.closed()[0])
        monkeypatch.setattr(Path, "unlink", refuse)
        assert len(list(blocks)) == 3
    monkeypatch.undo()
    assert "cannot be removed: [Errno 30] Read-only file system" in caplog.text
    folder.close()
