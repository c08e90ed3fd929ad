"""Syslog as the log service takes it in: the real program, its senders' own libraries, and who may send."""

from __future__ import annotations

import json
import logging
import logging.handlers
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from programs import Program, eventually, program

WAIT_S = 10
TOKEN = "a-token-of-the-tests-0123456789"
SYSLOG = {"PILLION_LOG_SYSLOG": "127.0.0.1:0"}


def where(log: Program) -> tuple[str, int]:
    host, _, port = log.addresses[1].removeprefix("syslog://").rpartition(":")
    return host, int(port)


def ends(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionError:
        return True


def entries(log: Program, query: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in requests.get(f"{log.url}/logs?{query}", timeout=WAIT_S).text.splitlines()]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_what_pythons_own_handler_sends_is_found_by_its_service(tmp_path: Path, kind: socket.SocketKind) -> None:
    with program("log", "--store", f"files:{tmp_path}", env=SYSLOG) as log:
        handler = logging.handlers.SysLogHandler(where(log), socktype=kind)
        handler.ident = "shop[7]: "
        logger = logging.Logger("shop")
        logger.addHandler(handler)
        logger.warning("paid \u2713")
        logger.error("it fails")
        handler.close()
        found = eventually(lambda: len(entries(log, "service=shop")) == 2 and entries(log, "service=shop"))
    assert [(one["Level"], one["Message"], one["Instance"]) for one in found] == [
        ("warning", "paid \u2713", "127.0.0.1"), ("error", "it fails", "127.0.0.1")
    ]  # fmt: skip


def counted(log: Program, name: str) -> dict[str, int]:
    """Return a number of syslog's by transport."""
    rows = requests.get(log.url + "/metrics", timeout=WAIT_S).text.splitlines()
    found = [
        row.removeprefix(f'pillion_log_syslog_{name}_total{{transport="') for row in rows if row.startswith(f"pillion_log_syslog_{name}_")
    ]
    return {row[:3]: int(row.rpartition(" ")[2]) for row in found}


def test_what_comes_is_counted_by_transport() -> None:
    with program("log", "--store", "memory:", env=SYSLOG) as log:
        assert counted(log, "received") == {"tcp": 0, "udp": 0}
        with socket.create_connection(where(log), WAIT_S) as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            stream.sendall(b"<14>1 - - a - - - one\n<14>1 - - a - - - two\nno header at all\n")
            datagrams.sendto(b"<14>1 - - a - - - three", where(log))
            eventually(lambda: counted(log, "received") == {"tcp": 3, "udp": 1}, WAIT_S, lambda: f"{counted(log, 'received')}")
        assert counted(log, "malformed") == {"tcp": 1, "udp": 0}
        assert counted(log, "dropped") == {"udp": 0}
        assert counted(log, "refused") == {"tcp": 0, "udp": 0}


def test_who_may_not_send_is_counted(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with program("log", "--store", "memory:", "--token-file", str(token), env=SYSLOG) as log:
        with socket.create_connection(where(log), WAIT_S) as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            assert ends(stream)
            datagrams.sendto(b"<14>1 - - a - - - three", where(log))
            eventually(lambda: counted(log, "refused") == {"tcp": 1, "udp": 1}, WAIT_S, lambda: f"{counted(log, 'refused')}")
        assert counted(log, "received") == {"tcp": 0, "udp": 0}


def test_syslog_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    with program("log", "--store", f"files:{tmp_path}") as log:
        assert len(log.addresses) == 1


def test_with_a_token_set_only_the_classic_networks_may_send_and_their_lines_are_flagged(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    words = ("log", "--store", "memory:", "--token-file", str(token))
    with program(*words, env={**SYSLOG, "PILLION_CLASSIC_NETWORKS": "127.0.0.0/8"}) as log:
        with socket.create_connection(where(log), WAIT_S) as sender:
            sender.sendall(b"<14>1 - - a - - - m\n")
        assert eventually(lambda: entries(log))[0]["Unverified"] is True
    with program(*words, env=SYSLOG) as log:
        assert len(log.events("syslog_closed")) == 1
        with socket.create_connection(where(log), WAIT_S) as sender:
            assert ends(sender)
        assert eventually(lambda: log.events("syslog_refused"))
        assert entries(log) == []


def test_address_that_is_taken_is_said_at_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = [sys.executable, "-m", "pillion_common", "log", "--store", "memory:", "--listen", "127.0.0.1:0", "--log-syslog", address]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert f"cannot listen on {address} for syslog: address already in use" in ended.stderr
