"""What every store of the log service promises (pillion_log.store.base)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pillion_common.errors import ConfigError, PillionError, StorageFull, Unavailable
from pillion_log.entries import Entry, from_line
from pillion_log.store import files, open_store
from pillion_log.store.base import Appended, Store

NOW = "2026-01-31T12:00:00.123Z"


def entry(message: str, source: str = "", seq: int | None = None) -> Entry:
    more = f',"Source":"{source}","Seq":{seq}' if seq is not None else ""
    return from_line(f'{{"Message":"{message}"{more}}}'.encode(), NOW)


def read(store: Store) -> list[bytes]:
    with store.blocks() as blocks:
        return [line for block in reversed(list(blocks)) for line in block.lines()]


@pytest.fixture(params=["memory:", "files:"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    uri = f"files:{tmp_path}" if request.param == "files:" else request.param
    opened = open_store(uri, 1 << 20, 3)
    await opened.load()
    yield opened
    await opened.close()


async def test_entries_are_kept_as_they_are_in_their_order(store: Store) -> None:
    assert await store.append([entry("one"), entry("two")]) == Appended(2, 0)
    assert await store.append([entry("three")]) == Appended(1, 0)
    assert [line + b"\n" for line in read(store)] == [entry("one").line, entry("two").line, entry("three").line]
    assert store.fault() is None


async def test_nothing_is_kept_twice_even_at_the_same_time(store: Store) -> None:
    batch = [entry(f"m{seq}", "s", seq) for seq in range(10)]
    answers = await asyncio.gather(*[store.append(batch) for _ in range(20)])
    assert sum(answer.accepted for answer in answers) == 10
    assert sum(answer.duplicates for answer in answers) == 190
    assert [line + b"\n" for line in read(store)] == [item.line for item in batch]


async def test_sources_are_counted_apart_and_entries_without_seq_never_repeat(store: Store) -> None:
    assert await store.append([entry("m", "a", 1), entry("m", "b", 1), entry("m"), entry("m")]) == Appended(4, 0)
    assert await store.append([entry("m", "a", 1), entry("m", "b", 2), entry("m")]) == Appended(2, 1)


async def test_thousand_calls_at_once_are_all_kept(store: Store) -> None:
    answers = await asyncio.gather(*[store.append([entry(f"m{number}")]) for number in range(1000)])
    assert set(answers) == {Appended(1, 0)}
    assert len(read(store)) == 1000


async def test_reader_does_not_see_what_is_kept_later(store: Store) -> None:
    await store.append([entry("one")])
    with store.blocks() as blocks:
        await store.append([entry("two")])
        assert [line for block in blocks for line in block.lines()] == [entry("one").line[:-1]]


async def test_newest_block_comes_first(store: Store) -> None:
    await store.append([entry("x" * 500 + str(number)) for number in range(1500)])
    with store.blocks() as blocks:
        first = next(blocks).lines()
    assert first[-1].endswith(b'x1499"}')
    assert 1 < len(first) < 1500


async def test_close_twice_is_safe_and_nothing_is_kept_afterwards_by_files(store: Store) -> None:
    await store.append([entry("one")])
    await store.close()
    await store.close()
    if isinstance(store, files.FileStore):
        with pytest.raises(Unavailable):
            await store.append([entry("two")])


# What only a store with files can show.


def make(path: Path) -> files.FileStore:
    return files.FileStore(path, rotate_bytes=1 << 20, keep=3, probe_every_s=0.01)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_restarted_store_has_everything_and_knows_its_duplicates(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.load()
    await first.append([entry("one", "s", 1), entry("two", "s", 2)])
    await first.close()
    second = make(tmp_path)
    await second.load()
    assert await second.append([entry("two", "s", 2), entry("three", "s", 3)]) == Appended(1, 1)
    assert len(read(second)) == 3
    await second.close()


async def test_store_that_fails_acknowledges_nothing_and_comes_back_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    await store.load()
    await store.append([entry("one", "s", 1)])

    def fail(folder: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.Folder, "_write", fail)
        with pytest.raises(StorageFull, match="No space left on device; make room") as refusal:
            await store.append([entry("two", "s", 2)])
        assert refusal.value.retry_after_s == 5
        assert store.fault() == f"the log's store {tmp_path} cannot write: No space left on device"
    await until(lambda: store.fault() is None)
    assert await store.append([entry("two", "s", 2)]) == Appended(1, 0)
    assert len(read(store)) == 2
    await store.close()


async def test_too_much_waiting_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_WAITING_BYTES", 500)
    store = make(tmp_path)
    await store.load()
    answers = await asyncio.gather(*[store.append([entry("x" * 200)]) for _ in range(5)], return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Appended)] == [Appended(1, 0)]
    assert {getattr(answer, "code", "") for answer in answers if isinstance(answer, PillionError)} == {"store_busy"}
    assert await store.append([entry("again")]) == Appended(1, 0)
    await store.close()


async def test_caller_that_gives_up_harms_nobody(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.load()
    impatient = asyncio.create_task(store.append([entry("one")]))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await store.append([entry("two")]) == Appended(1, 0)
    assert len(read(store)) == 2
    await store.close()


async def test_folder_of_another_writer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    await first.load()
    with pytest.raises(Unavailable, match="give each its own folder"):
        await second.load()
    await second.close()
    await first.close()


async def test_folder_that_cannot_be_opened_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "entries.log").mkdir()
    store = make(tmp_path)
    with pytest.raises(Unavailable, match="check the folder's owner and free space"):
        await store.load()
    await store.close()


async def test_damaged_lines_are_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "entries.log").write_bytes(b"damaged\n" + entry("one", "s", 1).line)
    store = make(tmp_path)
    await store.load()
    assert "1 lines in" in caplog.text
    assert await store.append([entry("one", "s", 1)]) == Appended(0, 1)
    await store.close()


@pytest.mark.parametrize("uri", ["", "files:", "memory:x", "sqlite:x", "nats://a"])
def test_unknown_store_is_a_fault_of_the_configuration(uri: str) -> None:
    with pytest.raises(ConfigError, match="use files:DIR or memory:"):
        open_store(uri, 1 << 20, 3)
