"""What the file store promises when the disk, the system or a kill -9 has its way."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillion_common.errors import Unavailable
from pillion_log.entries import Run, from_line
from pillion_log.store import appender, packed
from pillion_log.store.base import CHECK, Appended
from pillion_log.store.files import FileOptions, FileStore

NOW = "2026-01-31T12:00:00.123Z"
DYING = Path(__file__).with_name("dying_log_store.py")
DEATHS = range(3, 240, 8)
WAIT_S = 60


def entry(seq: int) -> Run:
    return from_line(f'{{"Message":"{"x" * 200}","Source":"s","Seq":{seq}}}'.encode(), NOW)


def append(store: FileStore, *seqs: int) -> asyncio.Future[Appended]:
    told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    store.append(
        [entry(seq) for seq in seqs],
        lambda outcome: told.set_result(outcome) if isinstance(outcome, Appended) else told.set_exception(outcome),
    )
    return told


def make(path: Path, **more: Any) -> FileStore:
    return FileStore(path, FileOptions(**({"max_age_s": 1e10} | more)), probe_every_s=0.01)


def seqs(store: FileStore) -> list[int]:
    with store.blocks(newest_first=False) as blocks:
        lines = [line for block in blocks for line in block.read().splitlines() if not line.startswith(CHECK)]
    return [json.loads(line)["Seq"] for line in lines]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def is_packed(path: Path) -> Callable[[], bool]:
    return lambda: len(list(path.glob("0*.log"))) == 1


async def test_kill_9_at_any_call_loses_nothing_that_was_acknowledged_and_keeps_nothing_twice(tmp_path: Path) -> None:
    survivors = 0
    for death in DEATHS:
        folder = tmp_path / str(death)
        words = [sys.executable, str(DYING), str(folder), str(death)]
        child = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False)
        survivors += child.returncode == 0
        assert child.returncode in (-9, 0), child.stderr
        acknowledged = [int(line) for line in child.stdout.splitlines()]
        store = make(folder)
        await store.load()
        stored = seqs(store)
        assert stored == list(range(1, len(stored) + 1))
        assert len(acknowledged) <= len(stored) <= len(acknowledged) + 1
        await append(store, *range(1, 61))
        assert seqs(store) == list(range(1, 61))
        assert (store.stats().damaged, store.fault()) == (0, None)
        await store.close()
    assert survivors <= 2  # else the deaths are too late to show anything


async def test_sources_are_known_after_a_restart_without_reading_what_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path, rotate_bytes=1000)
    await first.load()
    for seq in range(1, 11):
        await append(first, seq)
    await until(is_packed(tmp_path))
    await first.close()
    read = []
    monkeypatch.setattr(packed, "unpack", lambda frame, length: read.append(length))
    second = make(tmp_path)
    await second.load()
    assert await append(second, 9, 10, 11) == Appended(1, 2)
    assert read == []
    assert second.stats().services["unknown"].lines == 11
    await second.close()


async def test_sources_are_learnt_from_the_entries_where_nothing_is_remembered(tmp_path: Path) -> None:
    first = make(tmp_path, rotate_bytes=1000)
    await first.load()
    for seq in range(1, 11):
        await append(first, seq)
    await until(is_packed(tmp_path))
    await first.close()
    (tmp_path / "sources.json").unlink()
    second = make(tmp_path, rotate_bytes=1000)
    await second.load()
    assert await append(second, 9, 10, 11) == Appended(1, 2)
    await second.close()


async def test_neither_sources_nor_positions_are_forgotten_with_the_oldest_entries(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.load()
    await append(first, 1, 2, 3)
    end = first.stats().end
    await first.close()
    second = make(tmp_path, max_age_s=0.001)  # all of it is too old
    await second.load()
    await until(lambda: second.stats().removed_segments == 1)
    assert (second.stats().services, second.stats().oldest, list(tmp_path.glob("0*"))) == ({}, end, [])
    assert await append(second, 3, 4) == Appended(1, 1)
    with second.blocks() as blocks:
        assert next(blocks).start == end
    await second.close()


class Syncs:
    """Stands in for os.fdatasync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.fail = False
        monkeypatch.setattr(appender.os, "fdatasync", self)

    def __call__(self, file: int) -> None:
        self.calls += 1
        if self.fail:
            raise OSError(errno.EIO, "Input/output error")


async def test_failing_sync_acknowledges_nothing_serves_reads_and_the_entries_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    store = make(tmp_path)
    await store.load()
    await append(store, 1)
    syncs.fail = True
    for _ in range(5):
        with pytest.raises(Unavailable, match="cannot write: Input/output error") as refusal:
            await append(store, 2)
        assert (refusal.value.code, refusal.value.retry_after_s) == ("store_failed", 5)
    assert store.fault() == f"the log's store {tmp_path} cannot write: Input/output error"
    assert seqs(store) == [1]
    syncs.fail = False
    await until(lambda: store.fault() is None)
    assert await append(store, 2) == Appended(1, 0)
    assert seqs(store) == [1, 2]
    assert [path.read_bytes().count(b'"Seq"') for path in sorted(tmp_path.glob("0*.log"))][-1] == 1  # in a file of its own
    await store.close()


async def test_interval_acknowledges_first_and_syncs_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    store = make(tmp_path, sync="interval", sync_every_s=0.05)
    await store.load()
    for seq in range(1, 51):
        await append(store, seq)
    assert syncs.calls < 25
    await until(lambda: syncs.calls > 0)
    before = syncs.calls
    await asyncio.sleep(0.2)
    assert syncs.calls <= before + 1  # nothing new: nothing to sync
    syncs.fail = True
    await append(store, 51)
    await until(lambda: store.fault() is not None)
    with pytest.raises(Unavailable, match="Input/output error"):
        await append(store, 52)
    syncs.fail = False
    await until(lambda: store.fault() is None)
    await store.close()


async def test_segment_that_is_old_ends_and_is_packed_though_nothing_comes_in(tmp_path: Path) -> None:
    store = make(tmp_path, rotate_s=0.05)
    await store.load()
    await append(store, 1)
    await until(lambda: [path.suffix for path in sorted(tmp_path.glob("0*"))] == [".idx", ".zst"])
    assert seqs(store) == [1]
    await append(store, 2)
    assert seqs(store) == [1, 2]
    await store.close()


async def test_os_never_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    store = make(tmp_path, sync="os", rotate_bytes=1000)
    await store.load()
    for seq in range(1, 11):
        await append(store, seq)
    await store.close()
    assert syncs.calls == 0


async def test_group_that_fails_for_a_fault_of_ours_does_not_end_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(tmp_path)
    await store.load()
    with monkeypatch.context() as patched:
        patched.setattr(appender, "check_line", lambda data: 1 / 0)
        with pytest.raises(Unavailable, match="its log says how"):
            await append(store, 1)
    assert "ZeroDivisionError" in caplog.text
    assert await append(store, 1) == Appended(1, 0)
    await store.close()


async def test_current_log_is_written_on_request(tmp_path: Path) -> None:
    store = make(tmp_path, current=True)
    await store.load()
    await append(store, 1)
    await store.close()
    assert (tmp_path / "current.1.log").read_text() == f"{NOW} [unknown] - {'x' * 200}\n"
