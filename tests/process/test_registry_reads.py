"""What people and programs read of the catalogue: filters, tags, and waits for a change."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from classic import Classic
from programs import eventually
from registry_lab import registry, wait_for


def get(url: str, path: str, headers: dict[str, str] | None = None, **query: Any) -> requests.Response:
    return requests.get(url + path, params=query, headers=headers, timeout=20)


def urls(answer: requests.Response) -> set[str]:
    return {one["ServiceURL"] for one in answer.json()["Services"]}


def test_lists_are_filtered_by_name_state_tag_and_zone() -> None:
    with registry() as running, ExitStack() as stack:
        one, two, three = [stack.enter_context(Classic()) for _ in range(3)]
        one.register(running.url, "Db", Tags=["fast", "eu"], Zone="a")
        two.register(running.url, "Db", Tags=["slow"], Zone="b")
        three.heartbeat = 503
        three.register(running.url, "Shop", Zone="a")
        for peer in (one, two):
            wait_for(running, peer.url, "up")
        for path, query, expected in [
            ("/services", {}, {one.url, two.url, three.url}),
            ("/services", {"name": "Db"}, {one.url, two.url}),
            ("/services", {"name": "Nobody"}, set()),
            ("/services", {"state": "up"}, {one.url, two.url}),
            ("/services", {"tag": "fast"}, {one.url}),
            ("/services", {"zone": "a"}, {one.url, three.url}),
            ("/services", {"zone": "a", "name": "Db"}, {one.url}),
            ("/services/Db", {"zone": "b"}, {two.url}),
            ("/services/Db", {"tag": "eu", "state": "up"}, {one.url}),
            ("/services/Db", {"state": "down"}, set()),
        ]:
            assert urls(get(running.url, path, **query)) == expected, (path, query)
        assert get(running.url, "/services/Nobody").status_code == 404
        assert get(running.url, "/services/Nobody").json()["Error"] == "unknown_service"


def test_a_list_that_has_not_changed_is_not_sent_again() -> None:
    with registry() as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        first = get(running.url, "/services/Db")
        tag = first.headers["ETag"]
        again = get(running.url, "/services/Db", {"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        peer.heartbeat = 503
        wait_for(running, peer.url, "down")
        changed = get(running.url, "/services/Db", {"If-None-Match": tag})
        assert (changed.status_code, changed.json()["Services"][0]["State"]) == (200, "down")


def test_a_reason_that_changes_is_seen_though_nothing_else_did() -> None:
    with registry() as running, Classic() as peer:
        peer.heartbeat, peer.body = 503, b"the disk is full"
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "starting")
        eventually(lambda: get(running.url, "/services/Db").json()["Services"][0]["Reason"] == "the disk is full")
        tag = get(running.url, "/services/Db").headers["ETag"]
        peer.body = b"the disk is broken"
        answer = eventually(lambda: (found := get(running.url, "/services/Db", {"If-None-Match": tag})).status_code == 200 and found)
        assert answer.json()["Services"][0]["Reason"] == "the disk is broken"


@pytest.mark.parametrize("path", ["/services", "/services/Db"])
def test_a_blocking_read_is_answered_at_the_next_change(path: str) -> None:
    with registry() as running, Classic() as peer, Classic() as other:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        revision = get(running.url, path).json()["Revision"]
        answers: list[tuple[float, int]] = []

        def ask() -> None:
            began = time.monotonic()
            answers.append((time.monotonic() - began, get(running.url, path, revision=revision, wait=15).json()["Revision"]))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        assert answers == []
        other.register(running.url, "Db")
        asking.join(5)
        assert answers[0][1] > revision
        assert answers[0][0] < 5


def test_a_blocking_read_ends_with_the_same_revision_when_its_time_is_over() -> None:
    with registry() as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        revision = get(running.url, "/services").json()["Revision"]
        began = time.monotonic()
        assert get(running.url, "/services", revision=revision, wait=0.4).json()["Revision"] == revision
        assert 0.4 <= time.monotonic() - began < 2
        began = time.monotonic()
        assert get(running.url, "/services", revision=revision - 1, wait=10).json()["Revision"] == revision
        assert time.monotonic() - began < 1


def test_a_registry_that_stops_lets_those_go_who_wait() -> None:
    answers = []
    with registry() as running:
        asking = threading.Thread(target=lambda: answers.append(get(running.url, "/services", revision=99, wait=50)))
        asking.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert running.stop() == 0
        asking.join(5)
    assert time.monotonic() - began < 3
    assert answers[0].status_code == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("revision=x", "revision"),
        ("revision=-1", "revision"),
        ("revision=1.5", "revision"),
        ("wait=abc&revision=1", "wait"),
        ("wait=nan&revision=1", "wait"),
        ("name=a&name=b", "name"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_with_its_field(query: str, field: str) -> None:
    with registry() as running:
        answer = requests.get(f"{running.url}/services?{query}", timeout=5)
        assert (answer.status_code, answer.json()["Field"]) == (400, field)
