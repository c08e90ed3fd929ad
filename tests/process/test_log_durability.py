"""What was acknowledged is there: after kill -9, a full disk, and whatever stands in the file's place."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import zstandard
from programs import START_S, Program, eventually, program

WAIT_S = 10


FIRST = "00000000000000000000.log"


def messages(folder: Path) -> list[str]:
    lines = [json.loads(line) for path in sorted(folder.glob("0*.log*")) for line in content(path).splitlines()]
    return [line["Message"] for line in lines if "Check" not in line]


def content(path: Path) -> bytes:
    """Return what is in a segment, packed or not."""
    if path.suffix == ".log":
        return path.read_bytes().replace(b"\0", b"")  # no entry has one
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


def post(log: Program, text: str) -> int:
    return requests.post(log.url + "/log", data=text, timeout=WAIT_S).status_code


def ready(log: Program) -> bool:
    return requests.get(log.url + "/readyz", timeout=WAIT_S).status_code == 200


class Sender(threading.Thread):
    """A source that sends batches in order, each again until it is acknowledged, wherever the log service is now."""

    def __init__(self, name: str, where: Callable[[], str], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._where = where
        self._stop_sending = stop
        self.acknowledged: list[str] = []

    def run(self) -> None:
        seq = 0
        while not self._stop_sending.is_set():
            batch = [{"Message": f"{self.name}-{seq + i}", "Source": self.name, "Seq": seq + i} for i in range(5)]
            body = "\n".join(map(json.dumps, batch))
            try:
                answer = requests.post(self._where() + "/logs", data=body, timeout=WAIT_S)
            except requests.RequestException:
                time.sleep(0.01)
                continue
            taken = answer.json()
            assert (answer.status_code, taken["Accepted"] + taken["Duplicates"]) == (200, 5), answer.text
            self.acknowledged += [entry["Message"] for entry in batch]
            seq += 5


def test_acknowledged_entries_survive_kill_9_once_each(tmp_path: Path) -> None:
    words = ("log", "--store", f"files:{tmp_path}", "--log-rotate", "64K")  # many segments, and most of them packed
    where, stop = [""], threading.Event()
    senders = [Sender(f"source{number}", lambda: where[0], stop) for number in range(4)]
    for round_number in range(4):
        with program(*words) as log:
            where[0] = log.url
            if round_number == 0:
                for sender in senders:
                    sender.start()
            before = [len(sender.acknowledged) for sender in senders]
            eventually(lambda: all(len(s.acknowledged) > n + 50 for s, n in zip(senders, before, strict=True)), START_S)  # noqa: B023
            if round_number < 3:
                log.kill()
            else:
                stop.set()
                for sender in senders:
                    sender.join(START_S)
    stored = messages(tmp_path)
    acknowledged = [message for sender in senders for message in sender.acknowledged]
    assert len(acknowledged) > 800
    assert len(stored) == len(set(stored))
    assert set(acknowledged) - set(stored) == set()


def test_torn_tail_is_cut_at_start_and_told(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert post(log, "whole") == 200
    with (tmp_path / FIRST).open("ab") as file:
        file.write(b'{"Time":"2026-01-31T12')
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert (log.events("torn_tail")[0]["bytes"], log.events("torn_tail")[0]["entries"]) == (22, 1)
        assert post(log, "after") == 200
    assert messages(tmp_path) == ["whole", "after"]


def test_disk_use_is_bounded_by_retention(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}", "--log-rotate", "64K", "--log-max-bytes", "256K", "--log-compress", "no") as log:
        for number in range(20):
            assert post(log, f"{number} {'x' * 30_000}") == 200
        eventually(lambda: sum(path.stat().st_size for path in tmp_path.glob("0*.log")) <= 256 * 1024)
        shown = requests.get(log.url + "/logs", timeout=WAIT_S).text.splitlines()
    assert max(path.stat().st_size for path in tmp_path.glob("0*.log")) <= 64 * 1024
    assert [json.loads(line)["Message"].split()[0] for line in shown] == [str(number) for number in range(12, 20)]


def refuses_until(log: Program, folder: Path, statuses: set[int], make_room: Callable[[], None]) -> None:
    """Show that nothing is acknowledged, that /readyz tells, and that all goes on by itself once there is room."""
    acknowledged, refused = ["before"], []
    for number in range(40):
        answer = requests.post(log.url + "/log", data=f"{number} {'x' * 8_000}", timeout=WAIT_S)
        if answer.status_code == 200:
            acknowledged.append(str(number))
        else:
            assert answer.headers["Retry-After"] == "5"
            assert answer.json()["Error"] in ("storage_full", "store_failed")
            refused.append(answer.status_code)
    assert set(refused) == statuses
    assert not ready(log)
    assert "cannot write" in requests.get(log.url + "/readyz", timeout=WAIT_S).json()["Checks"]["store"]
    assert requests.get(log.url + "/livez", timeout=WAIT_S).status_code == 200
    shown = requests.get(log.url + "/logs", timeout=WAIT_S).text.splitlines()
    assert [json.loads(line)["Message"].split()[0] for line in shown][-len(acknowledged) :] == acknowledged[-len(shown) :]
    make_room()
    eventually(lambda: ready(log))  # nobody writes meanwhile
    assert post(log, "after") == 200
    assert [message.split()[0] for message in messages(folder)][-2:] == [*acknowledged, "after"][-2:]
    assert len(log.events("store_failed")) <= 1 + len(log.events("store_works"))


def test_log_write_error_over_the_file_size_limit_is_never_200(tmp_path: Path) -> None:
    """defect: log_write_error"""
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert post(log, "before") == 200
        _, hard = resource.prlimit(log.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(log.process.pid, resource.RLIMIT_FSIZE, (100_000, hard))
        refuses_until(log, tmp_path, {507}, lambda: [resource.prlimit(log.process.pid, resource.RLIMIT_FSIZE, (hard, hard)), None][1])


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True, timeout=WAIT_S)


def test_log_write_error_on_a_full_disk_is_never_200(tmp_path: Path) -> None:
    """defect: log_write_error"""
    disk = tmp_path / "disk"
    with small_disk(disk), program("log", "--store", f"files:{disk}", "--log-compress", "no") as log:
        assert post(log, "before") == 200
        (disk / "filler").write_bytes(b"x" * 150_000)
        refuses_until(log, disk, {507}, (disk / "filler").unlink)


def test_log_write_error_with_a_directory_in_the_files_place_is_never_200(tmp_path: Path) -> None:
    """defect: log_write_error"""
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert post(log, "before") == 200
        next_one = tmp_path / f"{len(content(tmp_path / FIRST)):020d}.log"
        next_one.mkdir()
        with (tmp_path / FIRST).open("ab") as file:
            file.write(b'{"Check":"another\'s"}\n')  # a file that is not ours alone is not written again
        time.sleep(0.3)
        refuses_until(log, tmp_path, {503}, next_one.rmdir)


def test_log_write_error_at_start_ends_the_program_with_the_reason(tmp_path: Path) -> None:
    """defect: log_write_error"""
    (tmp_path / FIRST).mkdir()
    log = Program(("log", "--listen", "127.0.0.1:0", "--store", f"files:{tmp_path}"), {})
    assert log.process.wait(START_S) == 1
    failed = eventually(lambda: log.events("start_failed"))
    assert "Is a directory" in failed[0]["message"]
    assert "check the folder's owner and free space" in failed[0]["message"]
    log.stop()
