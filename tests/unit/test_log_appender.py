"""What makes an append all or nothing: full disks, failed syncs, rotation, and hands that meddle with the files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillion_log.entries import Run
from pillion_log.store import appender
from pillion_log.store.appender import Appender
from pillion_log.store.base import CHECK
from pillion_log.store.checks import check_line
from pillion_log.store.folder import Folder
from pillion_log.store.sources import Sources


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """An open folder with its appender."""

    def __init__(self, path: Path, rotate_bytes: int = 100_000) -> None:
        self.path = path
        self.clock = Clock()
        self.rotated = 0
        self.folder = Folder(path)
        self.folder.open(Sources())
        self.appender = Appender(self.folder, 3600.0, self._count, clock=self.clock)
        self.appender.rotate_bytes = rotate_bytes

    def _count(self) -> None:
        self.rotated += 1

    def append(self, *letters: str) -> int:
        return self.appender.append([Run(line(letter)) for letter in letters])[0]

    def close(self) -> None:
        self.appender.close()
        self.folder.close()


def line(letter: str) -> bytes:
    return b'{"Time":"2026-01-31T12:00:00.123Z","Received":"2026-01-31T12:00:00.123Z","Service":"A","Message":"%s"}\n' % letter.encode()


def group(*letters: str) -> bytes:
    lines = b"".join(map(line, letters))
    return lines + check_line(lines)


LINE, GROUP = len(line("a")), len(group("a"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = Log(tmp_path)
    yield opened
    opened.close()


def read(folder: Folder) -> str:
    """Return the letters of all entries, oldest first."""
    with folder.blocks(newest_first=False) as found:
        lines = [line for block in found for line in block.read().splitlines() if not line.startswith(CHECK)]
    return "".join(chr(line[-3]) for line in lines)


def files(path: Path) -> dict[int, bytes]:
    """Return what counts in each file: without the zeros at its end."""
    return {int(file.stem): file.read_bytes().rstrip(b"\0") for file in sorted(path.glob("0*.log"))}


def test_group_is_followed_by_its_checksum_and_known_by_its_position(log: Log, tmp_path: Path) -> None:
    assert log.append("a", "b") == 0
    assert log.append("c") == len(group("a", "b"))
    assert files(tmp_path) == {0: group("a", "b") + group("c")}
    assert read(log.folder) == "abc"


def test_segments_end_by_size_and_their_names_are_positions(tmp_path: Path) -> None:
    log = Log(tmp_path, rotate_bytes=2 * GROUP + 10)
    for letter in "abc":
        log.append(letter)
    assert files(tmp_path) == {0: group("a") + group("b"), 2 * GROUP: group("c")}
    assert (read(log.folder), log.rotated) == ("abc", 1)
    log.close()


def test_segment_ends_when_it_is_old(log: Log, tmp_path: Path) -> None:
    log.append("a")
    log.clock.now += 3599
    assert not log.appender.is_old()
    log.append("b")
    log.clock.now += 1
    assert log.appender.is_old()
    log.append("c")
    assert files(tmp_path) == {0: group("a") + group("b"), 2 * GROUP: group("c")}


def test_nothing_grows_that_was_there_at_start_and_a_clean_end_loses_no_position(tmp_path: Path) -> None:
    first = Log(tmp_path)
    first.append("a")
    first.appender.close()
    first.folder.remember(Sources(), clean=True)
    first.close()
    second = Log(tmp_path)
    assert second.append("b") == GROUP
    assert files(tmp_path) == {0: group("a"), GROUP: group("b")}
    second.close()


def test_positions_leap_after_a_crash_because_some_may_have_been_seen_that_are_gone(tmp_path: Path) -> None:
    first = Log(tmp_path)
    first.append("a")
    first.close()  # without the word that it was clean
    second = Log(tmp_path)
    assert second.append("b") == GROUP + (1 << 30)
    assert read(second.folder) == "ab"
    second.close()


def test_second_writer_in_the_same_folder_is_refused(log: Log, tmp_path: Path) -> None:
    second = Folder(tmp_path)
    with pytest.raises(BlockingIOError):
        second.open(Sources())
    second.close()


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each write write all but its last bytes, and the next one nothing."""
    real = os.pwrite

    def write_half(file: int, data: memoryview, at: int) -> int:
        if len(data) < 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) - 20], at)

    monkeypatch.setattr(appender.os, "pwrite", write_half)


def test_write_that_fails_half_way_leaves_nothing(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a")
    with monkeypatch.context() as patched:
        fill_disk(patched)
        with pytest.raises(OSError, match="No space left"):
            log.append("b")
    assert files(tmp_path) == {0: group("a")}
    log.append("c")
    assert files(tmp_path) == {0: group("a") + group("c")}


def fail_to_sync(file: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_after_a_failed_sync_the_file_is_never_written_again(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a")
    with monkeypatch.context() as patched:
        patched.setattr(appender.os, "fdatasync", fail_to_sync)
        for _ in range(10):  # again and again: no files without entries are left behind
            with pytest.raises(OSError, match="Input/output error"):
                log.append("b")
            with pytest.raises(OSError, match="Input/output error"):
                log.appender.probe()
    assert files(tmp_path) == {0: group("a"), GROUP: b""} or files(tmp_path) == {0: group("a")}
    assert log.append("b") == GROUP
    assert files(tmp_path) == {0: group("a"), GROUP: group("b")}
    assert read(log.folder) == "ab"


def test_what_could_not_be_cut_off_after_a_failed_sync_is_not_shown_after_a_restart_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    log.append("a")
    with monkeypatch.context() as patched:
        patched.setattr(appender.os, "fdatasync", fail_to_sync)
        patched.setattr(appender.os, "ftruncate", lambda file, length: fail_to_sync(file))
        with pytest.raises(OSError, match="Input/output error"):
            log.append("b")
    log.append("b")
    assert files(tmp_path) == {0: group("a") + group("b"), GROUP: group("b")}
    assert read(log.folder) == "ab"
    log.close()
    restarted = Log(tmp_path)
    assert read(restarted.folder) == "ab"
    assert restarted.folder.damaged == 0
    restarted.close()


def test_file_that_cannot_be_removed_after_a_failed_sync_does_not_stand_in_the_way(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(appender.os, "fdatasync", fail_to_sync)
        patched.setattr(appender.os, "ftruncate", lambda file, length: fail_to_sync(file))
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            log.append("a")
        with pytest.raises(OSError, match="Read-only file system"):
            log.append("a")
    assert files(tmp_path) == {0: group("a")}
    log.append("b")
    assert files(tmp_path) == {0: group("b")}
    assert read(log.folder) == "b"


def test_probe_leaves_nothing_behind(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a")
    log.appender.probe()
    with monkeypatch.context() as patched:
        fill_disk(patched)
        patched.setattr(appender, "PROBE_BYTES", 25)
        with pytest.raises(OSError, match="No space left"):
            log.appender.probe()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000000000000000.log", "lock"]


def test_file_that_was_removed_is_noticed_and_a_new_one_begins(log: Log, tmp_path: Path) -> None:
    log.append("a")
    (tmp_path / "00000000000000000000.log").unlink()
    log.clock.now += 1
    log.append("b")
    assert files(tmp_path) == {GROUP: group("b")}
    assert read(log.folder) == "b"


def test_what_somebody_else_appended_is_not_touched_and_not_ours(log: Log, tmp_path: Path) -> None:
    log.append("a")
    with (tmp_path / "00000000000000000000.log").open("ab") as file:
        file.write(b"another's\n")
    log.clock.now += 1
    log.append("b")
    found = files(tmp_path)
    assert found.pop(0).replace(b"\0", b"") == group("a") + b"another's\n"
    assert found == {GROUP: group("b")}
    assert read(log.folder) == "ab"


def test_directory_in_the_place_of_a_file_fails_until_it_is_gone(log: Log, tmp_path: Path) -> None:
    place = tmp_path / "00000000000000000000.log"
    place.mkdir()
    for _ in range(2):
        with pytest.raises(FileExistsError):
            log.append("a")
        with pytest.raises(FileExistsError):
            log.appender.probe()
    place.rmdir()
    log.append("b")
    assert files(tmp_path) == {0: group("b")}


def test_reader_sees_what_was_there_when_it_began_whatever_becomes_of_the_segments(tmp_path: Path) -> None:
    log = Log(tmp_path, rotate_bytes=GROUP)
    for letter in "ab":
        log.append(letter)
    with log.folder.blocks() as found:
        log.append("c")
        for segment in log.folder.closed():
            log.folder.remove(segment)
        assert [block.read()[LINE - 4 : LINE - 3] for block in found] == [b"b", b"a"]
        assert list(files(tmp_path)) == [0, GROUP, 2 * GROUP]
    assert list(files(tmp_path)) == [2 * GROUP]
    assert read(log.folder) == "c"
    log.close()


def test_small_groups_are_written_over_zeros_which_go_when_the_segment_ends(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "00000000000000000000.log"
    log.append("a")
    size = path.stat().st_size
    assert path.read_bytes() == group("a") + bytes(size - GROUP)
    assert size == log.appender.rotate_bytes  # no more than a segment may have
    log.append("b")
    assert path.stat().st_size == size
    log.appender.rotate()
    assert path.read_bytes() == group("a") + group("b")


def test_large_groups_and_a_disk_without_room_for_zeros_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "RESERVE_BYTES", 4 * GROUP)
    log = Log(tmp_path)
    path = tmp_path / "00000000000000000000.log"
    log.append("a", "b")
    assert path.read_bytes() == group("a", "b")
    real = os.pwrite

    def no_room(file: int, data: memoryview, at: int) -> int:
        if at + len(data) > len(group("a", "b")) + GROUP:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, at)

    with monkeypatch.context() as patched:
        patched.setattr(appender.os, "pwrite", no_room)
        log.append("c")
    assert path.read_bytes() == group("a", "b") + group("c")
    log.append("d")
    assert path.read_bytes().rstrip(b"\0") == group("a", "b") + group("c") + group("d")
    assert path.stat().st_size == len(group("a", "b")) + 5 * GROUP
    assert read(log.folder) == "abcd"
    log.close()


def test_zeros_that_could_not_be_cut_off_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path)
    log.append("a")
    with monkeypatch.context() as patched:
        patched.setattr(appender.os, "ftruncate", lambda file, length: fail_to_sync(file))
        log.appender.rotate()
        log.append("b")
        log.close()
    assert all(data.endswith(b"\0") for data in (path.read_bytes() for path in tmp_path.glob("0*.log")))
    restarted = Log(tmp_path)
    assert read(restarted.folder) == "ab"
    assert restarted.folder.damaged == 0
    restarted.close()


def test_blocks_reach_beyond_a_position(tmp_path: Path) -> None:
    log = Log(tmp_path, rotate_bytes=GROUP)
    for letter in "abc":
        log.append(letter)
    for after, expected in ((0, [0, 1, 2]), (GROUP - 1, [0, 1, 2]), (GROUP, [1, 2]), (3 * GROUP - 1, [2]), (3 * GROUP, [])):
        with log.folder.blocks(after, newest_first=False) as found:
            assert [block.start // GROUP for block in found] == expected
    log.close()
