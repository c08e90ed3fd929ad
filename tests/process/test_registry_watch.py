"""GET /watch: everything at first, then each change; who was cut off goes on where it was."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import requests
from classic import Classic
from programs import Program, eventually
from registry_lab import port_of, registry, wait_for
from sse import Stream


def test_a_watcher_is_shown_everything_and_then_each_change() -> None:
    with registry() as running, Classic() as peer, Stream(running.url + "/watch") as stream:
        first = stream.next()
        assert (first.kind, first.data["Services"]) == ("snapshot", [])
        peer.register(running.url, "Db", Tags=["fast"])
        told = [stream.next(), stream.next()]
        assert [(one.kind, one.data["Change"], one.data["Gone"], one.data["Instance"]["State"]) for one in told] == [
            ("change", "registered", False, "starting"),
            ("change", "up", False, "up"),
        ]
        assert told[1].data["Instance"]["Tags"] == ["fast"]
        assert [one.id for one in told] == [str(one.data["Revision"]) for one in told]
        peer.heartbeat, peer.body = 503, b"the disk is full"
        down = stream.next()
        assert (down.data["Instance"]["State"], down.data["Instance"]["Reason"]) == ("down", "the disk is full")
        peer.deregister(running.url)
        gone = stream.next()
        assert (gone.data["Change"], gone.data["Gone"], gone.data["Instance"]["ServiceURL"]) == ("left", True, peer.url)


def test_only_what_concerns_the_names_asked_for_is_told() -> None:
    with registry() as running, Classic() as one, Classic() as two, Stream(running.url + "/watch", name=["Db", "Shop"]) as stream:
        assert stream.next().kind == "snapshot"
        two.register(running.url, "Other")
        wait_for(running, two.url, "up")
        one.register(running.url, "Shop")
        assert stream.next().data["Instance"]["ServiceName"] == "Shop"
        with Stream(running.url + "/watch", name="Other") as other:
            assert [one["ServiceName"] for one in other.next().data["Services"]] == ["Other"]


def test_who_was_cut_off_goes_on_where_it_was() -> None:
    with registry() as running, Classic() as peer:
        with Stream(running.url + "/watch") as stream:
            last = stream.next().id
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        with Stream(running.url + "/watch", last) as stream:
            assert [(one.kind, one.data["Change"]) for one in (stream.next(), stream.next())] == [
                ("change", "registered"),
                ("change", "up"),
            ]
            last = stream.last_id
        with Stream(running.url + "/watch", last) as stream:
            peer.deregister(running.url)
            assert stream.next().data["Change"] == "left"


def test_who_was_away_too_long_or_knows_another_registry_begins_anew(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:{tmp_path}/registry.db")
    with Classic() as peer:
        with registry(*store) as running:
            peer.register(running.url, "Db")
            wait_for(running, peer.url, "up")
            with Stream(running.url + "/watch") as stream:
                old = stream.next().id
        with registry(*store) as running:
            with Stream(running.url + "/watch", old) as stream:
                assert stream.next().kind == "snapshot"
            with Stream(running.url + "/watch", "999999999") as stream:
                assert stream.next().kind == "snapshot"
            with Stream(running.url + "/watch", "nonsense") as stream:
                assert stream.next().kind == "snapshot"


def test_a_reader_that_does_not_read_costs_no_memory_and_is_shown_everything_when_it_reads_again() -> None:
    with registry() as running, Classic() as peer, socket.create_connection(("127.0.0.1", port_of(running))) as slow:
        slow.sendall(b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")
        session = requests.Session()
        body = peer.registration("Db", Metadata={str(key): "y" * 1000 for key in range(10)})
        before = _resident(running)
        for number in range(3000):
            body["Version"] = f"v{number}."
            assert session.post(running.url + "/services", json=body, timeout=5).status_code == 200
        assert _resident(running) - before < 60 * 2**20  # those that are remembered, and no more
        slow.settimeout(5)
        read = bytearray()
        while b"v2999." not in read[-20_000:]:
            piece = slow.recv(2**20)
            assert piece, "it was dropped"
            read += piece
        assert read.count(b"event: snapshot") == 2  # it was not sent all that it missed
        assert read.count(b"event: change") < 2000


def test_streams_end_when_the_registry_stops_and_idle_ones_are_kept_alive() -> None:
    with registry() as running, Stream(running.url + "/watch") as stream:
        assert stream.next().kind == "snapshot"
        began = time.monotonic()
        assert running.stop() == 0
        assert stream.ended()
        assert time.monotonic() - began < 3


def test_a_reader_that_has_gone_makes_room(tmp_path: Path) -> None:
    with registry() as running, Classic() as peer:
        for _ in range(20):
            with Stream(running.url + "/watch") as stream:
                assert stream.next().kind == "snapshot"
        peer.register(running.url, "Db")
        eventually(lambda: _streams(running) == 0)


def _resident(running: Program) -> int:
    text = Path(f"/proc/{running.process.pid}/statm").read_text()
    return int(text.split()[1]) * 4096


def _streams(running: Program) -> int:
    """Return how many streams are open, by the registry's own figures."""
    lines = requests.get(running.url + "/metrics", timeout=5).text.splitlines()
    return int(next(line.split()[-1] for line in lines if line.startswith("pillion_registry_streams ")))


def test_data_is_one_line_of_json_whatever_the_names_hold() -> None:
    with registry() as running, Classic() as peer, Stream(running.url + "/watch") as stream:
        stream.next()
        peer.register(running.url, "Db", Zone="a\nevent: change\ndata: {}", Metadata={"\r\n\r\n": "\u2028"})
        told = stream.next().data["Instance"]
        assert (told["Zone"], told["Metadata"]) == ("a\nevent: change\ndata: {}", {"\r\n\r\n": "\u2028"})
        assert json.dumps(told)
