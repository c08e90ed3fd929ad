"""The forwarder: batches, repeats, classic log services, and what it does when nobody takes the lines."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from fake_log import FakeLog, fake_log

from pillion_common.models import Patch, ProviderEntry
from pillion_common.trust import Token
from pillion_sidecar.logs.forwarder import Forwarder, gzip
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.table.providers import ProviderTable

SECRET = "s3cret-s3cret-s3cret"


@pytest.fixture
async def log() -> AsyncIterator[FakeLog]:
    async with fake_log() as fake:
        yield fake


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool", 1 << 24)) as spool:
        yield spool


@pytest.fixture
def table() -> ProviderTable:
    return ProviderTable({"LogService": 0})


def provide(table: ProviderTable, *urls: str) -> None:
    table.apply(Patch(added=tuple(ProviderEntry("LogService", url) for url in urls), full=True, services=("LogService",)))


def keep(spool: Spool, *messages: str) -> None:
    for message in messages:
        spool.append({"Service": "Portald", "Message": message})


@asynccontextmanager
async def running(forwarder: Forwarder) -> AsyncIterator[Forwarder]:
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
        assert not task.done(), "a forwarder goes on for ever"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
        forwarder.close()
        await asyncio.sleep(0)


async def until(look: Callable[[], object], within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)


async def test_what_waits_goes_out_in_order_in_batches(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    keep(spool, *(f"m{n}" for n in range(1200)))
    async with running(Forwarder(spool, table, "LogService", Token(SECRET))):
        await until(lambda: not spool.waiting)
    assert log.messages() == [f"m{n}" for n in range(1200)]
    assert [len(batch) for batch in log.batches] == [500, 500, 200]
    first = log.requests[0]
    assert (first.method, first.path) == ("POST", "/logs")
    assert first.header(b"content-type") == b"application/x-ndjson"
    assert first.header(b"authorization") == b"Bearer " + SECRET.encode()
    assert log.batches[0][0] == {"Service": "Portald", "Message": "m0", "Source": spool.source, "Seq": 1}


async def test_a_batch_stays_under_its_bytes(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    keep(spool, *("x" * 60_000 for _ in range(20)))
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: not spool.waiting)
    assert max(len(request.body) for request in log.requests) <= 512 * 1024
    assert len(log.messages()) == 20


async def test_a_new_line_is_sent_when_it_comes(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        await asyncio.sleep(0.05)
        keep(spool, "a")
        forwarder.nudge()
        await until(lambda: log.messages() == ["a"], 0.5)


async def test_lines_wait_for_a_provider_and_the_turns_are_told(
    log: FakeLog, spool: Spool, table: ProviderTable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pillion")
    keep(spool, "a", "b")
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        await until(lambda: "log lines wait in the spool: no provider of LogService is up now" in caplog.text)
        await asyncio.sleep(0.3)
        provide(table, log.url)
        forwarder.try_now()
        await until(lambda: not spool.waiting, 0.5)
    assert log.messages() == ["a", "b"]
    assert caplog.text.count("log lines wait in the spool") == 1
    assert caplog.text.count("log lines go to LogService again") == 1


@pytest.mark.parametrize("status", [400, 401, 413, 500, 503])
async def test_what_is_not_taken_stays_and_is_sent_again(log: FakeLog, spool: Spool, table: ProviderTable, status: int) -> None:
    provide(table, log.url)
    keep(spool, "a")
    log.logs = status
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: len(log.requests) >= 2)
        assert spool.waiting == 1
        log.logs = 200
        await until(lambda: not spool.waiting)
    assert log.messages() == ["a"]


async def test_a_classic_log_service_gets_line_by_line(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    log.logs = 404
    keep(spool, "a", "two\nlines")
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        await until(lambda: not spool.waiting)
        keep(spool, "c")
        forwarder.nudge()
        await until(lambda: not spool.waiting)
    assert log.lines == ["[Portald] - a", "[Portald] - two lines", "[Portald] - c"]
    assert [request.path for request in log.requests] == ["/logs", "/log", "/log", "/log"]
    assert log.requests[-1].header(b"content-type") == b"text/plain"


async def test_a_classic_log_service_that_fails_half_way_gets_the_rest_later(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    log.logs, log.log = 405, 500
    keep(spool, "a", "b")
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: len(log.requests) >= 3)
        assert spool.waiting == 2
        log.log = 200
        await until(lambda: not spool.waiting)
    assert log.lines == ["[Portald] - a", "[Portald] - b"]


async def test_a_provider_with_a_path_is_called_below_it(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, f"{log.url}/logging/")
    keep(spool, "a")
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: log.requests)
    assert log.requests[0].path == "/logging/logs"


async def test_rejected_lines_are_told_and_not_sent_for_ever(
    log: FakeLog, spool: Spool, table: ProviderTable, caplog: pytest.LogCaptureFixture
) -> None:
    provide(table, log.url)
    log.answer = b'{"Accepted":0,"Duplicates":0,"Rejected":[{"Line":1,"Error":"too odd"}]}'
    keep(spool, "a")
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: not spool.waiting)
    assert "the log service rejected 1 lines" in caplog.text
    assert "too odd" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"Rejected":null}', b"{"])
async def test_an_answer_that_says_little_is_enough(log: FakeLog, spool: Spool, table: ProviderTable, answer: bytes) -> None:
    provide(table, log.url)
    log.answer = answer
    keep(spool, "a")
    async with running(Forwarder(spool, table, "LogService", None)):
        await until(lambda: not spool.waiting)


async def test_the_apps_own_lines_do_not_break_the_back_off(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    # While the log service is ill, each line must not become one more request to it (and one more reading of the spool).
    provide(table, log.url)
    log.logs = 503
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        for n in range(200):
            keep(spool, f"m{n}")
            forwarder.nudge()
            await asyncio.sleep(0.005)
        assert len(log.requests) <= 40
        log.logs = 200
        await until(lambda: not spool.waiting, 6.0)


async def test_a_spool_whose_lines_are_gone_does_not_end_the_forwarder(log: FakeLog, table: ProviderTable, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / f"{11:020d}.ndjson").write_text("")  # what a power cut may leave: the name of the segment after lines 1 to 10
    spool = Spool(folder, 1 << 20)
    provide(table, log.url)
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        await asyncio.sleep(0.1)
        keep(spool, "a")
        forwarder.nudge()
        await until(lambda: len(log.messages()) == 2)
    assert log.messages() == ["10 entries of unknown are missing: the sidecar's spool or its disk was full", "a"]
    spool.close()


async def test_a_deleted_segment_does_not_end_the_forwarder(log: FakeLog, spool: Spool, table: ProviderTable, tmp_path: Path) -> None:
    provide(table, log.url)
    keep(spool, "a")
    for path in (tmp_path / "spool").glob("*.ndjson"):
        path.unlink()
    async with running(Forwarder(spool, table, "LogService", None)):
        await asyncio.sleep(0.2)


@pytest.fixture
def unblock() -> Iterator[None]:
    """End a loop that never yields to others; asyncio's own time-outs cannot."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError("the event loop was blocked")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("unblock")
async def test_nothing_is_forwarded_where_no_service_takes_lines(spool: Spool, table: ProviderTable) -> None:
    keep(spool, "a")
    forwarder = Forwarder(spool, table, "", None)
    async with running(forwarder):
        await asyncio.sleep(0.05)
    async with asyncio.timeout(0.5):
        await forwarder.flush(5.0)
    assert spool.waiting == 1


async def test_flush_sends_everything_that_is_left(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    keep(spool, *(f"m{n}" for n in range(1200)))
    forwarder = Forwarder(spool, table, "LogService", None)
    await forwarder.flush(5.0)
    forwarder.close()
    await asyncio.sleep(0)
    assert log.messages() == [f"m{n}" for n in range(1200)]


async def test_flush_gives_up_in_time_and_says_what_stays(
    log: FakeLog, spool: Spool, table: ProviderTable, caplog: pytest.LogCaptureFixture
) -> None:
    provide(table, log.url)
    log.delay_s = 30.0
    keep(spool, "a", "b")
    forwarder = Forwarder(spool, table, "LogService", None)
    async with asyncio.timeout(1.0):
        await forwarder.flush(0.1)
    forwarder.close()
    await asyncio.sleep(0)
    assert "2 log lines stay in the spool for the next start" in caplog.text


async def test_flush_without_a_provider_does_not_wait(spool: Spool, table: ProviderTable) -> None:
    keep(spool, "a")
    async with asyncio.timeout(0.5):
        await Forwarder(spool, table, "LogService", None).flush(5.0)


async def test_it_goes_to_another_provider_when_the_first_is_withdrawn(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    async with fake_log() as second:
        provide(table, log.url)
        async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
            keep(spool, "a")
            forwarder.nudge()
            await until(lambda: log.messages() == ["a"])
            provide(table, second.url)
            keep(spool, "b")
            forwarder.nudge()
            await until(lambda: second.messages() == ["b"])


# More than one.


@pytest.mark.parametrize("status", [500, 503, 507])
async def test_one_that_takes_nothing_is_left_for_another_at_once(log: FakeLog, spool: Spool, table: ProviderTable, status: int) -> None:
    keep(spool, *(f"m{n}" for n in range(1200)))
    async with fake_log() as other:
        provide(table, log.url, other.url)
        log.logs = other.logs = status
        forwarder = Forwarder(spool, table, "LogService", None)
        async with running(forwarder):
            await until(lambda: log.requests and other.requests)
            other.logs = 200
            await until(lambda: not spool.waiting)
        assert other.messages() == [f"m{n}" for n in range(1200)]
        assert log.messages() == []
        assert len(log.requests) <= 5, "it is not asked again as long as the other one takes lines"


async def test_only_what_was_not_acknowledged_goes_to_another(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    keep(spool, *(f"m{n}" for n in range(700)))
    log.most = 1
    async with fake_log() as other:
        provide(table, log.url)
        async with running(Forwarder(spool, table, "LogService", None)):
            await until(lambda: log.logs == 503)
            provide(table, log.url, other.url)
            await until(lambda: not spool.waiting)
    assert log.messages() + other.messages() == [f"m{n}" for n in range(700)]


async def test_a_log_service_that_asks_for_time_gets_it(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    log.logs, log.retry_after = 507, b"30"
    keep(spool, "a")
    async with running(Forwarder(spool, table, "LogService", None)) as forwarder:
        await until(lambda: log.requests)
        await asyncio.sleep(1.0)
        assert len(log.requests) == 1
        log.logs = 200
        forwarder.try_now()
        await until(lambda: not spool.waiting)


async def test_what_is_missing_is_told_where_it_is_missing(log: FakeLog, table: ProviderTable, tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "small", 4000)) as small:
        keep(small, *(f"m{n}" for n in range(200)))
        provide(table, log.url)
        async with running(Forwarder(small, table, "LogService", None)):
            await until(lambda: not small.unsent)
        [told, *kept] = log.batches[0]
        assert (told["Gap"], told["Seq"], told["Source"]) == (kept[0]["Seq"] - 1, kept[0]["Seq"] - 1, small.source)
        assert told["Message"] == f"{told['Gap']} entries of Portald are missing: the sidecar's spool or its disk was full"
        assert kept[-1]["Seq"] == 200


# Packed.


@pytest.mark.parametrize(("takes", "paths"), [(True, ["gzip"]), (False, ["gzip", "", ""])])
async def test_a_log_service_that_takes_no_packed_batches_is_sent_plain_ones(
    log: FakeLog, spool: Spool, table: ProviderTable, takes: bool, paths: list[str]
) -> None:
    provide(table, log.url)
    log.takes_gzip = takes
    keep(spool, *("x" * 300 for n in range(600)))
    async with running(Forwarder(spool, table, "LogService", None, pack=gzip)):
        await until(lambda: not spool.waiting)
    assert len(log.messages()) == 600
    found = [request.header(b"content-encoding").decode() for request in log.requests]
    assert found == (["gzip", "gzip"] if takes else paths)


async def test_a_small_batch_is_not_worth_packing(log: FakeLog, spool: Spool, table: ProviderTable) -> None:
    provide(table, log.url)
    keep(spool, "a")
    async with running(Forwarder(spool, table, "LogService", None, pack=gzip)):
        await until(lambda: not spool.waiting)
    assert log.requests[0].header(b"content-encoding") == b""
