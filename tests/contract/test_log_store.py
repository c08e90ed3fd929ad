"""What every store of the log service promises (pillion_log.store.base)."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from nats_lab import NatsServer, nats_servers, store_uri

from pillion_common.errors import ConfigError, PillionError, StorageFull, Unavailable
from pillion_log.entries import Run, from_line
from pillion_log.store import appender, files, open_store
from pillion_log.store.appender import Appender
from pillion_log.store.base import CHECK, Appended, Block, ServiceCount, Store

NOW = "2026-01-31T12:00:00.123Z"
KEPT_S = 100 * 365 * 86400.0


def entry(message: str, source: str = "", seq: int | None = None) -> Run:
    more = f',"Source":"{source}","Seq":{seq}' if seq is not None else ""
    return from_line(f'{{"Message":"{message}"{more}}}'.encode(), NOW)


def append(store: Store, runs: Sequence[Run]) -> asyncio.Future[Appended]:
    """Give the runs to the store at once; the future tells what it told."""
    told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    store.append(runs, lambda outcome: told.set_result(outcome) if isinstance(outcome, Appended) else told.set_exception(outcome))
    return told


def read(store: Store) -> list[bytes]:
    with store.blocks(newest_first=False) as blocks:
        return [line for block in blocks for line in lines_of(block)]


def lines_of(block: Block) -> list[bytes]:
    return [line for line in block.read().splitlines(keepends=True) if not line.startswith(CHECK)]


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


@pytest.fixture(params=["memory:", "files:", "nats:"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    uri = f"files:{tmp_path}" if request.param == "files:" else request.param
    if request.param == "nats:":
        uri = store_uri([request.getfixturevalue("nats_server")], prefix=f"p{secrets.token_hex(4)}")
    opened = open_store(uri, files.FileOptions(max_age_s=KEPT_S, max_bytes=64 << 20))
    await opened.load()
    await until(lambda: opened.fault() is None)
    yield opened
    await opened.close()


async def test_entries_are_kept_as_they_are_in_their_order(store: Store) -> None:
    assert await append(store, [entry("one"), entry("two")]) == Appended(2, 0)
    assert await append(store, [entry("three")]) == Appended(1, 0)
    assert read(store) == [entry("one").lines, entry("two").lines, entry("three").lines]
    assert store.fault() is None


async def test_nothing_is_kept_twice_even_at_the_same_time(store: Store) -> None:
    batch = [entry(f"m{seq}", "s", seq) for seq in range(10)]
    answers = await asyncio.gather(*[append(store, batch) for _ in range(20)])
    assert sum(answer.accepted for answer in answers) == 10
    assert sum(answer.duplicates for answer in answers) == 190
    assert read(store) == [item.lines for item in batch]


async def test_sources_are_counted_apart_and_entries_without_seq_never_repeat(store: Store) -> None:
    assert await append(store, [entry("m", "a", 1), entry("m", "b", 1), entry("m"), entry("m")]) == Appended(4, 0)
    assert await append(store, [entry("m", "a", 1), entry("m", "b", 2), entry("m")]) == Appended(2, 1)


async def test_of_a_run_that_was_kept_in_part_only_the_rest_is_kept(store: Store) -> None:
    def run(*seqs: int) -> Run:
        return Run(b"".join(entry(f"m{seq}", "s", seq).lines for seq in seqs), len(seqs), "s", seqs)

    assert await append(store, [run(1, 2, 3)]) == Appended(3, 0)
    assert await append(store, [run(2, 3, 5, 9), run(9, 10)]) == Appended(3, 3)
    assert await append(store, [run(4, 6)]) == Appended(0, 2)
    assert [line for line in read(store) if b'"Gap"' not in line] == [entry(f"m{seq}", "s", seq).lines for seq in (1, 2, 3, 5, 9, 10)]


async def test_thousand_calls_at_once_are_all_kept(store: Store) -> None:
    answers = await asyncio.gather(*[append(store, [entry(f"m{number}")]) for number in range(1000)])
    assert set(answers) == {Appended(1, 0)}
    assert len(read(store)) == 1000


async def test_reader_does_not_see_what_is_kept_later(store: Store) -> None:
    await append(store, [entry("one")])
    with store.blocks() as blocks:
        await append(store, [entry("two")])
        assert [line for block in blocks for line in lines_of(block)] == [entry("one").lines]


async def test_newest_block_comes_first_unless_the_oldest_is_asked_for(store: Store) -> None:
    for number in range(5):
        await append(store, [entry("x" * 500 + str(number)) for _ in range(1500)])
    with store.blocks() as blocks:
        first = lines_of(next(blocks))
    assert first[-1].endswith(b'x4"}\n')
    assert 1 < len(first) < 7500
    with store.blocks(newest_first=False) as blocks:
        assert lines_of(next(blocks))[0].endswith(b'x0"}\n')


async def test_positions_rise_and_lead_back_to_their_entries(store: Store) -> None:
    for number in range(5):
        await append(store, [entry("x" * 500 + str(number)) for _ in range(1500)])
    with store.blocks(newest_first=False) as blocks:
        every = [(block.start, block.end, len(block.read())) for block in blocks]
    assert all(end - start == length > 0 for start, end, length in every)
    assert [start for start, _, _ in every[1:]] == [end for _, end, _ in every[:-1]]
    for _, after, _ in every:
        with store.blocks(after) as blocks:
            assert sorted(block.start for block in blocks) == [start for start, end, _ in every if end > after]
        with store.blocks(after - 1, newest_first=False) as blocks:
            assert next(blocks).end == after


async def test_follower_is_told_of_each_group_in_order_without_a_hole_until_it_stops(store: Store) -> None:
    told: list[Block] = []
    stop = store.follow(told.append)
    await asyncio.gather(*[append(store, [entry(f"m{number}", "s", number)]) for number in range(100)])
    await append(store, [entry("m99", "s", 99)])  # a repeat is nothing new
    assert b"".join(block.read() for block in told) == b"".join(read(store))
    assert all(one.end <= next_.start for one, next_ in itertools.pairwise(told))
    with store.blocks(newest_first=False) as blocks:
        whole = next(blocks)
        for block in told:
            assert whole.read()[block.start - whole.start :].startswith(block.read())
    stop()
    stop()
    before = len(told)
    await append(store, [entry("after")])
    assert len(told) == before


async def test_follower_that_fails_is_told_no_more_and_harms_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def fail(block: Block) -> None:
        raise RuntimeError("a listener in a state nobody thought of")

    told: list[Block] = []
    store.follow(fail)
    store.follow(told.append)
    for number in range(3):
        assert await append(store, [entry(f"m{number}")]) == Appended(1, 0)
    assert len(told) == 3
    assert caplog.text.count("who followed the store is told no more") == 1


async def test_missing_entries_are_told_by_a_gap_entry_that_nobody_counts(store: Store) -> None:
    assert await append(store, [entry("one", "s", 1)]) == Appended(1, 0)
    assert await append(store, [entry("five", "s", 5)]) == Appended(1, 0)
    shown = [json.loads(line) for line in read(store)]
    assert [(line["Message"], line.get("Gap")) for line in shown] == [
        ("one", None),
        ("3 entries of unknown are missing: s sent numbers that leave them out", 3),
        ("five", None),
    ]
    assert store.stats().services["unknown"].gaps == 3


async def test_stats_count_lines_bytes_and_times_per_service(store: Store) -> None:
    def of(service: str, received: str) -> Run:
        return from_line(f'{{"Message":"m","Service":"{service}"}}'.encode(), received)

    early, late = "2026-01-31T12:00:00.123Z", "2026-01-31T12:00:05.000Z"
    await append(store, [of("A", early), of("B", early), of("A", late)])
    size = len(of("A", early).lines)
    stats = store.stats()
    assert stats.services == {"A": ServiceCount(2, 2 * size, 0, early, late), "B": ServiceCount(1, size, 0, early, early)}
    assert (stats.oldest, stats.end > 3 * size - 1, stats.removed_segments, stats.damaged) == (0, True, 0, 0)


async def test_summary_tells_what_is_in_a_block(store: Store) -> None:
    sent = b'{"Message":"m","Service":"A","Time":"2026-01-31T11:00:00Z"}'
    await append(store, [from_line(sent, NOW), from_line(sent.replace(b"11:00:00Z", b"13:00:00.000001Z"), NOW), entry("m")])
    with store.blocks() as blocks:
        summary = next(blocks).summary
    assert summary is not None
    assert (summary.first_time, summary.last_time) == ("2026-01-31T11:00:00.000Z", "2026-01-31T13:00:00.000001Z")
    assert (summary.first_received, summary.last_received) == (NOW, NOW)
    assert (summary.may_have("A"), summary.may_have("unknown"), summary.may_have("B")) == (True, True, False)


async def test_close_twice_is_safe_and_nothing_is_kept_afterwards_by_files(store: Store) -> None:
    await append(store, [entry("one")])
    await store.close()
    await store.close()
    if isinstance(store, files.FileStore):
        with pytest.raises(Unavailable):
            await append(store, [entry("two")])


# What only a store with files can show.


def make(path: Path) -> files.FileStore:
    return files.FileStore(path, files.FileOptions(rotate_bytes=1 << 20, max_age_s=KEPT_S), probe_every_s=0.01)


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

    def fail(file: int, data: bytes, at: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(appender, "_write_all", fail)
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
    for _ in range(5):  # what was answered waits no more
        assert await append(store, [entry("again")]) == Appended(1, 0)
    await store.close()


async def test_repeat_while_the_first_is_on_its_way_shares_its_fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    await store.load()

    def fail(file: int, data: bytes, at: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(appender, "_write_all", fail)
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

    def fail(file: int, data: bytes, at: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(appender, "_write_all", fail)
        with pytest.raises(Unavailable, match="cannot write: Input/output error"):
            await append(store, [entry("two")])
        assert await append(store, [entry("one", "s", 1)]) == Appended(0, 1)
        assert store.fault() is not None
    await store.close()


async def test_what_comes_in_during_a_write_goes_into_the_next_one_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = []
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)
    real = Appender.append

    def wait(appender: Appender, runs: Sequence[Run]) -> tuple[int, bytes]:
        groups.append(len(runs))
        entered.release()
        go_on.acquire()
        return real(appender, runs)

    monkeypatch.setattr(Appender, "append", wait)
    store = make(tmp_path)
    await store.load()
    first = [append(store, [entry("a")]) for _ in range(10)]
    await asyncio.to_thread(entered.acquire)
    second = [append(store, [entry("b")]) for _ in range(20)]
    go_on.release()
    await asyncio.to_thread(entered.acquire)  # taken without the loop's help, though it could have given it
    go_on.release(2)
    await asyncio.gather(*first, *second)
    await store.close()
    assert groups == [10, 20]


async def test_close_writes_what_waits_and_tells_it(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.load()
    waiting = [append(store, [entry(f"m{number}")]) for number in range(100)]
    await store.close()
    assert [answer.result() for answer in waiting] == [Appended(1, 0)] * 100
    assert (tmp_path / "00000000000000000000.log").read_bytes().count(b'"Message"') == 100


async def test_folder_of_another_writer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    await first.load()
    with pytest.raises(Unavailable, match="give each its own folder"):
        await second.load()
    await second.close()
    await first.close()


async def test_folder_that_cannot_be_opened_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000000.log").mkdir()
    store = make(tmp_path)
    with pytest.raises(Unavailable, match="check the folder's owner and free space"):
        await store.load()
    await store.close()


@pytest.mark.parametrize("uri", ["", "files:", "memory:x", "sqlite:x", "nats:x"])
def test_unknown_store_is_a_fault_of_the_configuration(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"use (files:DIR, nats://HOST:PORT,HOST:PORT,HOST:PORT or memory:|nats://HOST)"):
        open_store(uri, files.FileOptions())


async def test_an_answer_that_cannot_be_given_keeps_no_other_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = make(tmp_path)
    await store.load()

    def fail(outcome: object) -> None:
        raise RuntimeError("the client's connection is in a state nobody thought of")

    store.append([entry("one")], fail)
    assert await append(store, [entry("two")]) == Appended(1, 0)
    assert "an answer was not given" in caplog.text
    await store.close()
