"""What every store of the log service promises (pillion_log.store.base)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from pillion_common.errors import ConfigError, PillionError, StorageFull, Unavailable
from pillion_log.entries import Run, from_line
from pillion_log.store import files, open_store
from pillion_log.store.base import Appended, Store

NOW = "2026-01-31T12:00:00.123Z"


def entry(message: str, source: str = "", seq: int | None = None) -> Run:
    more = f',"Source":"{source}","Seq":{seq}' if seq is not None else ""
    return from_line(f'{{"Message":"{message}"{more}}}'.encode(), NOW)


def append(store: Store, runs: Sequence[Run]) -> asyncio.Future[Appended]:
    """Give the runs to the store at once; the future tells what it told."""
    told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    store.append(runs, lambda outcome: told.set_result(outcome) if isinstance(outcome, Appended) else told.set_exception(outcome))
    return told


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
    assert await append(store, [entry("one"), entry("two")]) == Appended(2, 0)
    assert await append(store, [entry("three")]) == Appended(1, 0)
    assert [line + b"\n" for line in read(store)] == [entry("one").lines, entry("two").lines, entry("three").lines]
    assert store.fault() is None


async def test_nothing_is_kept_twice_even_at_the_same_time(store: Store) -> None:
    batch = [entry(f"m{seq}", "s", seq) for seq in range(10)]
    answers = await asyncio.gather(*[append(store, batch) for _ in range(20)])
    assert sum(answer.accepted for answer in answers) == 10
    assert sum(answer.duplicates for answer in answers) == 190
    assert [line + b"\n" for line in read(store)] == [item.lines for item in batch]


async def test_sources_are_counted_apart_and_entries_without_seq_never_repeat(store: Store) -> None:
    assert await append(store, [entry("m", "a", 1), entry("m", "b", 1), entry("m"), entry("m")]) == Appended(4, 0)
    assert await append(store, [entry("m", "a", 1), entry("m", "b", 2), entry("m")]) == Appended(2, 1)


async def test_of_a_run_that_was_kept_in_part_only_the_rest_is_kept(store: Store) -> None:
    def run(*seqs: int) -> Run:
        return Run(b"".join(entry(f"m{seq}", "s", seq).lines for seq in seqs), len(seqs), "s", seqs)

    assert await append(store, [run(1, 2, 3)]) == Appended(3, 0)
    assert await append(store, [run(2, 3, 5, 9), run(9, 10)]) == Appended(3, 3)
    assert await append(store, [run(4, 6)]) == Appended(0, 2)
    assert [line + b"\n" for line in read(store)] == [entry(f"m{seq}", "s", seq).lines for seq in (1, 2, 3, 5, 9, 10)]


async def test_thousand_calls_at_once_are_all_kept(store: Store) -> None:
    answers = await asyncio.gather(*[append(store, [entry(f"m{number}")]) for number in range(1000)])
    assert set(answers) == {Appended(1, 0)}
    assert len(read(store)) == 1000


async def test_reader_does_not_see_what_is_kept_later(store: Store) -> None:
    await append(store, [entry("one")])
    with store.blocks() as blocks:
        await append(store, [entry("two")])
        assert [line for block in blocks for line in block.lines()] == [entry("one").lines[:-1]]


async def test_newest_block_comes_first(store: Store) -> None:
    await append(store, [entry("x" * 500 + str(number)) for number in range(1500)])
    with store.blocks() as blocks:
        first = next(blocks).lines()
    assert first[-1].endswith(b'x1499"}')
    assert 1 < len(first) < 1500


async def test_close_twice_is_safe_and_nothing_is_kept_afterwards_by_files(store: Store) -> None:
    await append(store, [entry("one")])
    await store.close()
    await store.close()
    if isinstance(store, files.FileStore):
        with pytest.raises(Unavailable):
            await append(store, [entry("two")])


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
    await append(first, [entry("one", "s", 1), entry("two", "s", 2)])
    await first.close()
    second = make(tmp_path)
    await second.load()
    assert await append(second, [entry("two", "s", 2), entry("three", "s", 3)]) == Appended(1, 1)
    assert len(read(second)) == 3
    await second.close()


async def test_store_that_fails_acknowledges_nothing_and_comes_back_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    await store.load()
    await append(store, [entry("one", "s", 1)])

    def fail(folder: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.Folder, "_write", fail)
        with pytest.raises(StorageFull, match="No space left on device; make room") as refusal:
            await append(store, [entry("two", "s", 2)])
        assert refusal.value.retry_after_s == 5
        assert store.fault() == f"the log's store {tmp_path} cannot write: No space left on device"
    await until(lambda: store.fault() is None)
    assert await append(store, [entry("two", "s", 2)]) == Appended(1, 0)
    assert len(read(store)) == 2
    await store.close()


async def test_too_much_waiting_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_WAITING_BYTES", 500)
    store = make(tmp_path)
    await store.load()
    answers = await asyncio.gather(*[append(store, [entry("x" * 200)]) for _ in range(5)], return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Appended)] == [Appended(1, 0)]
    assert {getattr(answer, "code", "") for answer in answers if isinstance(answer, PillionError)} == {"store_busy"}
    assert await append(store, [entry("again")]) == Appended(1, 0)
    await store.close()


async def test_repeat_while_the_first_is_on_its_way_shares_its_fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    await store.load()

    def fail(folder: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.Folder, "_write", fail)
        answers = await asyncio.gather(*[append(store, [entry("one", "s", 1)]) for _ in range(3)], return_exceptions=True)
        assert [type(answer) for answer in answers] == [StorageFull] * 3
    answers = await asyncio.gather(*[append(store, [entry("one", "s", 1)]) for _ in range(3)])
    assert answers == [Appended(1, 0), Appended(0, 1), Appended(0, 1)]
    assert len(read(store)) == 1
    await store.close()


async def test_repeats_are_known_even_while_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    await store.load()
    await append(store, [entry("one", "s", 1)])

    def fail(folder: object, data: bytes) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(files.Folder, "_write", fail)
        with pytest.raises(Unavailable, match="cannot write: Input/output error"):
            await append(store, [entry("two")])
        assert await append(store, [entry("one", "s", 1)]) == Appended(0, 1)
        assert store.fault() is not None
    await store.close()


async def test_what_waits_for_a_write_goes_into_the_next_one_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = []

    def keep(folder: object, data: bytes) -> None:
        groups.append(data.count(b"\n"))

    monkeypatch.setattr(files.Folder, "append", keep)
    store = make(tmp_path)
    await store.load()
    first = [append(store, [entry("a")]) for _ in range(10)]
    first[0].add_done_callback(lambda _: [append(store, [entry("c")]) for _ in range(5)])
    await asyncio.sleep(0)  # the first ten are handed over
    second = [append(store, [entry("b")]) for _ in range(20)]
    await asyncio.gather(*first, *second)
    await store.close()
    assert groups == [10, 20, 5]


async def test_close_writes_what_waits_and_tells_it(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.load()
    waiting = [append(store, [entry(f"m{number}")]) for number in range(100)]
    await store.close()
    assert [answer.result() for answer in waiting] == [Appended(1, 0)] * 100
    assert len((tmp_path / "entries.log").read_bytes().splitlines()) == 100


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
    (tmp_path / "entries.log").write_bytes(b"damaged\n" + entry("one", "s", 1).lines)
    store = make(tmp_path)
    await store.load()
    assert "1 lines in" in caplog.text
    assert await append(store, [entry("one", "s", 1)]) == Appended(0, 1)
    await store.close()


@pytest.mark.parametrize("uri", ["", "files:", "memory:x", "sqlite:x", "nats://a"])
def test_unknown_store_is_a_fault_of_the_configuration(uri: str) -> None:
    with pytest.raises(ConfigError, match="use files:DIR or memory:"):
        open_store(uri, 1 << 20, 3)


async def test_an_answer_that_cannot_be_given_keeps_no_other_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = make(tmp_path)
    await store.load()

    def fail(outcome: object) -> None:
        raise RuntimeError("the client's connection is in a state nobody thought of")

    store.append([entry("one")], fail)
    assert await append(store, [entry("two")]) == Appended(1, 0)
    assert "an answer was not given" in caplog.text
    await store.close()
