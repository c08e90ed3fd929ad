"""One test for each defect of the program that was here before: here it is impossible. The log service's have a file of their own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from classic import Classic
from programs import Program, eventually
from raw_http import request
from registry_lab import instances, port_of, registry, states, wait_for

WAIT_S = 5.0


@pytest.fixture
def running() -> Iterator[Program]:
    with registry() as running:
        yield running


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def peer(peers: ExitStack) -> Classic:
    return peers.enter_context(Classic())


def cpu_s(running: Program) -> float:
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sockets_of(running: Program) -> int:
    names = []
    for link in Path(f"/proc/{running.process.pid}/fd").iterdir():
        try:
            names.append(os.readlink(link))
        except OSError:
            pass  # closed meanwhile
    return sum(name.startswith("socket:") for name in names)


def silent_endpoint(peers: ExitStack) -> str:
    """Return the URL of something that accepts and never answers."""
    listener = peers.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_spin_when_empty_an_idle_registry_costs_nothing(running: Program) -> None:
    """defect: spin_when_empty. With nothing registered the process hardly runs at all."""
    time.sleep(0.3)
    before = cpu_s(running)
    time.sleep(2.0)
    assert cpu_s(running) - before < 0.1


def test_heartbeats_serial_every_instance_has_its_own_pace(running: Program, peers: ExitStack) -> None:
    """defect: heartbeats_serial. Thirty instances are each checked once an interval, not once in thirty."""
    all_peers = [peer(peers) for _ in range(30)]
    for number, one in enumerate(all_peers):
        assert one.register(running.url, f"S{number}").status_code == 200
    time.sleep(0.5)
    before = [len(one.heartbeats) for one in all_peers]
    time.sleep(1.5)
    counts = [len(one.heartbeats) - start for one, start in zip(all_peers, before, strict=True)]
    assert min(counts) >= 4
    assert max(counts) <= 10


def test_update_url_down_a_registration_with_an_unreachable_update_url_is_taken(running: Program, peers: ExitStack) -> None:
    """defect: update_url_down. It answers 200, a retry makes no duplicate, and the dependent is told once it listens."""
    provider, dependent = peer(peers), peer(peers)
    provider.register(running.url, "LogService")
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/services"
    for _ in range(2):
        assert dependent.register(running.url, "Portald", ["LogService"], ServiceUpdateURL=dead).status_code == 200
    assert len(instances(running, "Portald")) == 1
    wait_for(running, dependent.url, "up")


def test_lost_patch_a_patch_is_sent_until_it_arrives(running: Program, peers: ExitStack) -> None:
    """defect: lost_patch. The dependent's update URL resets every connection for a while; then it gets exactly what it missed."""
    provider, dependent = peer(peers), peer(peers)
    dependent.patch = "reset"
    dependent.register(running.url, "Portald", ["LogService"])
    provider.register(running.url, "LogService")
    wait_for(running, provider.url, "up")
    time.sleep(0.5)
    assert dependent.table == []
    dependent.patch = "ok"
    eventually(lambda: dependent.table == [("LogService", provider.url)], 5.0)
    assert dependent.faults == []


def test_status_ignored_a_patch_answered_500_is_not_delivered(running: Program, peers: ExitStack) -> None:
    """defect: status_ignored. Only 200 counts; and the connections of refused patches are not left open."""
    provider, dependent = peer(peers), peer(peers)
    dependent.patch = 500
    dependent.register(running.url, "Portald", ["LogService"])
    provider.register(running.url, "LogService")
    wait_for(running, provider.url, "up")
    eventually(lambda: len(dependent.patch_headers) >= 3, 5.0)
    assert dependent.open_connections <= 3
    dependent.patch = 204
    tries = len(dependent.patch_headers)
    eventually(lambda: len(dependent.patch_headers) > tries + 1, 5.0)
    dependent.patch = "ok"
    eventually(lambda: dependent.table == [("LogService", provider.url)], 10.0)


def test_heartbeat_body_leak_many_heartbeats_with_a_body_use_one_connection(peers: ExitStack) -> None:
    """defect: heartbeat_body_leak. After twenty heartbeats with bodies, small and large, few connections were made and one is open."""
    small, large = peer(peers), peer(peers)
    small.body, large.body = b"I am fine", b"x" * 1_000_000
    with registry("--heartbeat-interval", "80ms") as running:
        small.register(running.url, "Small")
        large.register(running.url, "Large")
        eventually(lambda: len(small.heartbeats) >= 20 and len(large.heartbeats) >= 20, 15.0)
        assert small.connections <= 2
        assert small.open_connections <= 1
        assert large.open_connections <= 2
        assert sockets_of(running) < 15
        assert set(states(running).values()) == {"up"}


def test_hang_an_endpoint_that_never_answers_delays_nobody(running: Program, peers: ExitStack) -> None:
    """defect: hang. Ten peers accept and never answer, to heartbeats and patches; the others live as if they were not there."""
    silent = silent_endpoint(peers)
    for number in range(10):
        url = f"{silent}/{number}"
        body = {
            "ServiceName": "Silent",
            "ServiceURL": url,
            "RequiredServices": ["LogService"],
            "ServiceUpdateURL": url,
            "HeartbeatURL": url,
        }
        started = time.monotonic()
        assert requests.post(running.url + "/services", json=body, timeout=WAIT_S).status_code == 200
        assert time.monotonic() - started < 1.0
    provider, dependent = peer(peers), peer(peers)
    dependent.register(running.url, "Portald", ["LogService"])
    started = time.monotonic()
    provider.register(running.url, "LogService")
    eventually(lambda: dependent.table == [("LogService", provider.url)], 2.0)
    assert time.monotonic() - started < 1.0
    beats = len(provider.heartbeats)
    time.sleep(1.0)
    assert len(provider.heartbeats) - beats >= 3


def test_duplicates_registering_twice_is_one_everywhere(running: Program, peers: ExitStack) -> None:
    """defect: duplicates. One entry, one Added, and one DELETE removes it all."""
    provider, dependent = peer(peers), peer(peers)
    dependent.register(running.url, "Portald", ["LogService"])
    for _ in range(3):
        assert provider.register(running.url, "LogService").status_code == 200
    wait_for(running, provider.url, "up")
    assert provider.register(running.url, "LogService").status_code == 200
    assert len(instances(running, "LogService")) == 1
    eventually(lambda: dependent.table == [("LogService", provider.url)])
    assert provider.deregister(running.url).status_code == 200
    assert instances(running, "LogService") == []
    eventually(lambda: dependent.table == [])
    assert dependent.faults == []


def test_gone_for_good_a_service_that_comes_back_is_offered_again(running: Program, peers: ExitStack) -> None:
    """defect: gone_for_good. Dead for long enough to be withdrawn, it is still checked, and back by itself; told what it missed."""
    provider, dependent, other = peer(peers), peer(peers), peer(peers)
    dependent.register(running.url, "Portald", ["LogService"])
    provider.register(running.url, "LogService", ["Db"])
    eventually(lambda: dependent.table == [("LogService", provider.url)])
    provider.die()
    wait_for(running, provider.url, "down")
    eventually(lambda: dependent.table == [])
    other.register(running.url, "Db")
    wait_for(running, other.url, "up")
    provider.come_back()
    eventually(lambda: dependent.table == [("LogService", provider.url)])
    eventually(lambda: provider.table == [("Db", other.url)])
    assert dependent.faults == provider.faults == []


def test_readd_race_a_deleted_service_stays_deleted_though_its_heartbeat_recovers(running: Program, peers: ExitStack) -> None:
    """defect: readd_race. Deleted while its heartbeat hangs or fails, it does not come back; registered again meanwhile, it is one."""
    for failing in ("hang", 503, "reset"):
        provider = peer(peers)
        provider.register(running.url, "LogService")
        wait_for(running, provider.url, "up")
        provider.heartbeat = failing
        time.sleep(0.3)
        assert provider.deregister(running.url).status_code == 200
        provider.heartbeat = "ok"
        provider._released.set()
        time.sleep(0.5)
        assert states(running, "LogService") == {}
        eventually(lambda provider=provider: provider.open_connections == 0, 3.0)
    provider = peer(peers)
    provider.register(running.url, "LogService")
    wait_for(running, provider.url, "up")
    provider.heartbeat = 503
    wait_for(running, provider.url, "down")
    provider.register(running.url, "LogService")
    provider.heartbeat = "ok"
    wait_for(running, provider.url, "up")
    assert len(instances(running, "LogService")) == 1


def storm(running: Program, calls: list[tuple[str, str, bytes]]) -> list[int]:
    """Send the calls from 16 threads; returns their statuses in the order of the calls."""
    port = port_of(running)
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda call: request(port, call[0], call[1], call[2]).status, calls))


def body_for(url: str, name: str = "Many") -> bytes:
    return f'{{"ServiceName":"{name}","ServiceURL":"{url}","HeartbeatURL":"{url}","RequiredServices":null}}'.encode()


def test_race_build_concurrent_calls_leave_exactly_the_truth(tmp_path: Path) -> None:
    """defect: race_build. 2,000 concurrent POST and DELETE of few URLs, with heartbeats among them: the catalogue is right."""
    with Classic() as target, registry("--store", f"sqlite:{tmp_path / 'r.db'}", "--heartbeat-interval", "5s") as running:
        calls = []
        for number in range(1000):
            url = f"{target.url}/{number % 50}"
            calls += [("POST", "/services", body_for(url)), ("DELETE", "/services", url.encode())]
        assert set(storm(running, calls)) <= {200, 404}
        for number in range(50):
            assert request(port_of(running), "POST", "/services", body_for(f"{target.url}/{number}")).status == 200
        assert set(states(running)) == {f"{target.url}/{number}" for number in range(50)}
        assert len(instances(running)) == 50
        eventually(lambda: set(states(running).values()) == {"up"}, 10.0)


def test_delete_storm_removes_exactly_what_was_named(peers: ExitStack) -> None:
    """defect: delete_storm. 1,000 registered, 500 deleted from 16 threads, each twice: the others are there, the registry answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = f"http://127.0.0.1:{free.getsockname()[1]}"
    urls = [f"{target}/{number}" for number in range(1000)]
    with registry("--heartbeat-interval", "5s") as running:
        assert set(storm(running, [("POST", "/services", body_for(url)) for url in urls])) == {200}
        statuses = storm(running, [("DELETE", "/services", url.encode()) for url in urls[::2] for _ in range(2)])
        assert (statuses.count(200), statuses.count(404)) == (500, 500)
        assert set(states(running)) == set(urls[1::2])
        assert requests.get(running.url + "/livez", timeout=WAIT_S).status_code == 200


def test_garbage_is_refused_and_nothing_of_it_stays(running: Program) -> None:
    """defect: garbage. An empty object, empty names and URLs: 400; DELETE of an unknown URL: 404."""
    port = port_of(running)
    good = {"ServiceName": "A", "ServiceURL": "http://127.0.0.1:1", "HeartbeatURL": "http://127.0.0.1:1"}
    assert request(port, "POST", "/services", b"{}").status == 400
    for key in good:
        assert requests.post(running.url + "/services", json=good | {key: ""}, timeout=WAIT_S).status_code == 400
    assert request(port, "DELETE", "/services", b"http://127.0.0.1:1").status == 404
    assert instances(running) == []


def test_restart_loses_all_everything_comes_back_after_a_kill(tmp_path: Path, peers: ExitStack) -> None:
    """defect: restart_loses_all. kill -9 and a new start: all are there, none healthy was Removed, each is offered once checked."""
    store = f"sqlite:{tmp_path / 'registry.db'}"
    providers, dependent, late = [peer(peers) for _ in range(5)], peer(peers), peer(peers)
    with registry("--store", store) as running:
        dependent.register(running.url, "Portald", ["LogService"])
        for provider in providers:
            provider.register(running.url, "LogService")
        eventually(lambda: len(dependent.table) == 5)
        time.sleep(0.2)
        running.kill()
    providers[0].die()
    with registry("--store", store) as running:
        assert len(instances(running)) == 6
        eventually(lambda: [one["State"] for one in instances(running, "LogService")].count("up") == 4, 5.0)
        late.register(running.url, "Portald", ["LogService"])
        eventually(lambda: len(late.table) == 4)
        eventually(lambda: len(dependent.table) == 4)
    assert dependent.removed() == [providers[0].url]
    assert dependent.faults == late.faults == []


def test_order_a_dependent_ends_with_the_truth_after_rapid_changes(running: Program, peers: ExitStack) -> None:
    """defect: order. 200 rapid additions and removals of one provider; a slow and a quick dependent end with exactly the truth."""
    provider, quick, slow = peer(peers), peer(peers), peer(peers)
    slow.delay_s = 0.05
    for number, dependent in enumerate((quick, slow)):
        dependent.register(running.url, f"Portald{number}", ["LogService"])
    for _ in range(100):
        provider.register(running.url, "LogService")
        time.sleep(0.01)
        provider.deregister(running.url)
    provider.register(running.url, "LogService")
    for dependent in (quick, slow):
        eventually(lambda dependent=dependent: dependent.table == [("LogService", provider.url)])
    time.sleep(0.3)
    assert quick.faults == slow.faults == []
    assert quick.table == slow.table == [("LogService", provider.url)]
    assert len(quick.patches) > 3
