"""Where log lines come from and where they go, with the real programs: files, syslog, the output of a command; kills, a full spool, two
log services."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from programs import Program, eventually, program
from sidecar_bench import ASK_S, Sidecar, free_port, sidecar
from stub_log import StubLog, stub_log
from stub_registry import StubRegistry, stub_registry

ALONE = ("--check", "none")


def provide(registry: StubRegistry, *logs: StubLog) -> None:
    for log in logs:
        registry.register({"ServiceName": "LogService", "ServiceURL": log.url})


@contextmanager
def beside(folder: Path, registry: str, *words: str) -> Iterator[Sidecar]:
    with sidecar("A", free_port(), registry, folder / "state", *ALONE, *words) as running:
        yield running


def post(url: str, message: str) -> bool:
    try:
        return requests.post(f"{url}/log", message.encode(), timeout=ASK_S).status_code == 200
    except requests.RequestException:
        return False


def account(entries: list[dict[str, Any]]) -> tuple[list[int], set[int]]:
    """Return the Seqs of what is there, and of what gap entries say is missing."""
    there = [entry["Seq"] for entry in entries if "Gap" not in entry]
    missing = {seq for entry in entries if "Gap" in entry for seq in range(entry["Seq"] - entry["Gap"] + 1, entry["Seq"] + 1)}
    return there, missing


def test_a_full_spool_gives_an_exact_account_though_the_sidecar_is_killed_twice(tmp_path: Path) -> None:
    sent: list[str] = []
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        for part in range(3):
            with beside(tmp_path, registry.url, "--spool-size", "64K") as running, requests.Session() as session:
                for number in range(400):
                    message = f"line {part * 400 + number}"
                    assert session.post(f"{running.url}/log", message.encode(), timeout=ASK_S).status_code == 200
                    sent.append(message)
                running.program.kill()
        provide(registry, log)
        with beside(tmp_path, registry.url, "--spool-size", "64K") as running:
            eventually(lambda: log.entries and running.waiting() == 0)
    there, missing = account(log.entries)
    assert missing
    assert sorted([*there, *missing]) == list(range(1, 1201)), "each is there or said to be missing, none is both"
    assert [entry["Message"] for entry in log.entries if "Gap" not in entry] == [sent[seq - 1] for seq in there]


def test_lines_under_load_survive_kills_of_the_sidecar(tmp_path: Path) -> None:
    taken: list[str] = []
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        for part in range(4):
            with beside(tmp_path, registry.url) as running:
                url, done = running.url, threading.Event()

                def send(who: str, url: str = url, done: threading.Event = done) -> None:
                    for number in range(100_000):
                        if done.is_set() or not post(url, f"{who}-{number}"):
                            return
                        taken.append(f"{who}-{number}")

                senders = [threading.Thread(target=send, args=(f"{part}-{who}",)) for who in range(3)]
                for sender in senders:
                    sender.start()
                before = len(taken)
                eventually(lambda before=before: len(taken) > before + 150)
                running.program.kill()
                done.set()
                for sender in senders:
                    sender.join()
        with beside(tmp_path, registry.url) as running:
            eventually(lambda: running.get("/status").json()["Spool"]["Waiting"] == 0 and set(taken) <= set(log.messages()))
    there, missing = account(log.entries)
    assert not missing
    assert sorted(there) == list(range(1, len(there) + 1)), "nothing twice, nothing left out"
    assert len({entry["Source"] for entry in log.entries}) == 1


def test_a_log_service_that_dies_is_left_for_another(tmp_path: Path) -> None:
    messages = [f"line {number}" for number in range(300)]
    with stub_registry(heartbeats=False) as registry, stub_log() as one, stub_log() as two:
        provide(registry, one, two)
        with beside(tmp_path, registry.url) as running:
            eventually(lambda: len(running.found("LogService")) == 2)
            for message in messages[:100]:
                assert post(running.url, message)
            eventually(lambda: running.waiting() == 0)
            first, other = (one, two) if one.entries else (two, one)
            assert not other.entries, "it stays with one"
            first.kill()
            for message in messages[100:]:
                assert post(running.url, message)
            eventually(lambda: running.waiting() == 0, 3.0)
            assert running.program.events("forward_failover")
    assert first.messages() + other.messages() == messages


def test_the_real_log_services_take_over_from_each_other(tmp_path: Path) -> None:
    with program("registry", "--store", "memory:") as registry:
        logs = [Program(("log", "--listen", "127.0.0.1:0", "--store", f"files:{tmp_path / name}"), {}) for name in ("one", "two")]
        try:
            ports = [int(log.url.rsplit(":", 1)[1]) for log in logs]
            with (
                sidecar("LogService", ports[0], registry.url, tmp_path / "l1", "--check", "none"),
                sidecar("LogService", ports[1], registry.url, tmp_path / "l2", "--check", "none"),
                beside(tmp_path, registry.url) as running,
            ):
                eventually(lambda: len(running.found("LogService")) == 2)
                assert all(post(running.url, f"line {number}") for number in range(50))
                eventually(lambda: running.waiting() == 0)
                first = 0 if lines_of(logs[0], "A") else 1
                logs[first].kill()
                assert all(post(running.url, f"line {number}") for number in range(50, 100))
                eventually(lambda: running.waiting() == 0)
                assert [line for line in lines_of(logs[1 - first], "A") if line.startswith("line")] == [f"line {n}" for n in range(50, 100)]
        finally:
            for log in logs:
                log.stop()


def lines_of(log: Program, service: str) -> list[str]:
    answer = requests.get(f"{log.url}/logs", params={"service": service}, headers={"Accept": "application/x-ndjson"}, timeout=ASK_S)
    return [json.loads(line)["Message"] for line in answer.text.splitlines()]


# Options of the spool and the forwarder.


@pytest.mark.parametrize(("policy", "least"), [("os", 0), ("interval", 1), ("always", 40)])
def test_when_the_spool_is_synced_is_an_option(tmp_path: Path, policy: str, least: int) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: syncs cannot be counted")
    with beside(tmp_path, "http://127.0.0.1:1", "--log-to", "", "--spool-sync", policy) as running:
        told = tmp_path / "strace"
        with strace(running.program.process.pid, told):
            for number in range(40):
                assert post(running.url, f"line {number}")
            time.sleep(1.5)
        syncs = told.read_text().count("fdatasync(")
    assert syncs >= least
    assert syncs <= (0 if policy == "os" else 4 if policy == "interval" else 45)


@contextmanager
def strace(pid: int, into: Path) -> Iterator[None]:
    import subprocess

    tracer = subprocess.Popen(["strace", "-f", "-e", "trace=fdatasync", "-o", str(into), "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    if "attached" not in tracer.stderr.readline():
        tracer.wait()
        tracer.stderr.close()
        pytest.skip("strace may not attach here: syncs cannot be counted")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()


def test_batches_are_packed_only_if_told_and_only_for_whom_takes_them(tmp_path: Path) -> None:
    seen: dict[str, list[str | None]] = {}
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        for packed in ("no", "yes"):
            log.encodings.clear()
            with beside(tmp_path / packed, registry.url, "--log-gzip", packed) as running:
                assert all(post(running.url, f"{packed} {number} " + "x" * 200) for number in range(200))
                provide(registry, log)
                eventually(lambda: running.found("LogService") and running.waiting() == 0)
            registry.remove(log.url)
            seen[packed] = sorted(log.encodings)
    assert seen == {"no": ["identity"], "yes": ["gzip"]}
    assert sorted(log.messages()) == sorted(f"{packed} {number} " + "x" * 200 for packed in ("no", "yes") for number in range(200))


# Files.


def test_files_are_followed_over_both_rotations_and_a_kill(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    sent: list[str] = []

    def write(name: str, count: int) -> None:
        with (logs / name).open("a") as file:
            for _ in range(count):
                sent.append(f"line {len(sent)}")
                file.write(sent[-1] + "\n")

    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        words = ("--log-files", f"{logs}/*.log")
        with beside(tmp_path, registry.url, *words) as running:
            write("a.log", 100)
            eventually(lambda: len(log.messages()) == 100)
            (logs / "a.log").rename(logs / "a.log.1")
            write("a.log.1", 50)
            write("a.log", 100)
            eventually(lambda: len(log.messages()) == 250)
            write("a.log", 200)
            running.program.kill()
        write("a.log", 100)
        (logs / "a.log").rename(logs / "a.log.2")
        write("a.log", 50)
        with beside(tmp_path, registry.url, *words):
            eventually(lambda: len(log.messages()) == 600)
            (logs / "a.log.3").write_bytes((logs / "a.log").read_bytes())
            os.truncate(logs / "a.log", 0)
            write("a.log", 100)
            eventually(lambda: len(log.messages()) == 700)
        time.sleep(0.3)
    assert sorted(log.messages()) == sorted(sent)
    assert {entry["Service"] for entry in log.entries} == {"A"}


THROWS = {
    "python": "import sys\ndef f(): raise ValueError('no')\nf()",
    "java": "java.lang.IllegalStateException: no\n\tat shop.Cart.add(Cart.java:17)\nCaused by: java.io.IOException: gone\n\t... 3 more\n",
    "go": "panic: no\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:8 +0x1d\nexit status 2\n",
    "node": "/app/a.js:3\n    throw new Error('no')\n    ^\n\nError: no\n    at f (/app/a.js:3:7) {\n  code: 'X'\n}\n",
}


@pytest.mark.parametrize(("join", "entries"), [("python,java,go,node", 2), ("", None)])
@pytest.mark.parametrize("language", THROWS)
def test_traces_in_a_file_become_one_entry_if_they_are_joined(tmp_path: Path, language: str, join: str, entries: int | None) -> None:
    text = THROWS[language]
    if language == "python":
        import subprocess

        text = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False).stderr
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        with beside(tmp_path, registry.url, "--log-files", f"{tmp_path}/*.log", "--log-join", join):
            (tmp_path / "a.log").write_text(f"{text}next\n")
            eventually(lambda: "next" in log.messages())
    wanted = [text.rstrip("\n"), "next"] if entries else [line for line in text.split("\n") if line.strip()] + ["next"]
    assert log.messages() == wanted


# Syslog.


def test_syslog_is_taken_over_both_protocols(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, stub_log() as log:
        provide(registry, log)
        with beside(tmp_path, registry.url, "--syslog", "127.0.0.1:0") as running:
            host, _, port = (
                next(url for url in running.program.addresses if url.startswith("syslog://")).removeprefix("syslog://").rpartition(":")
            )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.create_connection((host, int(port))) as stream:
                datagrams.sendto(b"<11>1 2026-10-11T22:14:15.003Z web1 shop 8710 ID47 - over UDP", (host, int(port)))
                stream.sendall(b"<14>Oct 11 22:14:15 web1 shop[3]: over TCP\n22 <12>counted: two\nlines")
                eventually(lambda: len(log.entries) == 3)
    found = {entry["Message"]: (entry["Level"], entry.get("App")) for entry in log.entries}
    assert found == {"over UDP": ("error", "shop"), "over TCP": ("info", "shop"), "counted: two\nlines": ("warning", None)}


# The output of a command.

PRINTS = """
import sys, time
for number in range(200):
    print("line", number, file=sys.stderr if number % 2 else sys.stdout, flush=True)
print("without an end", end="", flush=True)
raise ValueError("no")
"""


def run_words(state: Path, registry: str, *words: str) -> tuple[str, ...]:
    options = ("--name", "A", "--port", "6000", "--registry", registry, "--state-dir", str(state), "--check", "none", *words)
    return ("run", *options, "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--", sys.executable, "-c", PRINTS)


@pytest.mark.parametrize("takes", ["yes", "no"])
def test_the_output_of_a_command_is_shown_and_found_in_the_log_service(tmp_path: Path, takes: str) -> None:
    with program("registry", "--store", "memory:") as registry, program("log", "--store", f"files:{tmp_path / 'log'}") as log:
        port = int(log.url.rsplit(":", 1)[1])
        with sidecar("LogService", port, registry.url, tmp_path / "l", "--check", "none"):
            eventually(lambda: "LogService" in requests.get(f"{registry.url}/services", timeout=ASK_S).text)
            running = Program(run_words(tmp_path / "state", registry.url, "--log-output", takes), {})
            assert running.process.wait(20) == 1
            eventually(lambda: len(running.output) == 101)
            assert [line.strip() for line in running.output[:100]] == [f"line {number}" for number in range(0, 200, 2)]
            assert [line.strip() for line in running.lines if line.startswith("line ")] == [f"line {number}" for number in range(1, 200, 2)]
            if takes == "no":
                assert lines_of(log, "A") == []
                return
            with sidecar("A", 6000, registry.url, tmp_path / "state", "--check", "none") as rest:  # what the flush did not send in time
                eventually(lambda: rest.waiting() == 0)
            found = lines_of(log, "A")
    assert sorted(line for line in found if line.startswith("line ")) == sorted(f"line {number}" for number in range(200))
    assert "without an end" in found
    [trace] = [line for line in found if line.startswith("Traceback")]
    assert trace.endswith("ValueError: no")


def test_a_command_is_not_stopped_by_a_spool_whose_disk_is_full(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(20000): print('x' * 100, n)\n"
    words = run_words(tmp_path, "http://127.0.0.1:1", "--log-to", "", "--spool-size", "64K")[:-1]
    began = time.monotonic()
    running = Program((*words, code), {})
    assert running.process.wait(30) == 0
    assert time.monotonic() - began < 20
    eventually(lambda: len(running.output) == 20_000)
