"""The spool: nothing acknowledged to the app is lost or reordered."""

from __future__ import annotations

import gc
import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from spool_lab import MAX, keep, messages, waiting

from pillion_common.errors import ConfigError
from pillion_sidecar.logs.spool import Spool


def test_lines_come_out_in_order_until_they_are_acknowledged(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        assert keep(spool, "a", "b", "c") == [1, 2, 3]
        assert spool.waiting == 3
        assert messages(spool) == ["a", "b", "c"]
        assert messages(spool) == ["a", "b", "c"]
        spool.ack(2)
        assert messages(spool) == ["c"]
        assert spool.waiting == 1
        spool.ack(3)
        assert messages(spool) == []
        assert spool.waiting == 0


def test_a_line_is_one_json_object_with_source_and_seq(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        spool.append({"Message": "two\nlines, \u2028 and ümläut", "Level": "info"})
        [(seq, line)] = spool.peek(10, 1000)
        assert seq == 1
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert json.loads(line) == {"Message": "two\nlines, \u2028 and ümläut", "Level": "info", "Source": spool.source, "Seq": 1}


def test_peek_keeps_to_its_bounds_but_gives_at_least_one_line(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b", "c", "d")
        assert len(spool.peek(3, MAX)) == 3
        line = len(spool.peek(1, MAX)[0][1])
        assert len(spool.peek(10, 2 * line)) == 2
        assert len(spool.peek(10, 2 * line - 1)) == 1
        assert len(spool.peek(10, 1)) == 1


def test_peek_goes_on_over_the_edges_of_segments(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        keep(spool, *(f"m{n}" for n in range(50)))
        assert len(list((tmp_path / "spool").glob("*.ndjson"))) > 5
        assert messages(spool) == [f"m{n}" for n in range(50)]
        spool.ack(20)
        assert messages(spool)[0] == "m20"


def test_acknowledged_segments_are_deleted(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        keep(spool, *(f"m{n}" for n in range(50)))
        spool.ack(50)
        assert messages(spool) == []
        assert len(list((tmp_path / "spool").glob("*.ndjson"))) == 1
        assert spool.size < 300


def test_a_restarted_spool_has_what_was_not_acknowledged_and_counts_on(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        keep(spool, *(f"m{n}" for n in range(20)))
        spool.ack(7)
        source = spool.source
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as again:
        assert again.source == source
        assert again.acked == 7
        assert messages(again) == [f"m{n}" for n in range(7, 20)]
        assert keep(again, "next") == [21]


def test_a_restart_after_everything_was_acknowledged_does_not_count_anew(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b")
        spool.ack(2)
        spool.peek(1, 1)
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        assert keep(again, "c") == [3]
        assert messages(again) == ["c"]


def test_a_lost_mark_costs_repeats_and_no_line(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b")
        spool.ack(1)
    (tmp_path / "spool" / "acked").write_text("")
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        assert messages(again) == ["a", "b"]
        assert keep(again, "c") == [3]


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b")
    [segment] = (tmp_path / "spool").glob("*.ndjson")
    with segment.open("ab") as file:
        file.write(b'{"Message":"c","Sour')
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        assert messages(again) == ["a", "b"]
        assert keep(again, "d") == [3]
        assert messages(again) == ["a", "b", "d"]


def test_a_spool_that_lost_its_lines_in_a_power_cut_goes_on(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        keep(spool, *(f"m{n}" for n in range(20)))
    for segment in (tmp_path / "spool").glob("*.ndjson"):
        os.truncate(segment, 0)  # the names reached the disk, the lines did not
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as again:
        assert again.waiting == 0, "lines that are not there must not be waited for"
        [told] = waiting(again)
        assert (told["Seq"], told["Gap"]) == (again.dropped, again.dropped)
        assert again.dropped >= 16, "all but those of the last segment, whose number is not known"


def test_a_segment_that_somebody_shortened_is_not_waited_for(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b")
        [segment] = (tmp_path / "spool").glob("*.ndjson")
        os.truncate(segment, 0)
        assert spool.peek(10, MAX) == []
        assert spool.waiting == 0


def test_lines_that_somebody_took_away_are_told(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200)) as spool:
        keep(spool, *(f"m{n}" for n in range(20)))
        first = min((tmp_path / "spool").glob("*.ndjson"))
        gone = len(first.read_bytes().splitlines())
        first.unlink()
        assert messages(spool)[1:] == [f"m{n}" for n in range(gone, 20)]
        [told] = [entry for entry in waiting(spool) if "Gap" in entry]
        assert told["Gap"] == told["Seq"] == spool.dropped == gone


def test_another_file_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "notes.ndjson").write_text("mine\n")
    with closing(Spool(folder, MAX)) as spool:
        keep(spool, "a")
        assert messages(spool) == ["a"]
    assert (folder / "notes.ndjson").read_text() == "mine\n"


def test_each_folder_has_a_source_of_its_own(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "one", MAX)) as one, closing(Spool(tmp_path / "two", MAX)) as two:
        assert len(one.source) == 16
        assert one.source != two.source


def test_a_source_that_a_crash_left_empty_is_made_anew(tmp_path: Path) -> None:
    # With an empty Source two sidecars' lines would pass for repeats of each other, or be refused.
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "source").write_text("")
    with closing(Spool(folder, MAX)) as spool:
        assert len(spool.source) == 16


def open_files(folder: Path) -> list[str]:
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if link.is_symlink() and os.readlink(link).startswith(str(folder))]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_refused_spool_leaves_no_file_open(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)):
        before = open_files(tmp_path)
        refused = None
        try:
            Spool(tmp_path / "spool", MAX)
        except ConfigError as exc:
            refused = exc  # holds the half-made spool, so that nothing is tidied up behind our back
        assert open_files(tmp_path) == before
        assert refused
        del refused
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_two_spools_cannot_use_one_folder(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "state" / "spool", MAX)):
        with pytest.raises(ConfigError) as refused:
            Spool(tmp_path / "state" / "spool", MAX)
        assert refused.value.faults == [f"--state-dir {tmp_path / 'state'}: another sidecar uses it; give each its own"]
        del refused
        gc.collect()
    with closing(Spool(tmp_path / "state" / "spool", MAX)) as after:
        assert after.waiting == 0


def test_a_folder_that_cannot_be_used_is_a_configuration_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        Spool(tmp_path / "file" / "spool", MAX)
    [fault] = refused.value.faults
    assert fault.startswith(f"--state-dir {tmp_path / 'file'}: cannot be used: ")
    assert fault.endswith("choose a folder this user can write")


# The bound.
