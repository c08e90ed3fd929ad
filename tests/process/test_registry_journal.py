"""The journal and the operators' hand: what happened, why, who did it, and who was there when."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from classic import Classic
from programs import Program, eventually
from registry_lab import instances, registry, states, wait_for
from sse import Stream

SQLITE = "sqlite:{}/registry.db"


def events(running: Program, **query: Any) -> list[dict[str, Any]]:
    return requests.get(running.url + "/events", params=query, timeout=5).json()["Events"]


def told(running: Program, **query: Any) -> list[tuple[str, str | None]]:
    return [(one["Event"], one["Reason"]) for one in events(running, **query)]


def now() -> str:
    time.sleep(0.005)  # so that the next event is later
    text = datetime.now(UTC).isoformat()
    time.sleep(0.005)
    return text


def id_of(running: Program, peer: Classic) -> str:
    return next(one["InstanceID"] for one in instances(running) if one["ServiceURL"] == peer.url)


def post(running: Program, path: str, headers: dict[str, str] | None = None, **body: Any) -> requests.Response:
    return requests.post(running.url + path, json=body or None, headers=headers, timeout=10)


def test_the_journal_tells_who_came_went_and_why_over_a_kill_and_restart(tmp_path: Path) -> None:
    store = ("--store", SQLITE.format(tmp_path))
    with Classic() as peer:
        with registry(*store) as running:
            peer.register(running.url, "Db")
            wait_for(running, peer.url, "up")
            peer.register(running.url, "Db")  # the same words again are no news
            peer.heartbeat, peer.body = 503, b"the disk is full"
            wait_for(running, peer.url, "down")
            time.sleep(0.3)
            running.kill()
        with registry(*store) as running:
            peer.heartbeat = "ok"
            wait_for(running, peer.url, "up")
            peer.deregister(running.url)
            expected = [("registered", None), ("up", None), ("down", "the disk is full"), ("up", None), ("left", "deregistered")]
            assert told(running, name="Db") == expected
            assert [one["Event"] for one in events(running) if one["Service"] is None] == ["started", "started"]
            numbers = [one["ID"] for one in events(running)]
            assert numbers == sorted(set(numbers))
            last = events(running, name="Db")[-1]
            assert (last["Service"], last["ServiceURL"], last["State"], last["Before"], last["By"]) == (
                "Db",
                peer.url,
                None,
                "up",
                "127.0.0.1",
            )


def test_events_are_paged_by_number_and_by_time_and_their_number_is_bounded() -> None:
    with registry() as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        middle = now()
        peer.deregister(running.url)
        page = requests.get(running.url + "/events", params={"since": 0, "limit": 2}, timeout=5).json()
        assert [one["Event"] for one in page["Events"]] == ["started", "registered"]
        assert told(running, since=page["Next"]) == [("up", None), ("left", "deregistered")]
        assert told(running, since=middle) == [("left", "deregistered")]
        assert told(running, limit=1) == [("left", "deregistered")]
        assert told(running, name="Nobody") == []
        for query in ("limit=0", "limit=100000", "limit=x", "since=yesterday", "since=1e999"):
            refused = requests.get(f"{running.url}/events?{query}", timeout=5)
            assert (refused.status_code, refused.json()["Field"]) == (400, query.partition("=")[0])


def test_a_stream_of_events_begins_where_it_is_told_to_and_goes_on() -> None:
    with registry() as running, Classic() as peer, Classic() as other:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        with Stream(running.url + "/events", since=0) as stream:
            assert [stream.next().data["Event"] for _ in range(3)] == ["started", "registered", "up"]
            peer.deregister(running.url)
            assert stream.next().data["Event"] == "left"
            last = stream.last_id
        other.register(running.url, "Shop")
        with Stream(running.url + "/events", last) as stream:
            assert stream.next().data["Service"] == "Shop"
        with Stream(running.url + "/events", name="Shop", limit=1) as stream:
            assert stream.next().data["Service"] == "Shop"
            other.deregister(running.url)
            assert stream.until("event", Event="left").data["Service"] == "Shop"


def test_who_offered_a_service_at_a_moment_is_known_from_the_beginning_of_the_journal_on(tmp_path: Path) -> None:
    store = ("--store", SQLITE.format(tmp_path))
    with Classic() as one, Classic() as two:
        before = now()
        with registry(*store) as running:
            nobody = now()
            one.register(running.url, "Db")
            wait_for(running, one.url, "up")
            only_one = now()
            two.register(running.url, "Db")
            wait_for(running, two.url, "up")
            both = now()
            one.heartbeat = 503
            wait_for(running, one.url, "down")
            only_two = now()
            two.deregister(running.url)

            def offered(at: str, name: str = "Db") -> Any:
                answer = requests.get(f"{running.url}/services/{name}", params={"at": at}, timeout=5)
                return set(answer.json()["Providers"]) if answer.status_code == 200 else (answer.status_code, answer.json()["Error"])

            def all_as_they_were() -> list[Any]:
                return [offered(at) for at in (nobody, only_one, both, only_two, now())]

            expected = [set(), {one.url}, {one.url, two.url}, {two.url}, set()]
            assert all_as_they_were() == expected
            assert offered(before) == (410, "gone")
            assert offered("2096-01-01T00:00:00Z") == (400, "invalid_query")
            assert offered("noon") == (400, "invalid_query")
            assert offered(both, "Nobody") == (404, "unknown_service")
            down = requests.get(f"{running.url}/services/Db", params={"at": only_two}, timeout=5).json()["Instances"]
            assert {(one["ServiceURL"], one["State"]) for one in down} == {(one.url, "down"), (two.url, "up")}
        with registry(*store) as running:
            assert all_as_they_were() == expected


def test_the_size_of_the_journal_is_bounded(tmp_path: Path) -> None:
    with registry("--store", SQLITE.format(tmp_path), "--journal-size", "256K") as running, Classic() as peer:
        session = requests.Session()
        body = peer.registration("Db")
        for number in range(4000):
            session.post(running.url + "/services", json=body | {"Version": str(number)}, timeout=5)
        listed = eventually(lambda: (found := events(running, since=0, limit=1)) and found[0]["ID"] > 1 and found)
        assert listed[0]["ID"] > 100
    assert (tmp_path / "registry-events.db").stat().st_size < 2 * 2**18


def test_a_journal_that_cannot_be_read_does_not_keep_the_registry_from_working(tmp_path: Path) -> None:
    (tmp_path / "registry-events.db").write_bytes(b"no database" * 1000)
    with registry("--store", SQLITE.format(tmp_path)) as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        assert told(running, name="Db") == [("registered", None), ("up", None)]
        assert running.events("journal_damaged")


def test_what_an_operator_does_stands_in_the_journal_with_who_did_it() -> None:
    with registry() as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        known = id_of(running, peer)
        assert post(running, f"/services/{known}/drain", {"X-Pillion-By": "ann"}, Reason="a new disk").status_code == 200
        assert post(running, f"/services/{known}/undrain", By="bob").status_code == 200
        wait_for(running, peer.url, "up")
        answer = post(running, f"/services/{known}/forget", {"X-Pillion-By": "eve\r\n ".strip()}, Reason="gone for good")
        assert (answer.status_code, answer.json()["InstanceID"]) == (200, known)
        assert instances(running) == []
        done = [(one["Event"], one["Reason"], one["By"]) for one in events(running, name="Db")]
        assert done == [
            ("registered", None, None),
            ("up", None, None),
            ("draining", "a new disk", "ann at 127.0.0.1"),
            ("undrained", None, "bob at 127.0.0.1"),
            ("up", None, None),
            ("forgotten", "gone for good", "eve at 127.0.0.1"),
        ]


def test_a_hidden_instance_is_withdrawn_and_comes_back_by_itself() -> None:
    with registry() as running, Classic() as provider, Classic() as dependent:
        provider.register(running.url, "Db")
        dependent.register(running.url, "Shop", ["Db"])
        wait_for(running, provider.url, "up")
        eventually(lambda: dependent.table)
        hidden = post(running, f"/services/{id_of(running, provider)}/hide", Seconds=0.8, Reason="a drill", By="ann")
        assert (hidden.status_code, hidden.json()["State"]) == (200, "draining")
        assert re.fullmatch(r"hidden until 2\S+Z: a drill", hidden.json()["Reason"])
        eventually(lambda: dependent.table == [], 2)
        provider.register(running.url, "Db", Version="2")  # a classic one that registers anew is another process
        wait_for(running, provider.url, "up")
        assert post(running, f"/services/{id_of(running, provider)}/hide", Seconds=0.5).status_code == 200
        eventually(lambda: states(running, "Db") == {provider.url: "up"}, 3)
        eventually(lambda: len(dependent.table) == 1, 2)
        assert [one["Event"] for one in events(running, name="Db")][-3:] == ["hidden", "shown", "up"]
        assert dependent.faults == []


def test_a_hiding_lasts_over_a_registration_of_the_same_process_and_ends_with_a_restart(tmp_path: Path) -> None:
    store = ("--store", SQLITE.format(tmp_path))
    with Classic() as provider:
        with registry(*store) as running:
            provider.register(running.url, "Db", Incarnation=7)
            wait_for(running, provider.url, "up")
            known = id_of(running, provider)
            assert post(running, f"/services/{known}/hide", Seconds=60).status_code == 200
            assert provider.register(running.url, "Db", Incarnation=7).json()["State"] == "draining"
            time.sleep(0.5)
            assert states(running) == {provider.url: "draining"}
        with registry(*store) as running:  # ended with a registration since
            wait_for(running, provider.url, "up")
            assert post(running, f"/services/{known}/hide", Seconds=60).status_code == 200
        with registry(*store) as running:  # and without
            wait_for(running, provider.url, "up")
            assert post(running, f"/services/{known}/hide", Seconds=60).status_code == 200
            assert post(running, f"/services/{known}/undrain").status_code == 200
            wait_for(running, provider.url, "up")


def test_what_is_drained_cannot_be_hidden_and_what_is_hidden_can_be_drained_for_good() -> None:
    with registry() as running, Classic() as provider:
        provider.register(running.url, "Db")
        wait_for(running, provider.url, "up")
        path = f"/services/{id_of(running, provider)}"
        assert post(running, f"{path}/hide", Seconds=0.3).status_code == 200
        assert post(running, f"{path}/drain", Reason="for good").status_code == 200
        assert post(running, f"{path}/hide", Seconds=1).json()["Error"] == "draining"
        time.sleep(0.6)
        assert states(running) == {provider.url: "draining"}


@pytest.mark.parametrize("seconds", [0, -1, 3601, 1e300])
def test_a_hiding_without_end_is_refused(seconds: float) -> None:
    with registry() as running, Classic() as provider:
        provider.register(running.url, "Db")
        refused = post(running, f"/services/{id_of(running, provider)}/hide", Seconds=seconds)
        assert (refused.status_code, refused.json()["Field"]) == (400, "Seconds")


def test_a_web_page_from_elsewhere_changes_nothing() -> None:
    with registry() as running, Classic() as provider:
        provider.register(running.url, "Db")
        path = f"/services/{id_of(running, provider)}/forget"
        for origin in ("http://evil.example", "null", running.url + "1"):
            refused = post(running, path, {"Origin": origin})
            assert (refused.status_code, refused.json()["Error"]) == (403, "foreign_page")
        assert post(running, path, {"Origin": running.url}).status_code == 200


def test_an_operator_needs_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret-s3cret-s3cret\n")
    with registry("--token-file", str(token)) as running:
        for what in ("drain", "undrain", "hide", "forget"):
            assert post(running, f"/services/x/{what}", Seconds=1).status_code == 401
        trusted = {"Authorization": "Bearer s3cret-s3cret-s3cret-s3cret"}
        assert post(running, "/services/x/forget", trusted).json()["Error"] == "unknown_instance"
