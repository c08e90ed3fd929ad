"""`pillion logs` as a person uses it."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program

from pillion_common.log_client import shown

WAIT_S = 15
WORDS = [sys.executable, "-m", "pillion_common", "logs"]
BARE = {name: value for name, value in os.environ.items() if not name.startswith("PILLION_")} | {"PILLION_URL": "127.0.0.1:1"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program("log", "--store", f"files:{tmp_path_factory.mktemp('log')}") as running:
        for number in range(5):
            add(running, "Grading", f"g{number}", Level="error" if number == 3 else "info", Instance=f"i-{number % 2}")
        add(running, "Portal", "p0")
        yield running


def add(log: Program, service: str, message: str, **fields: object) -> None:
    line = json.dumps({"Service": service, "Message": message, "Time": "2026-01-31T12:00:00.123Z", **fields})
    assert requests.post(log.url + "/logs", data=line, timeout=WAIT_S).json()["Accepted"] == 1


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WORDS, *words], capture_output=True, text=True, timeout=WAIT_S, check=False, env=BARE | env)


def last_words(said: subprocess.CompletedProcess[str]) -> list[str]:
    assert (said.returncode, said.stderr) == (0, "")
    return [line.split()[-1] for line in said.stdout.splitlines()]


def test_lines_of_services_are_shown_oldest_first(log: Program) -> None:
    said = run("Grading", "--log", log.url, "-n", "2")
    assert said.stdout == "2026-01-31T12:00:00.123Z Grading error g3\n2026-01-31T12:00:00.123Z Grading info  g4\n"
    assert last_words(run("Grading", "Portal", PILLION_LOG=log.url)) == ["g0", "g1", "g2", "g3", "g4", "p0"]
    assert last_words(run("--since", "2026-01-31T12:00:00Z", "--log", log.url)) == ["g0", "g1", "g2", "g3", "g4", "p0"]
    assert last_words(run("-n", "0", "--log", log.url)) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--level", "error"], ["g3"]),
        (["--grep", "p"], ["p0"]),
        (["--grep", "G1", "-i"], ["g1"]),
        (["--re", "[gp]0$"], ["g0", "p0"]),
        (["--instance", "i-1"], ["g1", "g3"]),
        (["--until", "2026-01-31T11:00:00Z"], []),
    ],
)
def test_lines_are_filtered(log: Program, words: list[str], expected: list[str]) -> None:
    assert last_words(run(*words, "--log", log.url)) == expected


def test_json_is_the_stored_line(log: Program) -> None:
    said = run("Portal", "--json", "--log", log.url)
    assert json.loads(said.stdout)["Message"] == "p0"


def test_what_is_wrong_is_said_with_what_to_do(log: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gone = run("--log", f"http://127.0.0.1:{port}")
    assert gone.returncode == 1
    assert gone.stderr.endswith("is it running, or is its --log another?\n")
    bad = run("--re", "(", "--log", log.url)
    assert bad.returncode == 2
    assert "re is not a regular expression of RE2" in bad.stderr
    assert run("-f", "--until", "5m", "--log", log.url).returncode == 2
    assert run("-n", "10001", "--log", log.url).returncode == 2


def test_follow_goes_on_over_a_restart_of_the_log_service_without_a_hole_or_a_double(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ("--listen", address, "--store", f"files:{tmp_path}")
    output = tmp_path / "shown"
    with output.open("w") as file:
        following: subprocess.Popen[str] | None = None
        try:
            with program("log", *words) as log:
                add(log, "A", "one")
                following = subprocess.Popen(
                    [*WORDS, "A", "-f", "--log", log.url], stdout=file, stderr=subprocess.PIPE, text=True, env=BARE
                )
                eventually(lambda: output.read_text().count("\n") == 1)
                add(log, "A", "two")
                eventually(lambda: output.read_text().count("\n") == 2)
            with program("log", *words) as log:
                add(log, "A", "three")
                add(log, "B", "none")
                eventually(lambda: output.read_text().count("\n") == 3)
                add(log, "A", "four")
                eventually(lambda: output.read_text().count("\n") == 4)
        finally:
            if following:
                following.terminate()
                _, told = following.communicate(timeout=WAIT_S)
    assert [line.split()[-1] for line in output.read_text().splitlines()] == ["one", "two", "three", "four"]
    assert told.splitlines()[:2] == ["pillion logs: the log service has gone; trying again", "pillion logs: it is there again"]


def test_terminal_is_shown_colours_and_never_what_a_message_would_do_to_it(log: Program) -> None:
    add(log, "Hostile", "\x1b[2Jgone\r\n\u202efed\x00", Level="error")
    master, slave = pty.openpty()
    subprocess.run([*WORDS, "Hostile", "--log", log.url], stdout=slave, timeout=WAIT_S, check=True, env=BARE)
    os.close(slave)
    said = os.read(master, 4096).decode()
    os.close(master)
    assert said == ("\x1b[2m2026-01-31T12:00:00.123Z\x1b[0m Hostile \x1b[31merror \\x1b[2Jgone\\r\\n\\u202efed\\x00\x1b[0m\r\n")
    assert "\x1b" not in run("Hostile", "--log", log.url).stdout


def test_characters_that_are_not_seen_are_shown_as_escapes() -> None:
    assert shown("gr\u00fc\u00df \u65e5\u672c\u3000x") == "gr\u00fc\u00df \u65e5\u672c\u3000x"
    assert shown("\ufeff\u2028\U000e0041\u200b\x9b") == r"\ufeff\u2028\U000e0041\u200b\x9b"


def test_reader_of_the_output_may_leave(log: Program) -> None:
    command = f"{sys.executable} -m pillion_common logs --log {log.url} | head -n 1"
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=WAIT_S, check=True, env=BARE)
    assert (said.stdout.count("\n"), said.stderr) == (1, "")
