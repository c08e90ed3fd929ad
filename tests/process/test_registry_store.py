"""The registry's disk: what was answered 200 survives kill -9; a full disk is told and got over; a broken file is told."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from classic import Classic
from programs import Program, eventually
from raw_http import request
from registry_lab import instances, port_of, registry, states, wait_for


def body_for(url: str, padding: int = 0) -> bytes:
    more = "".join(f',"k{n}":"{"x" * 1000}"' for n in range(padding))
    return f'{{"ServiceName":"Many","ServiceURL":"{url}","HeartbeatURL":"{url}","Metadata":{{"a":"b"{more}}}}}'.encode()


def test_kill_9_in_the_middle_keeps_all_that_was_acknowledged(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'r.db'}"
    kept: set[str] = set()
    removed: set[str] = set()
    with registry("--store", store, "--heartbeat-interval", "30s") as running:
        port = port_of(running)

        def work(lane: int) -> None:
            for number in range(10_000):
                url = f"http://127.0.0.1:1/{lane}/{number}"
                try:
                    if request(port, "POST", "/services", body_for(url)).status == 200:
                        kept.add(url)
                    if number % 3 == 0 and request(port, "DELETE", "/services", url.encode()).status == 200:
                        removed.add(url)
                except (OSError, EOFError):
                    return

        workers = [threading.Thread(target=work, args=(lane,)) for lane in range(8)]
        for worker in workers:
            worker.start()
        eventually(lambda: len(kept) > 150, 10.0)
        running.kill()
        for worker in workers:
            worker.join(10)
    with registry("--store", store, "--heartbeat-interval", "30s") as running:
        there = set(states(running))
    # What was under way at the kill may have been kept or not; a DELETE under way concerns one URL a lane at most.
    assert len(kept - removed - there) <= 8
    assert all(int(url.rpartition("/")[2]) % 3 == 0 for url in kept - removed - there)
    assert not removed & there


def test_the_revision_never_goes_back_over_restarts_and_the_epoch_stays(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'r.db'}"
    seen: list[tuple[int, str]] = []
    with Classic() as peer:
        for round_ in range(3):
            with registry("--store", store) as running:
                if round_ == 0:
                    peer.register(running.url, "A")
                wait_for(running, peer.url, "up")
                for heartbeat, state in ((503, "down"), ("ok", "up")):
                    peer.heartbeat = heartbeat  # type: ignore[assignment]
                    wait_for(running, peer.url, state)
                said = requests.get(running.url + "/services", timeout=5).json()
                seen.append((said["Revision"], said["Epoch"]))
    revisions = [revision for revision, _ in seen]
    assert revisions == sorted(set(revisions))
    assert len({epoch for _, epoch in seen}) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(path: Path) -> None:
    """Write until there is no room."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, b"x" * 4096)
    except OSError:
        pass
    finally:
        os.close(handle)


def ready(running: Program) -> int:
    return requests.get(running.url + "/readyz", timeout=5).status_code


def test_a_full_disk_is_told_and_later_all_works_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with registry("--store", f"sqlite:{small_disk / 'r.db'}", "--heartbeat-interval", "30s") as running:
        port = port_of(running)
        assert request(port, "POST", "/services", body_for("http://127.0.0.1:1/before")).status == 200
        fill(ballast)
        refused = [request(port, "POST", "/services", body_for(f"http://127.0.0.1:1/{n}", 50)) for n in range(5)]
        assert {answer.status for answer in refused} <= {503, 507}
        assert all(answer.json()["Message"] and "retry-after" in answer.headers for answer in refused)
        assert ready(running) == 503
        assert [one["ServiceURL"] for one in instances(running)] == ["http://127.0.0.1:1/before"]
        assert request(port, "GET", "/livez").status == 200
        ballast.unlink()
        assert request(port, "POST", "/services", body_for("http://127.0.0.1:1/after")).status == 200
        assert ready(running) == 200
        running.kill()
    with registry("--store", f"sqlite:{small_disk / 'r.db'}", "--heartbeat-interval", "30s") as running:
        assert set(states(running)) == {"http://127.0.0.1:1/before", "http://127.0.0.1:1/after"}


def test_a_broken_file_ends_it_with_1_and_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database at all " * 500)
    started = Program(("registry", "--listen", "127.0.0.1:0", "--store", f"sqlite:{path}"), {})
    assert started.process.wait(15) == 1
    for reader in started._readers:
        reader.join(5)
    (line,) = started.events("start_failed")
    assert str(path) in line["message"]
    assert "Traceback" not in "".join(started.lines)


def test_a_dependent_that_registers_again_right_after_a_restart_keeps_what_it_had(tmp_path: Path) -> None:
    """As a sidecar does, which registers anew when its registry was away: nobody healthy is withdrawn from the others."""
    store = f"sqlite:{tmp_path / 'r.db'}"
    with Classic() as provider, Classic() as dependent:
        with registry("--store", store) as running:
            dependent.register(running.url, "Portald", ["LogService"])
            provider.register(running.url, "LogService")
            eventually(lambda: dependent.table == [("LogService", provider.url)])
            time.sleep(0.2)
            running.kill()
        provider.heartbeat = "hang"
        with registry("--store", store, "--heartbeat-timeout", "2s") as running:
            provider.register(running.url, "LogService")
            time.sleep(0.3)
            assert dependent.removed() == []
            provider.heartbeat = "ok"
            provider._released.set()
            wait_for(running, provider.url, "up")
        assert dependent.removed() == []
        assert dependent.faults == []
