"""`pillion COMMAND`: which part runs, `version`, and `healthcheck`."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pillion_common import __version__, command, healthcheck


def test_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch(["--help"]) == 0
    out = capsys.readouterr().out
    for name in (
        "registry",
        "log",
        "sidecar",
        "run",
        "services",
        "why",
        "events",
        "drain",
        "hide",
        "forget",
        "attach",
        "detach",
        "healthcheck",
        "token",
        "version",
    ):
        assert f"\n  {name} " in out


def test_without_a_command_usage_is_shown_with_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch([]) == 2
    assert "usage: pillion COMMAND" in capsys.readouterr().out


def test_an_unknown_command_exits_with_2_and_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch(["registri"]) == 2
    err = capsys.readouterr().err
    assert "there is no command 'registri'" in err
    assert "registry" in err


def test_a_command_that_this_image_lacks_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(command.COMMANDS, "elsewhere", ("pillion_elsewhere.__main__", "is not here"))
    assert command.dispatch(["elsewhere"]) == 2
    assert "elsewhere is not part of this image; it lacks the package pillion_elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch([word]) == 0
    assert capsys.readouterr().out == f"pillion {__version__}\n"


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pillion_common", "version"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, f"pillion {__version__}\n")


def test_a_configuration_fault_ends_the_registry_with_2_and_every_fault() -> None:
    words = ["registry", "--listen", "nowhere", "--store", "mysql:x", "--heartbeat-misses", "0", "--token-file", "/none/token"]
    done = subprocess.run([sys.executable, "-m", "pillion_common", *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "--listen: 'nowhere' is not HOST:PORT" in done.stderr
    assert "--heartbeat-misses: '0' is not a whole number from 1 to 10" in done.stderr
    assert "see `pillion registry --help`" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def answering(answer: bytes, every_s: float = 0.0) -> Iterator[str]:
    """Accept one connection and send the answer, piece by piece if every_s is given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                try:
                    for piece in [answer[i : i + 1] for i in range(len(answer))] if every_s else [answer]:
                        peer.sendall(piece)
                        time.sleep(every_s)
                except OSError:
                    pass  # the client has given up, as it should

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/readyz"
        thread.join(20)


def test_healthcheck_passes_on_200() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as url:
        assert healthcheck.main([url]) == 0


def test_healthcheck_fails_on_503_with_what_the_program_says(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"Status":"not ready"}') as url:
        assert healthcheck.main([url]) == 1
    assert capsys.readouterr().out == '{"Status":"not ready"}\n'


def test_healthcheck_fails_on_503_without_a_body_and_names_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as url:
        assert healthcheck.main([url]) == 1
    assert "503" in capsys.readouterr().out


def test_healthcheck_fails_on_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(b"") as url:
        assert healthcheck.main([url]) == 1
    assert "answered nothing" in capsys.readouterr().out


def test_healthcheck_fails_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert healthcheck.main([f"http://127.0.0.1:{port}/readyz"]) == 1
    assert "refused" in capsys.readouterr().out


def test_healthcheck_ends_within_its_time_though_the_answer_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.2)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20, every_s=0.05) as url:
        started = time.monotonic()
        healthcheck.main([url])
        assert time.monotonic() - started < 0.8


def test_healthcheck_reaches_an_ipv6_address() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6 loopback: {exc}")
    with listener:
        listener.settimeout(1)

        def serve() -> None:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # nobody came
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert healthcheck.main([f"http://[::1]:{listener.getsockname()[1]}/"]) == 0
        thread.join(5)


@pytest.mark.parametrize("words", [[], ["ftp://a"], ["http://a", "http://b"]])
def test_healthcheck_with_wrong_words_exits_with_2(words: list[str]) -> None:
    assert healthcheck.main(words) == 2
