"""The spool: what has to go is counted exactly, whatever happens and in whatever order."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from spool_lab import MAX, keep, killed, messages, no_boot, waiting

from pillion_sidecar.logs.spool import Spool


def test_the_bound_is_kept_and_the_oldest_go_first(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        keep(spool, *(f"m{n}" for n in range(500)))
        size = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.ndjson"))
        assert spool.size == size
        assert size < 4000 + 200
        kept = [message for message in messages(spool) if message.startswith("m")]
        assert kept == [f"m{n}" for n in range(500 - len(kept), 500)]
        assert len(kept) > 20


def test_a_drop_is_told_by_a_gap_entry_in_its_place(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000, clock=lambda: 1_769_860_800.0)) as spool:
        sent = 0
        while not spool.dropped:
            time = f"2026-01-31T12:00:{sent % 60:02d}.000Z"
            spool.append({"Time": time, "Service": "Portald", "Instance": "portald-1", "Message": f"m{sent}"})
            sent += 1
        told, first, *_ = left = waiting(spool)
        missing = sent + 1 - len(left)
        assert first["Message"] == f"m{missing}"
        assert told == {
            "Time": first["Time"],
            "Service": "Portald",
            "Level": "warning",
            "Message": f"{missing} entries of Portald are missing: the sidecar's spool or its disk was full",
            "Instance": "portald-1",
            "Gap": missing,
            "From": "2026-01-31T12:00:00.000Z",
            "To": first["Time"],
            "Source": spool.source,
            "Seq": missing,
        }
        assert spool.dropped == missing


def test_a_gap_begins_where_the_last_acknowledged_entry_was(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        keep(spool, *(f"m{n}" for n in range(3)))
        spool.peek(100, MAX)
        spool.ack(3, "2026-01-31T12:00:03.000Z")
        keep(spool, *(f"m{n}" for n in range(3, 100)))
        told, first, *_ = waiting(spool)
        assert (told["Seq"], told["Gap"], told["From"]) == (first["Seq"] - 1, first["Seq"] - 4, "2026-01-31T12:00:03.000Z")


def test_over_many_drops_what_is_told_adds_up_to_what_is_gone(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        keep(spool, *(f"m{n}" for n in range(500)))
        told, *kept = waiting(spool)
        assert told["Gap"] + len(kept) == 500
        assert told["Gap"] == spool.dropped
        spool.ack(told["Seq"])
        assert spool.dropped == told["Gap"], "told, it is still dropped"
        assert [entry["Seq"] for entry in waiting(spool)] == [entry["Seq"] for entry in kept]


def test_what_was_dropped_is_known_after_a_kill(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 4000)
    keep(spool, *(f"m{n}" for n in range(500)))
    before, dropped = waiting(spool), spool.dropped
    killed(spool)
    with closing(Spool(tmp_path / "spool", 4000)) as again:
        assert waiting(again) == before
        assert again.dropped == dropped > 400


def test_a_batch_that_was_under_way_when_its_lines_were_dropped_and_then_stored_is_no_gap(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        keep(spool, *(f"m{n}" for n in range(10)))
        sent = spool.peek(5, MAX)
        keep(spool, *(f"m{n}" for n in range(10, 100)))
        spool.ack(sent[-1][0])
        told, first, *_ = waiting(spool)
        assert told["Gap"] == first["Seq"] - 1 - 5


def test_lines_that_could_not_be_kept_are_told_in_their_place_also_after_a_kill(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", MAX)
    keep(spool, "a")
    spool.lose(2)
    spool.lose(1)
    keep(spool, "b")
    spool.lose(4)
    killed(spool)
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        keep(again, "c")
        assert [(entry["Seq"], entry.get("Gap")) for entry in waiting(again)] == [(1, None), (4, 3), (5, None), (9, 4), (10, None)]
        assert again.dropped == 7


# Positions.


def test_positions_and_lines_are_kept_together(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        spool.append_all([{"Message": "a"}, {"Message": "b"}], {"one": "1", "two": "2"})
        for n in range(30):
            spool.append_all([{"Message": f"m{n}"}], {"one": str(n)})
        spool.append_all([], {"two": None, "three": "3"})
        spool.peek(100, MAX)
        spool.ack(32)
        spool.peek(1, 1)
        assert len(list((tmp_path / "spool").glob("*.ndjson"))) == 1
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        assert again.positions == {"one": "29", "three": "3"}
        assert again.waiting == 0
        assert keep(again, "next") == [33]


def test_lines_that_a_kill_cut_off_take_their_positions_along(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        spool.append_all([{"Message": "a"}], {"one": "1"})
        [segment] = (tmp_path / "spool").glob("*.ndjson")
        whole = segment.stat().st_size
        spool.append_all([{"Message": "b"}, {"Message": "c"}], {"one": "2"})
    data = segment.read_bytes()
    for cut in range(whole, len(data)):
        segment.write_bytes(data[:cut])
        with closing(Spool(tmp_path / "spool", MAX, boot=no_boot)) as again:
            assert messages(again) == ["a"]
            assert again.positions == {"one": "1"}
            assert again.next_seq == 2


# Power cuts.


def test_after_a_power_cut_no_seq_is_given_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", MAX, boot=lambda: "one")
    keep(spool, "a", "b", "c")
    source = spool.source
    killed(spool)
    [segment] = (tmp_path / "spool").glob("*.ndjson")
    os.truncate(segment, len(segment.read_bytes().splitlines(keepends=True)[0]))  # b and c were forwarded, but never came to the disk
    with closing(Spool(tmp_path / "spool", MAX, boot=lambda: "two")) as again:
        assert again.source == f"{source}.1"
        assert keep(again, "d") == [1]
        assert [(entry["Source"], entry["Seq"]) for entry in waiting(again)] == [(source, 1)]
        again.ack(1)
        assert [(entry["Source"], entry["Seq"]) for entry in waiting(again)] == [(f"{source}.1", 1)]
        again.ack(1)
        assert again.waiting == again.dropped == 0
    with closing(Spool(tmp_path / "spool", MAX, boot=lambda: "three")) as later:
        assert (later.source, later.next_seq) == (f"{source}.1", 2), "it was closed in good order"


def test_what_is_dropped_of_an_earlier_source_is_told_under_its_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 4000, boot=lambda: "one")
    keep(spool, *(f"m{n}" for n in range(10)))
    source = spool.source
    killed(spool)
    spool = Spool(tmp_path / "spool", 4000, boot=lambda: "two")
    keep(spool, *(f"m{n}" for n in range(200)))
    killed(spool)
    with closing(Spool(tmp_path / "spool", 4000, boot=lambda: "two")) as again:
        [told] = waiting(again)
        assert (told["Source"], told["Seq"], told["Gap"]) == (source, 10, 10)
        again.ack(10)
        told, first, *_ = waiting(again)
        assert (told["Source"], told["Gap"], told["Seq"]) == (f"{source}.1", first["Seq"] - 1, first["Seq"] - 1)


def test_acknowledged_lines_are_not_counted_as_dropped(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        for n in range(500):
            spool.ack(spool.append({"Message": f"m{n}"}))
        assert spool.dropped == 0
        assert spool.size < 4200
        assert spool.waiting == 0


def test_a_half_acknowledged_segment_counts_only_what_was_not(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", 4000)) as spool:
        keep(spool, *(f"m{n}" for n in range(10)))
        spool.ack(4)
        sent = 10
        while not spool.dropped:
            keep(spool, f"m{sent}")
            sent += 1
        told, *kept = waiting(spool)
        assert told["Gap"] == spool.dropped == sent - 4 - len(kept)


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 120)),
        st.tuples(st.just("batch"), st.integers(1, 4)),
        st.tuples(st.just("lose"), st.integers(1, 3)),
        st.tuples(st.just("peek"), st.integers(1, 30)),
        st.tuples(st.just("ack"), st.integers(1, 30)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("torn"), st.integers(1, 20)),
    ),
    max_size=60,
)


class Model:
    """What a log service knows of a spool's entries, and what was appended."""

    def __init__(self) -> None:
        self.sent: dict[int, str | None] = {}  # by Seq; None could not be kept
        self.known: dict[int, str] = {}
        self.missing: set[int] = set()

    def take(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if "Gap" in entry:
                self.missing |= set(range(entry["Seq"] - entry["Gap"] + 1, entry["Seq"] + 1))
            else:
                self.known[entry["Seq"]] = entry["Message"]


@given(events=_EVENTS, max_bytes=st.sampled_from([1200, MAX]))
@settings(max_examples=150, deadline=None)
def test_no_order_of_events_loses_or_reorders_a_line_or_counts_it_wrong(events: list[tuple[str, int]], max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        spool = Spool(path, max_bytes, segment_bytes=300, boot=no_boot)
        source, model = spool.source, Model()
        for what, number in events:
            if what == "append":
                message = f"{len(model.sent)}-" + "x" * number
                model.sent[spool.append({"Message": message})] = message
            elif what == "batch":
                first = spool.next_seq
                batch = {seq: f"b{seq}" for seq in range(first, first + number)}
                spool.append_all([{"Message": message} for message in batch.values()], {"place": str(first)})
                model.sent |= batch
            elif what == "lose":
                model.sent |= dict.fromkeys(range(spool.next_seq, spool.next_seq + number))
                spool.lose(number)
            elif what == "peek":
                found = waiting(spool, number)
                assert [entry["Seq"] for entry in found] == sorted(entry["Seq"] for entry in found)
            elif what == "ack" and (found := waiting(spool, number)):
                model.take(found)
                spool.ack(found[-1]["Seq"])
            elif what in ("restart", "torn"):
                spool.close()
                if what == "torn":
                    with max(path.glob("*.ndjson")).open("ab") as file:
                        file.write(b'{"Message":"torn torn torn'[:number])
                spool = Spool(path, max_bytes, segment_bytes=300, boot=no_boot)
            assert spool.source == source
            assert spool.size == sum(one.stat().st_size for one in path.glob("*.ndjson"))
        while found := waiting(spool, 7):
            model.take(found)
            spool.ack(found[-1]["Seq"])
        assert spool.waiting == 0
        assert list(model.sent) == list(range(1, spool.next_seq))
        assert model.missing.isdisjoint(model.known)
        assert model.missing | model.known.keys() == model.sent.keys(), "each is there, or is said to be missing"
        assert all(model.sent[seq] == message for seq, message in model.known.items())
        if max_bytes == MAX:
            assert model.missing == {seq for seq, message in model.sent.items() if message is None}
        spool.close()
