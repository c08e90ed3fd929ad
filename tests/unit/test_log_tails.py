"""Live tails: nothing twice, nothing left out without a word, and what that costs in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pillion_common.http.interfaces import AnswerStream
from pillion_common.http.message import Request
from pillion_log.entries import from_line
from pillion_log.query.matching import Matcher
from pillion_log.query.question import Filter
from pillion_log.reader import Threads
from pillion_log.store.memory import MemoryStore
from pillion_log.tail import rings, streams, tails
from pillion_log.tail.rings import Batch, Place, Ring, find_events
from pillion_log.tail.streams import TailStreams
from pillion_log.tail.tails import Tails

WAIT_S = 5.0
NOON_S = 1769860800.0


class Reader:
    """What a stream is written to: it reads at once, or not at all."""

    def __init__(self) -> None:
        self.on_close: Callable[[], None] | None = None
        self.text = b""
        self.date = b"Sat, 31 Jan 2026 12:00:00 GMT"
        self.reads = asyncio.Event()
        self.reads.set()
        self.wrote = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.text += data
        self.wrote.set()

    async def drained(self) -> None:
        await self.reads.wait()

    def events(self) -> list[tuple[str, int, Any]]:
        """Return what came: kind, id, data."""
        found = []
        for block in self.text.partition(b"\r\n\r\n")[2].split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in block.splitlines() if not line.startswith(b":"))
            if b"data" in fields:
                found.append((fields.get(b"event", b"entry").decode(), int(fields.get(b"id", b"0")), json.loads(fields[b"data"])))
        return found

    def messages(self) -> list[str]:
        return [data["Message"] for kind, _, data in self.events() if kind == "entry"]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not true():
                self.wrote.clear()
                await self.wrote.wait()


async def no_rest(request: Request, connection: AnswerStream) -> None:
    connection.write(b"the rest")


class Lab:
    """A store with tails."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tails = Tails(self.store, Threads(), tick_s=0.001)
        self.streams = TailStreams(self.tails, no_rest, lambda: NOON_S)

    def add(self, *names: str, service: str = "A", time: str = "11:59:00.000") -> None:
        """Append entries, all in one group."""
        runs = []
        for name in names:
            fields = {"Message": name, "Service": service, "Time": f"2026-01-31T{time}Z"}
            runs.append(from_line(json.dumps(fields).encode(), f"2026-01-31T{time}Z"))
        self.store.append(runs, lambda outcome: None)

    @asynccontextmanager
    async def tail(self, query: str = "", seen: int | None = None) -> AsyncIterator[Reader]:
        """Open a tail; it is there, and has caught up, when the block begins."""
        reader = Reader()
        headers = [] if seen is None else [(b"last-event-id", b"%d" % seen)]
        request = Request("GET", b"/logs/tail?" + query.encode(), headers, "127.0.0.1", "1.1", True)
        running = asyncio.create_task(self.streams(request, reader))
        await reader.until(lambda: b": here\n" in reader.text or b"Error" in reader.text)
        try:
            yield reader
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_tail_gets_what_comes_and_nothing_from_before() -> None:
    lab = Lab()
    lab.add("before")
    async with lab.tail() as reader:
        lab.add("one", "two")
        lab.add("three")
        await reader.until(lambda: len(reader.messages()) == 3)
        assert reader.messages() == ["one", "two", "three"]
        lab.add("four")
        await reader.until(lambda: len(reader.messages()) == 4)
    assert reader.text.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/event-stream\r\n" in reader.text
    assert b"Connection: close\r\n" in reader.text
    assert b"Content-Length" not in reader.text


async def test_filters_are_those_of_queries_and_equal_ones_share_one_ring() -> None:
    lab = Lab()
    async with lab.tail("service=A&q=n") as first, lab.tail("q=n&service=A&since=5m") as second, lab.tail("service=B") as third:
        assert (lab.tails.streams, len(lab.tails._rings)) == (3, 2)
        lab.add("one", "three")
        lab.add("none", service="B")
        for reader, expected in ((first, ["one"]), (second, ["one"]), (third, ["none"])):
            await reader.until(lambda: len(reader.messages()) == 1)  # noqa: B023
            assert reader.messages() == expected
    assert (lab.tails.streams, len(lab.tails._rings)) == (0, 0)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("last=2", ["old 3", "old 4"]), ("last=0", []), ("last=9", ["old 0", "old 1", "old 2", "old 3", "old 4"]), ("since=10m", ["old 4"])],
)
async def test_tail_begins_as_early_as_it_is_asked_to(query: str, expected: list[str]) -> None:
    lab = Lab()
    for number in range(5):
        lab.add(f"old {number}", time=f"1{1 if number == 4 else 0}:58:00.000")
        lab.add("other", service="B")
    async with lab.tail("service=A&" + query) as reader:
        assert reader.messages() == expected
        lab.add("new", time="09:00:00.000")  # a late entry is new all the same
        await reader.until(lambda: reader.messages()[-1:] == ["new"])
    assert reader.messages() == [*expected, "new"]


async def test_reader_that_comes_again_gets_exactly_what_it_missed() -> None:
    lab = Lab()
    async with lab.tail() as reader:
        lab.add("one", "two", "three")
        await reader.until(lambda: len(reader.messages()) == 3)
    ids = {data["Message"]: number for _, number, data in reader.events()}
    lab.add("four", time="02:00:00.000")  # long before `since`
    async with lab.tail("since=5m&last=1", seen=ids["two"]) as again:
        assert again.messages() == ["three", "four"]
        lab.add("five")
        await again.until(lambda: len(again.messages()) == 3)
    assert again.messages() == ["three", "four", "five"]


async def test_reader_of_nothing_learns_how_far_it_has_seen_all() -> None:
    lab = Lab()
    lab.add("one")
    async with lab.tail("service=None") as reader:
        end = lab.store.stats().end
        assert b": here\nid: %d\n\n" % (end - 1) in reader.text


async def test_id_of_another_log_is_a_gap_and_not_a_wait_for_ever() -> None:
    lab = Lab()
    lab.add("one")
    end = lab.store.stats().end
    async with lab.tail(seen=10_000_000) as reader:
        lab.add("two")
        await reader.until(lambda: len(reader.messages()) == 1)
    assert reader.events()[0] == ("gap", end - 1, {"Missed": None, "From": 0, "To": end, "Cursor": "f0"})
    assert reader.messages() == ["two"]


async def test_what_retention_removed_is_a_gap() -> None:
    lab = Lab()
    lab.store = lab.tails.store = MemoryStore(max_entries=10)  # type: ignore[assignment]
    for number in range(30):
        lab.add(f"m{number}")
    oldest = lab.store.stats().oldest
    async with lab.tail(seen=0) as reader:
        await reader.until(lambda: "m29" in reader.messages())
    assert oldest > 1
    assert reader.events()[0] == ("gap", oldest - 1, {"Missed": None, "From": 1, "To": oldest, "Cursor": "f1"})


async def test_slow_reader_is_told_how_many_it_missed_and_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "RING_BYTES", 2000)
    monkeypatch.setattr(rings, "PIECE_BYTES", 500)
    monkeypatch.setattr(tails, "PIECE_BYTES", 500)
    lab = Lab()
    async with lab.tail("service=A") as slow, lab.tail("service=A") as quick:
        slow.reads.clear()
        for number in range(100):
            lab.add(f"m{number}")
            lab.add("other", service="B")
            await quick.until(lambda: f"m{number}" in quick.messages())  # noqa: B023
        assert len(slow.messages()) < 20
        assert sum(len(piece.events.text) for ring in lab.tails._rings.values() for piece in ring._pieces) < 3000
        slow.reads.set()
        await slow.until(lambda: "m99" in slow.messages())
    assert quick.messages() == [f"m{number}" for number in range(100)]
    gaps = [data for kind, _, data in slow.events() if kind == "gap"]
    assert len(gaps) == 1
    got = slow.messages()
    assert gaps[0]["Missed"] == 100 - len(got) == lab.tails.missed
    missed = [f"m{number}" for number in range(100) if f"m{number}" not in got]
    with lab.store.blocks(gaps[0]["From"], newest_first=False) as blocks:
        matches = [
            match.stored.message
            for block in blocks
            for match in Matcher(Filter(services=("A",))).look(block.read(), block.start, None, gaps[0]["From"], gaps[0]["To"])
        ]
    assert matches == missed


async def test_more_than_can_wait_for_the_search_is_a_gap_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "WAITING_BYTES", 1000)
    lab = Lab()
    lab.tails._tick_s = 0.05
    async with lab.tail() as reader:
        begun = lab.store.stats().end
        for number in range(20):
            lab.add(f"m{number}")
        await reader.until(lambda: "m19" in reader.messages())
    kind, _, told = reader.events()[0]
    assert (kind, told["Missed"], told["From"]) == ("gap", None, begun)
    got = [(number, data["Message"]) for kind, number, data in reader.events() if kind == "entry"]
    assert told["To"] == got[0][0]
    assert [message for _, message in got] == [f"m{number}" for number in range(20 - len(got), 20)]


async def test_what_comes_while_a_stream_catches_up_is_neither_lost_nor_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PIECE_BYTES", 200)  # many steps
    monkeypatch.setattr(tails, "RING_BYTES", 400)  # too small for what comes meanwhile
    monkeypatch.setattr(tails, "PIECE_BYTES", 400)
    lab = Lab()
    for number in range(50):
        lab.add(f"m{number}")

    async def go_on() -> None:
        for number in range(50, 200):
            lab.add(f"m{number}")
            await asyncio.sleep(0.0005)

    async with lab.tail():  # it fills the ring
        writing = asyncio.create_task(go_on())
        async with lab.tail("last=10000") as reader:
            await writing
            lab.add("end")
            await reader.until(lambda: reader.messages()[-1] == "end")
    gaps = [data for kind, _, data in reader.events() if kind == "gap"]
    got = reader.messages()
    assert len(got) == len(set(got))
    assert len(got) + sum(gap["Missed"] for gap in gaps) == 201
    assert got[:50] == [f"m{number}" for number in range(50)]


async def test_tail_that_begins_while_something_waits_for_the_search_gets_it_once() -> None:
    lab = Lab()
    lab.tails._tick_s = 0.05
    async with lab.tail("q=w"):
        lab.add("waits")
        async with lab.tail("last=1") as reader:
            lab.add("comes")
            await reader.until(lambda: "comes" in reader.messages())
    assert reader.messages() == ["waits", "comes"]


async def test_what_waited_for_those_who_have_left_is_not_sent_to_who_comes_later() -> None:
    lab = Lab()
    lab.tails._tick_s = 0.05
    async with lab.tail():
        lab.add("one")
    lab.add("two")
    async with lab.tail() as reader:
        lab.add("three")
        await reader.until(lambda: "three" in reader.messages())
    assert reader.messages() == ["three"]


async def test_what_left_the_ring_while_a_stream_caught_up_is_read_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "RING_BYTES", 400)
    monkeypatch.setattr(tails, "PIECE_BYTES", 400)
    lab = Lab()
    lab.add("old")
    slow = Reader()
    slow.reads.clear()
    async with lab.tail() as quick:
        running = asyncio.create_task(lab.streams(Request("GET", b"/logs/tail?last=1", [], "127.0.0.1", "1.1", True), slow))
        await slow.until(lambda: slow.messages() == ["old"])  # and there it waits until that is taken
        for number in range(20):
            lab.add(f"m{number}")
            await quick.until(lambda: f"m{number}" in quick.messages())  # noqa: B023
        slow.reads.set()
        await slow.until(lambda: "m19" in slow.messages())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert slow.messages() == ["old", *(f"m{number}" for number in range(20))]
    assert [kind for kind, _, _ in slow.events() if kind == "gap"] == []


async def test_one_tail_more_than_is_possible_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "MAX_STREAMS", 1)
    lab = Lab()
    async with lab.tail():
        async with lab.tail() as refused:
            assert refused.text.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"1 tails are open here already; close one" in refused.text
        assert lab.tails.streams == 1


@pytest.mark.parametrize(("query", "why"), [("limit=3", "there is no parameter 'limit'"), ("re=(", "re is not a regular expression")])
async def test_bad_parameter_is_refused_before_the_stream_begins(query: str, why: str) -> None:
    lab = Lab()
    async with lab.tail(query) as reader:
        assert reader.text.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert why in reader.text.decode()
    assert lab.tails.streams == 0
    async with lab.tail(seen=None) as reader:
        assert lab.tails.streams == 1


async def test_streams_end_when_the_log_service_does() -> None:
    lab = Lab()
    reader = Reader()
    request = Request("GET", b"/logs/tail", [], "127.0.0.1", "1.1", True)
    running = asyncio.create_task(lab.streams(request, reader))
    await reader.until(lambda: b": here" in reader.text)
    lab.tails.close()
    await asyncio.wait_for(running, WAIT_S)
    assert lab.tails.streams == 0


async def test_silent_tail_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    lab = Lab()
    async with lab.tail() as reader:
        await reader.until(lambda: reader.text.count(b": here\n\n") >= 3)


async def test_all_other_paths_are_left_to_the_rest() -> None:
    lab = Lab()
    reader = Reader()
    await lab.streams(Request("GET", b"/logs", [], "127.0.0.1", "1.1", True), reader)
    assert reader.text == b"the rest"
    post = Reader()
    await lab.streams(Request("POST", b"/logs/tail", [], "127.0.0.1", "1.1", True), post)
    assert post.text.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


async def test_ring_keeps_the_newest_piece_whatever_its_size() -> None:
    lab = Lab()
    lab.add("x" * 5000)
    with lab.store.blocks() as blocks:
        found = find_events(Matcher(Filter()), Batch.of(list(blocks)))
    ring = Ring(Filter(), 0)
    ring.add(found, 1, 10)
    ring.add(found, 2, 10)
    piece = ring.next(Place(0, 0))
    assert piece is not None
    assert (piece.turn, piece.number) == (1, 1)
    assert not ring.holds(Place(0, 0))


async def test_a_reader_is_told_why_nothing_can_come_and_when_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    monkeypatch.setattr(streams, "FAULT_S", 0.005)
    faults: list[str | None] = [None]
    monkeypatch.setattr(lab.store, "fault", lambda: faults[0])
    async with lab.tail() as reader:
        for fault, said in (("NATS has not been reached for 3 s", b'{"Fault":"NATS has'), (None, b'{"Fault":null}')):
            faults[0] = fault
            await reader.until(lambda: said in reader.text)  # noqa: B023
        faults[0] = "again"
        lab.add("one")
        await reader.until(lambda: reader.messages() == ["one"])
    assert 2 <= reader.text.count(b"event: store\n") <= 3
