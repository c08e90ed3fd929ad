"""Who may change the registry, and whom the registry may be made to call."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from classic import Classic
from programs import Program, eventually
from registry_lab import instances, registry, states, wait_for

WAIT_S = 5.0
SECRET = "0123456789-abcdefghij"
RIGHT = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(SECRET + "\n")
    return str(path)


@pytest.fixture(scope="module")
def guarded(token_file: str) -> Iterator[Program]:
    with registry(env={"PILLION_TOKEN_FILE": token_file}) as running:
        yield running
        assert SECRET not in "".join(running.lines)


@pytest.fixture
def peer() -> Iterator[Classic]:
    with Classic() as peer:
        yield peer


def test_without_the_token_nothing_is_changed(guarded: Program, peer: Classic) -> None:
    body = peer.registration("A")
    for headers, status, code in (({}, 401, "token_missing"), ({"Authorization": "Bearer wrong"}, 403, "token_wrong")):
        answers = [
            requests.post(guarded.url + "/services", json=body, headers=headers, timeout=WAIT_S),
            requests.delete(guarded.url + "/services", data=peer.url, headers=headers, timeout=WAIT_S),
            requests.post(guarded.url + "/services/x/state", json={"State": "down"}, headers=headers, timeout=WAIT_S),
        ]
        assert [(a.status_code, a.json()["Error"]) for a in answers] == [(status, code)] * 3
        assert all(SECRET not in a.text for a in answers)
        assert ("WWW-Authenticate" in answers[0].headers) is (status == 401)
    assert instances(guarded) == []


def test_with_the_token_it_works_and_reads_need_none(guarded: Program, peer: Classic) -> None:
    answer = requests.post(guarded.url + "/services", json=peer.registration("A"), headers=RIGHT, timeout=WAIT_S)
    assert answer.status_code == 200
    assert [one["ServiceName"] for one in instances(guarded, "A")] == ["A"]
    assert requests.get(guarded.url + "/readyz", timeout=WAIT_S).status_code == 200
    assert requests.delete(guarded.url + "/services", data=peer.url, headers=RIGHT, timeout=WAIT_S).status_code == 200


def test_a_token_does_not_travel_with_heartbeats_and_does_with_patches_to_sidecars(guarded: Program, peer: Classic) -> None:
    body = peer.registration("A", ["B"], Protocol=2)
    assert requests.post(guarded.url + "/services", json=body, headers=RIGHT, timeout=WAIT_S).status_code == 200
    eventually(lambda: peer.patch_headers)
    assert peer.patch_headers[0]["Authorization"] == RIGHT["Authorization"]
    requests.delete(guarded.url + "/services", data=peer.url, headers=RIGHT, timeout=WAIT_S)


def test_a_classic_client_is_let_in_from_its_network(token_file: str, peer: Classic) -> None:
    with registry("--classic-networks", "127.0.0.0/8", env={"PILLION_TOKEN_FILE": token_file}) as running:
        assert peer.register(running.url, "A").status_code == 200
        assert peer.deregister(running.url).status_code == 200
        wrong = requests.post(running.url + "/services", json=peer.registration("A"), headers={"Authorization": "Bearer x"}, timeout=WAIT_S)
        assert wrong.status_code == 403
    with registry("--classic-networks", "10.99.0.0/16", env={"PILLION_TOKEN_FILE": token_file}) as running:
        assert peer.register(running.url, "A").status_code == 401


def test_a_client_that_showed_no_token_is_not_given_it_with_its_patches(token_file: str) -> None:
    """Else whoever may register without the token can learn it: it only has to require something."""
    with (
        registry("--classic-networks", "127.0.0.0/8", env={"PILLION_TOKEN_FILE": token_file}) as running,
        Classic() as provider,
        Classic() as dependent,
    ):
        dependent.register(running.url, "Portald", ["LogService"])
        provider.register(running.url, "LogService")
        eventually(lambda: dependent.patch_headers)
        assert "Authorization" not in dependent.patch_headers[0]


def test_without_a_token_it_warns_once_at_its_start(peer: Classic) -> None:
    with registry() as running:
        assert peer.register(running.url, "A").status_code == 200
        assert len(running.events("no_token")) == 1


@pytest.mark.parametrize("field", ["HeartbeatURL", "ServiceUpdateURL"])
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://8.8.8.8/",
        "http://[2001:4860:4860::8888]/",
        "http://0.0.0.0:22/",
        "http://[::]/",
        "http://224.0.0.1/",
    ],
)
def test_a_target_the_registry_may_not_call_is_refused_with_its_field(guarded: Program, peer: Classic, field: str, url: str) -> None:
    body = peer.registration("A", ["B"]) | {field: url}
    answer = requests.post(guarded.url + "/services", json=body, headers=RIGHT, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["Error"], answer.json()["Field"]) == (400, "target_not_allowed", field)


@pytest.mark.parametrize("url", ["http://2852039166/", "http://0xa9fea9fe/", "http://0/", "http://localhost.localdomain.invalid/"])
def test_a_name_that_hides_a_forbidden_address_is_never_up(guarded: Program, peer: Classic, url: str) -> None:
    body = peer.registration("Hidden") | {"HeartbeatURL": url}
    answer = requests.post(guarded.url + "/services", json=body, headers=RIGHT, timeout=WAIT_S)
    if answer.status_code == 200:
        time.sleep(0.3)
        assert states(guarded, "Hidden") == {peer.url: "starting"}
        requests.delete(guarded.url + "/services", data=peer.url, headers=RIGHT, timeout=WAIT_S)
    else:
        assert answer.status_code == 400


def test_a_redirect_of_a_heartbeat_is_not_followed_and_no_pass(peer: Classic) -> None:
    with registry() as running:
        peer.heartbeat = 302
        peer.register(running.url, "A")
        eventually(lambda: len(peer.heartbeats) >= 3)
        assert states(running) == {peer.url: "starting"}
        peer.heartbeat = "ok"
        wait_for(running, peer.url, "up")
        peer.heartbeat = 302
        wait_for(running, peer.url, "down")


def test_an_oversized_heartbeat_answer_is_fine(peer: Classic) -> None:
    peer.body = b"x" * 3_000_000
    with registry() as running:
        peer.register(running.url, "A")
        wait_for(running, peer.url, "up")
        eventually(lambda: len(peer.heartbeats) >= 6)
        assert states(running) == {peer.url: "up"}


def test_no_peer_is_asked_much_more_often_than_the_interval_says() -> None:
    """Whatever it answers, a peer is asked about once an interval (here 500 ms), not in a tight loop."""
    behaviours: dict[str, str | int] = {"old": "ok", "large": "ok", "failing": 500, "hanging": "hang", "down": 503}
    with registry("--heartbeat-interval", "500ms", "--heartbeat-timeout", "100ms") as running, ExitStack() as stack:
        peers = {name: stack.enter_context(Classic()) for name in behaviours}
        peers["old"].http_1_1 = False
        peers["large"].body = b"x" * 100_000
        for name, one in peers.items():
            one.register(running.url, name)
            wait_for(running, one.url, "up")
            one.heartbeat = behaviours[name]
        time.sleep(0.7)  # the first misses may be asked again at once: that is how they are told from a death
        before = {name: len(one.heartbeats) for name, one in peers.items()}
        time.sleep(1.5)
        assert {name: len(one.heartbeats) - before[name] for name, one in peers.items() if len(one.heartbeats) - before[name] > 5} == {}


def test_a_hanging_update_url_does_not_hold_up_the_first_check_of_the_same_peer(peer: Classic) -> None:
    """Heartbeats and patches go to the same origin; a patch that hangs from the start must not delay the peer's first check."""
    with registry("--heartbeat-interval", "500ms", "--heartbeat-timeout", "1s") as running, Classic() as provider:
        provider.register(running.url, "LogService")
        wait_for(running, provider.url, "up")
        peer.patch = "hang"
        peer.register(running.url, "Portald", ["LogService"])
        started = time.monotonic()
        wait_for(running, peer.url, "up")
        assert time.monotonic() - started < 0.7


def test_a_peer_whose_patches_hang_stays_up_as_long_as_its_heartbeats_are_answered(peer: Classic) -> None:
    with registry("--heartbeat-interval", "100ms", "--heartbeat-timeout", "400ms") as running, Classic() as provider:
        peer.register(running.url, "Portald", ["LogService"])
        wait_for(running, peer.url, "up")
        peer.patch = "hang"
        provider.register(running.url, "LogService")
        time.sleep(2.0)
        assert [line["message"] for line in running.events("instance_down")] == []
        assert states(running)[peer.url] == "up"


def test_a_registry_that_was_paused_blames_nobody(peer: Classic) -> None:
    """It was stopped for longer than any time-out; when it goes on, nobody healthy is withdrawn."""
    with registry() as running, Classic() as dependent:
        dependent.register(running.url, "Portald", ["A"])
        peer.register(running.url, "A")
        eventually(lambda: dependent.table == [("A", peer.url)])
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        running.process.send_signal(signal.SIGCONT)
        time.sleep(0.7)
        assert dependent.removed() == []
        assert states(running)[peer.url] == "up"


def test_a_port_that_is_taken_ends_it_with_1_and_the_reason(tmp_path: Path) -> None:
    from programs import Program as Started

    with socket.create_server(("127.0.0.1", 0)) as taken:
        started = Started(("registry", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--store", "memory:"), {})
        assert started.process.wait(15) == 1
        for reader in started._readers:
            reader.join(5)
        assert started.events("start_failed")
        assert "Traceback" not in "".join(started.lines)
