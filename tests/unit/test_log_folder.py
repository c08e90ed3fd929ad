"""What makes an append all or nothing: torn tails, full disks, failed syncs, rotation, and hands that meddle with the files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillion_log.store import blocks, folder
from pillion_log.store.folder import Folder


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(tmp_path, rotate_bytes=100, keep=3)
    opened.open()
    yield opened
    opened.close()


def read(folder: Folder) -> list[bytes]:
    with folder.blocks() as found:
        return [line for block in reversed(list(found)) for line in block.lines()]


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("entries*"))}


def test_files_rotate_by_size_and_the_oldest_is_removed(opened: Folder, tmp_path: Path) -> None:
    for letter in b"abcd":
        opened.append(bytes([letter]) * 59 + b"\n")
    assert {name: content[:1] for name, content in files(tmp_path).items()} == {
        "entries.1.log": b"c",
        "entries.2.log": b"b",
        "entries.log": b"d",
    }
    assert [line[:1] for line in read(opened)] == [b"b", b"c", b"d"]


def test_fewer_files_to_keep_removes_the_others_at_start(tmp_path: Path) -> None:
    for number in (1, 2, 9):
        (tmp_path / f"entries.{number}.log").write_bytes(b"x\n")
    (tmp_path / "entries.notes.log").write_bytes(b"not ours")
    reopened = Folder(tmp_path, rotate_bytes=100, keep=2)
    reopened.open()
    assert list(files(tmp_path)) == ["entries.1.log", "entries.log", "entries.notes.log"]
    reopened.close()


@pytest.mark.parametrize("tail", [b"torn", b"\0" * 5000, b"x" * 200_000])
def test_torn_tail_is_cut_at_start_with_a_warning(tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "entries.log").write_bytes(b"one\ntwo\n" + tail)
    reopened = Folder(tmp_path, rotate_bytes=1000, keep=3)
    reopened.open()
    reopened.append(b"three\n")
    assert files(tmp_path) == {"entries.log": b"one\ntwo\nthree\n"}
    assert [record.fields["bytes"] for record in caplog.records if record.event == "torn_tail"] == [len(tail)]  # type: ignore[attr-defined]
    reopened.close()


def test_file_of_nothing_but_a_torn_tail_becomes_empty(tmp_path: Path) -> None:
    (tmp_path / "entries.log").write_bytes(b"torn")
    reopened = Folder(tmp_path, rotate_bytes=1000, keep=3)
    reopened.open()
    assert files(tmp_path) == {"entries.log": b""}
    reopened.close()


def test_second_writer_in_the_same_folder_is_refused(opened: Folder, tmp_path: Path) -> None:
    second = Folder(tmp_path, rotate_bytes=100, keep=3)
    with pytest.raises(BlockingIOError):
        second.open()
    second.close()


def test_write_that_fails_half_way_leaves_nothing(opened: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.append(b"one\n")
    real = os.write

    def write_half(file: int, data: memoryview) -> int:
        if len(data) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) - 2])

    monkeypatch.setattr(folder.os, "write", write_half)
    with pytest.raises(OSError, match="No space left"):
        opened.append(b"two\n")
    monkeypatch.undo()
    assert files(tmp_path) == {"entries.log": b"one\n"}
    opened.append(b"three\n")
    assert files(tmp_path) == {"entries.log": b"one\nthree\n"}


def fail_to_sync(file: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_after_a_failed_sync_the_file_is_never_written_again(opened: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.append(b"one\n")
    with monkeypatch.context() as patched:
        patched.setattr(folder.os, "fdatasync", fail_to_sync)
        for _ in range(10):  # again and again: no good file is pushed out
            with pytest.raises(OSError, match="Input/output error"):
                opened.append(b"never acknowledged\n")
    assert read(opened) == [b"one"]
    opened.append(b"two\n")
    assert files(tmp_path) == {"entries.1.log": b"one\n", "entries.log": b"two\n"}
    assert read(opened) == [b"one", b"two"]


def test_file_that_cannot_be_cut_back_is_put_aside_and_its_rest_not_shown(
    opened: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.append(b"one\n")

    def fail_to_cut(file: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(folder.os, "fdatasync", fail_to_sync)
        patched.setattr(folder.os, "ftruncate", fail_to_cut)
        with pytest.raises(OSError, match="Input/output error"):
            opened.append(b"rest\n")
    assert read(opened) == [b"one"]
    opened.append(b"two\n")
    assert list(files(tmp_path)) == ["entries.1.log", "entries.log"]


def test_probe_leaves_nothing_behind(opened: Folder, tmp_path: Path) -> None:
    opened.append(b"one\n")
    opened.probe()
    opened.append(b"two\n")
    assert files(tmp_path) == {"entries.log": b"one\ntwo\n"}


def test_file_that_somebody_removed_moved_or_emptied_is_begun_anew(opened: Folder, tmp_path: Path) -> None:
    current = tmp_path / "entries.log"
    opened.append(b"one\n")
    current.unlink()
    opened.append(b"two\n")
    assert files(tmp_path) == {"entries.log": b"two\n"}
    current.rename(tmp_path / "away")
    opened.append(b"three\n")
    assert files(tmp_path) == {"entries.log": b"three\n"}
    current.write_bytes(b"")
    opened.append(b"four\n")
    assert files(tmp_path) == {"entries.log": b"four\n"}
    current.write_bytes(b"another's\n")
    opened.append(b"five\n")
    assert files(tmp_path) == {"entries.1.log": b"another's\n", "entries.log": b"five\n"}


def test_directory_in_the_place_of_the_file_fails_until_it_is_gone(opened: Folder, tmp_path: Path) -> None:
    current = tmp_path / "entries.log"
    opened.append(b"one\n")
    current.unlink()
    current.mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            opened.append(b"two\n")
    current.rmdir()
    opened.append(b"three\n")
    assert files(tmp_path) == {"entries.log": b"three\n"}


def test_reader_sees_what_was_there_when_it_began_whatever_is_rotated_meanwhile(opened: Folder) -> None:
    opened.append(b"a" * 59 + b"\n")
    opened.append(b"b" * 59 + b"\n")
    with opened.blocks() as found:
        for letter in b"cdef":
            opened.append(bytes([letter]) * 59 + b"\n")
        assert [line[:1] for block in found for line in block.lines()] == [b"b", b"a"]


def test_blocks_are_whole_lines_even_where_one_line_is_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    lines = [b"1", b"22", b"x" * 50, b"333", b"4444", b"55555"]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    file = os.open(path, os.O_RDONLY)
    for block_bytes in range(1, 80):
        found = [block.lines() for block in blocks.blocks_of(file, path.stat().st_size, block_bytes)]
        assert [line for block in reversed(found) for line in block] == lines
    os.close(file)
