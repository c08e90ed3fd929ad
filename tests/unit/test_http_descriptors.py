"""Descriptors run out: each real program, given 64 of them and 200 clients, stays up, says so now and then, and recovers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from programs import Program, eventually, program
from raw_http import RawPeer

from pillion_common.http.listener import REST_S, Listener

CLIENTS = 200
LOOK_S = 1.5
COMMANDS = {
    "log": ("log", "--store", "memory:"),
    "registry": ("registry", "--store", "memory:"),
    "sidecar": ("sidecar", "--name", "A", "--registry", "http://127.0.0.1:9", "--local", "127.0.0.1:0"),
}


@pytest.fixture
def app() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(params=COMMANDS)
def poor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: int) -> Iterator[Program]:
    """A program with 64 descriptors."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/bash\nulimit -n 64\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    more = ("--port", str(app), "--state-dir", str(tmp_path / "state")) if request.param == "sidecar" else ()
    with program(*COMMANDS[request.param], *more) as running:
        yield running
    assert running.process.returncode == 0


def port_of(running: Program) -> int:
    return int(running.addresses[-1].rpartition(":")[2])


def alive(peer: RawPeer, running: Program) -> int:
    peer.send(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port_of(running))
    return peer.answer().status


def used_cpu_s(running: Program) -> float:
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served_anew(running: Program) -> bool:
    try:
        with RawPeer(port_of(running)) as peer:
            return alive(peer, running) == 200
    except (OSError, EOFError):
        return False


def crowd(running: Program, clients: ExitStack) -> None:
    for _ in range(CLIENTS):
        clients.enter_context(closing(socket.create_connection(("127.0.0.1", port_of(running)), 2.0)))


def test_it_serves_on_does_not_spin_says_so_seldom_and_recovers(poor: Program) -> None:
    with RawPeer(port_of(poor)) as old, ExitStack() as clients:
        assert alive(old, poor) == 200
        before = len(poor.lines)
        crowd(poor, clients)
        started, spent = time.monotonic(), used_cpu_s(poor)
        time.sleep(LOOK_S)
        assert used_cpu_s(poor) - spent < LOOK_S / 3
        assert alive(old, poor) == 200
        said = poor.events("accept_failed")
        assert 1 <= len(said) <= 2 + time.monotonic() - started
        assert len(poor.lines) - before < 30
        clients.close()
        eventually(lambda: served_anew(poor), 5.0)
        assert alive(old, poor) == 200


def test_nothing_of_it_ends_meanwhile(poor: Program) -> None:
    with ExitStack() as clients:
        crowd(poor, clients)
        time.sleep(LOOK_S)
    eventually(lambda: served_anew(poor), 5.0)
    assert [line for line in poor.lines if '"level": "error"' in line] == []


@pytest.mark.parametrize("poor", ["sidecar"], indirect=True)
def test_an_app_that_could_not_be_checked_for_want_of_descriptors_is_not_down(poor: Program) -> None:
    with RawPeer(port_of(poor)) as old, ExitStack() as clients:
        crowd(poor, clients)
        for _ in range(15):
            old.send(b"GET /status HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port_of(poor))
            assert old.answer().json()["App"]["State"] == "up"
            time.sleep(0.2)


async def test_an_accept_that_fails_for_want_of_descriptors_is_not_tried_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    class Exhausted:
        tried = 0

        def fileno(self) -> int:
            return -1

        def accept(self) -> None:
            self.tried += 1
            raise OSError(errno.EMFILE, "Too many open files")

    listener = Listener(socket.AF_INET, ("127.0.0.1", 0), asyncio.Protocol)
    real, listener._socket = listener._socket, Exhausted()  # type: ignore[assignment]
    removed: list[object] = []
    listener._loop = SimpleNamespace(remove_reader=removed.append, call_later=lambda delay_s, call: delay_s)  # type: ignore[assignment]
    listener._accept()
    assert listener._socket.tried == 1  # type: ignore[attr-defined]
    assert removed == [listener._socket], "no event calls it again"
    assert listener._rest == REST_S  # type: ignore[comparison-overlap]
    assert "cannot take new connections in: Too many open files" in caplog.text
    real.close()
