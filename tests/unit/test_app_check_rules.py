"""What the findings of looks come to: rise and fall, grace, warnings, and the commands and statuses that are looked by."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watched_app import free_port, settings, watched

from pillion_common import config
from pillion_common.config import Address
from pillion_common.errors import ConfigError, OwnLimit
from pillion_common.http.message import Request, Response
from pillion_common.http.server import Server
from pillion_common.names import Url, parse_url
from pillion_sidecar.check import exec_look as exec_module
from pillion_sidecar.check.app_check import AppCheck
from pillion_sidecar.check.exec_look import ExecLook
from pillion_sidecar.check.looks import CRITICAL, PASS, WARN, Finding, HttpLook, TcpLook
from pillion_sidecar.settings import Settings


class Script:
    """A look that finds what it is told to, one after the other; then the last again and again."""

    def __init__(self, *findings: Finding | Exception) -> None:
        self.findings = list(findings)
        self.looks = 0

    async def look(self) -> Finding:
        self.looks += 1
        found = self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]
        if isinstance(found, Exception):
            raise found
        return found

    def let_go(self) -> None:
        pass

    def close(self) -> None:
        pass


WELL, BAD, GONE, AMISS = Finding(PASS), Finding(CRITICAL, "slow"), Finding(CRITICAL, "refused", final=True), Finding(WARN, "disk at 91 %")


def noted(*findings: Finding, **more: str) -> tuple[list[tuple[bool, str]], AppCheck]:
    told: list[tuple[bool, str]] = []
    check = AppCheck(settings("tcp", 1, **more), lambda well, reason: told.append((well, reason)))
    for finding in findings:
        check._note(finding)
    return told, check


def test_by_default_one_look_decides() -> None:
    assert noted(WELL, BAD, WELL)[0] == [(True, ""), (False, "slow"), (True, "")]


def test_rise_is_how_many_must_pass_in_a_row() -> None:
    assert noted(WELL, WELL, BAD, WELL, WELL, check_rise="3")[0] == []
    told, check = noted(WELL, WELL, WELL, check_rise="3")
    assert (told, check.well) == ([(True, "")], True)


def test_fall_is_how_many_must_fail_in_a_row() -> None:
    told, check = noted(WELL, BAD, BAD, WELL, BAD, BAD, check_fall="3")
    assert (told, check.well, check.reason) == ([(True, "")], True, "")
    assert noted(WELL, BAD, BAD, BAD, check_fall="3")[0] == [(True, ""), (False, "slow")]


def test_nobody_there_is_enough_whatever_fall_says() -> None:
    assert noted(WELL, GONE, check_fall="3")[0] == [(True, ""), (False, "refused")]


def test_a_warning_stays_up_and_says_why() -> None:
    told, check = noted(WELL, AMISS)
    assert told == [(True, "")]
    assert (check.heartbeat[0], json.loads(check.heartbeat[1])) == (200, {"State": "up", "Reason": "disk at 91 %"})
    check._note(WELL)
    assert json.loads(check.heartbeat[1]) == {"State": "up"}
    assert noted(AMISS)[0] == [(True, "disk at 91 %")]


def test_the_heartbeat_is_made_once_for_each_state() -> None:
    _, check = noted(WELL)
    before = check.heartbeat
    check._note(WELL)
    assert check.heartbeat is before
    check._note(BAD)
    assert (check.heartbeat[0], json.loads(check.heartbeat[1])) == (503, {"State": "down", "Reason": "slow"})


def test_what_is_shown() -> None:
    _, check = noted(BAD)
    shown = check.shown()
    assert str(shown.pop("Since")).endswith("Z")
    assert shown == {"State": "starting", "Reason": "slow", "Check": "tcp"}


async def scripted(script: Script, until: Callable[[AppCheck], bool], **more: str) -> tuple[AppCheck, list[tuple[bool, str]]]:
    told: list[tuple[bool, str]] = []
    check = AppCheck(settings("tcp", 1, 0.02, **more), lambda well, reason: told.append((well, reason)), script)
    task = asyncio.create_task(check.run())
    try:
        async with asyncio.timeout(3):
            while not until(check):
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return check, told


async def test_within_its_grace_an_app_is_starting_and_then_late(caplog: pytest.LogCaptureFixture) -> None:
    check, told = await scripted(Script(BAD), lambda check: check.state == "starting" and check.reason == "slow", check_grace="300ms")
    assert json.loads(check.heartbeat[1]) == {"State": "starting", "Reason": "slow"}
    assert "app_late" not in [getattr(record, "event", "") for record in caplog.records]
    check, told = await scripted(Script(BAD), lambda check: check.state == "down", check_grace="100ms")
    assert "A is not up 0.1 s after the sidecar's start: slow" in caplog.text
    assert told == [], "nobody was told that it is up"


async def test_after_it_was_up_there_is_no_grace() -> None:
    _, told = await scripted(Script(BAD, WELL, BAD), lambda check: check.state == "down", check_grace="30s")
    assert told == [(True, ""), (False, "slow")]


async def test_own_limits_say_nothing_about_the_app(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(WELL, OwnLimit("no descriptor left"))
    check, told = await scripted(script, lambda check: script.looks > 3)
    assert (check.well, told) == (True, [(True, "")])
    assert "no descriptor left" in caplog.text


@pytest.mark.parametrize(("check", "down_s"), [("tcp", 0.25), ("http:/", 0.25), ("exec:true", 30.0)])
def test_what_is_cheap_to_look_at_is_looked_at_more_often_while_it_is_down(check: str, down_s: float) -> None:
    made = AppCheck(settings(check, 1, 30.0, check_fall="2"), lambda well, reason: None)
    assert made._interval_s() == down_s
    made._note(WELL)
    made._note(BAD)
    assert made._interval_s() == 30.0, "fall counts intervals"


async def test_a_look_that_fails_is_no_word_about_the_app(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(WELL, RuntimeError("a fault of ours"))
    check, told = await scripted(script, lambda check: script.looks > 3)
    assert (check.well, told) == (True, [(True, "")])
    assert "a fault of ours" in caplog.text


# By HTTP.


@pytest.mark.parametrize(
    ("statuses", "status", "well"),
    [("200-399", 204, True), ("200-399", 401, False), ("401", 401, True), ("401", 200, False), ("200-299,401", 401, True)],
)
async def test_the_statuses_that_are_well_are_an_option(statuses: str, status: int, well: bool) -> None:
    server = Server(lambda request: Response(status))
    port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port
    async with watched("http:/ok", port, check_status=statuses) as seen:
        await seen.looked()
        assert seen.check.well is well
        assert seen.check.reason == ("" if well else f"/ok answered {status}")
        seen.check.let_go()
        await asyncio.sleep(0.15)
        assert seen.check.well is well
    await server.close(0.1)


async def test_letting_go_of_a_look_under_way_says_nothing_about_the_app() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return Response(200)

    server = Server(answer)
    port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port
    look = HttpLook(Url("http", "127.0.0.1", port, "/"), ((200, 399),), 5.0, lambda: None)
    looking = asyncio.create_task(look.look())
    await asked.wait()
    look.let_go()
    go_on.set()
    assert await looking == Finding(PASS)
    look.close()
    await server.close(0.1)


async def test_only_a_refusal_is_beyond_doubt() -> None:
    port = free_port()
    refused = [
        await TcpLook("127.0.0.1", port, 1.0, lambda: None).look(),
        await HttpLook(Url("http", "127.0.0.1", port, "/"), ((200, 399),), 1.0, lambda: None).look(),
    ]
    assert [(found.state, found.final) for found in refused] == [(CRITICAL, True)] * 2
    server = Server(lambda request: Response(503))
    port = parse_url(await server.listen(Address("127.0.0.1", 0)), "url").port
    look = HttpLook(Url("http", "127.0.0.1", port, "/"), ((200, 399),), 1.0, lambda: None)
    assert await look.look() == Finding(CRITICAL, "/ answered 503", final=False)
    look.close()
    await server.close(0.1)


# By a command.


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 0", Finding(PASS)),
        ("echo fine; exit 0", Finding(PASS)),
        ("echo first; echo ' disk at 91 % '; echo; exit 1", Finding(WARN, "disk at 91 %")),
        ("exit 1", Finding(WARN, "the check's command ended with exit code 1")),
        ("echo gone >&2; exit 2", Finding(CRITICAL, "exit code 2: gone")),
        ("exit 7", Finding(CRITICAL, "the check's command ended with exit code 7")),
        ("kill -9 $$", Finding(CRITICAL, "the check's command ended with exit code -9")),
    ],
)
async def test_exit_codes(script: str, found: Finding) -> None:
    assert await ExecLook(("sh", "-c", script), 5.0).look() == found


async def test_a_command_that_is_not_there() -> None:
    found = await ExecLook(("/nowhere/check",), 1.0).look()
    assert (found.state, found.reason) == (CRITICAL, "the check's command /nowhere/check cannot be started: No such file or directory")


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    found = await ExecLook(("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"), 0.3).look()
    assert found == Finding(CRITICAL, "the check's command did not end within 0.3 s")
    pid = int(pid_file.read_text())
    async with asyncio.timeout(3):
        while _runs(pid):
            await asyncio.sleep(0.01)


async def test_what_a_command_leaves_behind_is_killed_as_well(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert (await ExecLook(("sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {pid_file}"), 2.0).look()).state == PASS
    async with asyncio.timeout(3):
        while _runs(int(pid_file.read_text())):
            await asyncio.sleep(0.01)


async def test_what_a_command_leaves_in_a_session_of_its_own_holds_nothing_up(tmp_path: Path) -> None:
    pid_file, ready = tmp_path / "pids", tmp_path / "ready"
    child = f"setsid sh -c 'echo $$ >> {pid_file}; touch {ready}; exec sleep 60'"
    script = f"rm -f {ready}; {child} & while [ ! -e {ready} ]; do sleep 0.01; done; echo fine; exit 1"
    leaving = ExecLook(("sh", "-c", script), 5.0)
    await leaving.look()
    before = len(os.listdir("/proc/self/fd"))
    try:
        started = time.monotonic()
        for _ in range(5):
            assert await leaving.look() == Finding(WARN, "fine")
        assert time.monotonic() - started < 4.0, "the command ended at once"
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        for pid in pid_file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("script", ["sleep 60 & exit 0", "sleep 60 & echo amiss; exit 0"])
async def test_the_commands_own_end_counts_and_not_its_childrens(script: str) -> None:
    assert await ExecLook(("sh", "-c", script), 5.0).look() == Finding(PASS)


async def test_of_endless_output_only_a_bounded_end_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(exec_module, "_last_line", lambda output: held.append(len(output)) or "")
    await ExecLook(("sh", "-c", "head -c 1000000 /dev/zero; exit 2"), 5.0).look()
    assert held == [exec_module.MAX_OUTPUT_BYTES]


async def test_the_time_of_a_command_is_the_options(tmp_path: Path) -> None:
    async with watched("exec:sleep 60", 1, timeout_s=0.1) as seen:
        async with asyncio.timeout(3):
            while seen.check.reason != "the check's command did not end within 0.1 s":
                await asyncio.sleep(0.01)


async def test_only_the_end_of_long_output_is_kept() -> None:
    found = await ExecLook(
        ("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; printf 'a\\033b%.0s' $(seq 200); exit 1"), 5.0
    ).look()
    assert found.state == WARN
    assert len(found.reason) == exec_module.MAX_REASON_CHARS
    assert found.reason.startswith("a ba b")


async def test_no_process_left_is_an_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*words: object, **more: object) -> None:
        raise OSError(11, os.strerror(11))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    with pytest.raises(OwnLimit):
        await ExecLook(("true",), 1.0).look()


async def test_a_sidecar_looks_by_a_command(tmp_path: Path) -> None:
    flag = tmp_path / "well"
    async with watched(f"exec:test -e {flag}", 1, timeout_s=10.0) as seen:
        await seen.looked()
        # Exit code 1 of `test` is a warning, by the convention of checks.
        assert (seen.check.well, seen.check.reason) == (True, "the check's command ended with exit code 1")
        flag.touch()
        async with asyncio.timeout(10):
            while seen.check.reason:
                await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Faults of the options.


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("check", "exec:", "is not a check"),
        ("check", "exec:a\0b", "is not a check"),
        ("check", "exec:a 'b", "is not a command: no closing quotation"),
        ("check-status", "", "names no status"),
        ("check-status", "200-", ""),
        ("check-status", "20", "has '20'; write statuses like 200 or 200-299"),
        ("check-status", "300-200", "has '300-200'"),
        ("check-rise", "0", "is not a whole number from 1 to 100"),
        ("check-fall", "x", "is not a whole number"),
        ("check-grace", "soon", "is not a duration"),
    ],
)
def test_what_cannot_be_is_a_fault(option: str, value: str, told: str) -> None:
    words = ["--name", "A", "--port", "1", f"--{option}", value]
    if not told:
        assert config.load(Settings, "sidecar", words, {}).check_status == ((200, 200),)
        return
    with pytest.raises(ConfigError) as raised:
        config.load(Settings, "sidecar", words, {})
    assert told in raised.value.message


def test_a_check_is_shown_as_it_was_written_but_for_a_commands_arguments() -> None:
    for text in ("tcp", "none", "http:/a?b=c"):
        assert str(settings(text, 1).check) == text
    assert str(settings("exec:curl -H 'Authorization: Bearer x'", 1).check) == "exec:curl"
