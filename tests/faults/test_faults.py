"""Short versions of the fault suites, and of their teeth: each must notice a program that was sabotaged. The long ones: scripts/faults."""

from __future__ import annotations

from pathlib import Path

import failing
import guarded
import history
import million
import powercut
import pytest
import replicas
import syscalls
from loop_disk import cannot_mount
from report import Report
from tracer import can_trace

CASE = failing.Case("fdatasync", "EIO", 2, False, 503)


@pytest.fixture
def traced() -> None:
    if why := can_trace():
        pytest.skip(why)


@pytest.fixture
def disk(tmp_path: Path) -> None:
    if why := cannot_mount(tmp_path):
        pytest.skip(why)


def kept(report: Report) -> None:
    assert report.good, str(report)


def broken(report: Report, *figures: str) -> None:
    """Assert that a suite noticed, and by these figures."""
    assert not report.good, str(report)
    for figure in figures:
        assert int(report.figures[figure]) > 0, str(report)


def test_each_line_of_many_sidecars_is_kept_once_or_told_of_whatever_fails(tmp_path: Path) -> None:
    report = million.run(million.QUICK, tmp_path)
    kept(report)
    assert (report.figures["acknowledged by sidecars"], report.figures["log service killed"], report.figures["disk filled"]) == (
        20_000,
        3,
        1,
    )
    assert int(report.figures["dropped from full spools"]) > 0, str(report)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("subject", ["log", "registry", "sidecar"])
def test_kill_9_at_any_system_call_loses_nothing_that_was_acknowledged(subject: str, tmp_path: Path) -> None:
    calls = {"log": ("write", "fdatasync", "openat"), "registry": ("pwrite64", "fdatasync"), "sidecar": ("write",)}[subject]
    kept(syscalls.run(syscalls.Plan(subject, points=3, every=16, most=48, steps=24, calls=calls), tmp_path))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("subject", "sabotage", "call", "figure"),
    [
        ("log", "early-ack", "write", "missing"),
        ("log", "no-dedupe", "write", "doubled"),
        ("registry", "registry-early-ack", "pwrite64", "missing"),
    ],
)
def test_kill_9_of_a_sabotaged_program_is_noticed(subject: str, sabotage: str, call: str, figure: str, tmp_path: Path) -> None:
    broken(syscalls.run(syscalls.Plan(subject, points=0, every=5, most=25, steps=24, sabotage=sabotage, calls=(call,)), tmp_path), figure)


@pytest.mark.usefixtures("traced")
def test_a_system_call_that_fails_once_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    kept(syscalls.run(syscalls.Plan("log", points=2, every=12, most=24, steps=24, error="EIO", calls=("fdatasync", "openat")), tmp_path))


@pytest.mark.usefixtures("traced")
def test_nothing_is_acknowledged_that_a_failing_medium_has_not_taken(tmp_path: Path) -> None:
    report = failing.run(tmp_path)
    kept(report)
    assert report.figures["cases"] == len(failing.CASES)


@pytest.mark.usefixtures("traced")
def test_a_log_that_is_deaf_to_a_failed_sync_is_noticed(tmp_path: Path) -> None:
    broken(failing.run(tmp_path, "deaf-to-errors", (CASE,)))


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("subject", ["log", "registry"])
def test_what_was_acknowledged_survives_a_power_cut(subject: str, tmp_path: Path) -> None:
    report = powercut.run(powercut.Plan(subject, runs=2, seconds=1.0), tmp_path)
    kept(report)
    assert int(report.figures["acknowledged"]) > 0


@pytest.mark.usefixtures("disk")
def test_what_a_sidecar_took_to_the_disk_itself_survives_a_power_cut(tmp_path: Path) -> None:
    kept(powercut.run(powercut.Plan("cut off sidecar", runs=2, seconds=1.0, env={"PILLION_SPOOL_SYNC": "always"}), tmp_path))


@pytest.mark.usefixtures("disk")
def test_a_power_cut_loses_what_is_left_to_the_system(tmp_path: Path) -> None:
    broken(powercut.run(powercut.Plan("log", runs=1, seconds=1.0, env={"PILLION_LOG_SYNC": "os"}), tmp_path), "missing")


@pytest.mark.usefixtures("disk")
def test_a_power_cut_of_a_sabotaged_registry_is_noticed(tmp_path: Path) -> None:
    broken(powercut.run(powercut.Plan("registry", runs=1, seconds=1.0, sabotage="registry-no-sync"), tmp_path), "missing")


def test_nobody_is_withdrawn_when_most_of_a_service_hang_for_a_moment(tmp_path: Path) -> None:
    report = guarded.run(guarded.QUICK[0], tmp_path)
    kept(report)
    assert int(report.figures["guards"]) > 0, str(report)


def test_who_refuses_is_withdrawn_at_once_however_many_they_are(tmp_path: Path) -> None:
    report = guarded.run(guarded.QUICK[1], tmp_path)
    kept(report)
    assert int(report.figures["dead"]) > 10, str(report)


def test_without_the_guard_those_who_hang_for_a_moment_are_withdrawn(tmp_path: Path) -> None:
    broken(guarded.run(guarded.QUICK_TEETH, tmp_path), "wrong withdrawals")


def test_log_services_that_share_a_log_lose_nothing_with_the_server_that_leads(tmp_path: Path) -> None:
    report = replicas.run(replicas.QUICK, tmp_path)
    kept(report)
    assert (report.figures["acknowledged by the log services"], report.figures["kept in the log"]) == (10_000, 10_000)


def test_a_log_service_that_acknowledges_before_nats_does_is_noticed(tmp_path: Path) -> None:
    broken(replicas.run(replicas.EARLY_ACK, tmp_path), replicas.LOST)


def test_what_three_registries_answer_is_one_history(tmp_path: Path) -> None:
    report = history.run(history.QUICK, tmp_path)
    kept(report)
    assert report.figures["replicas killed"] == history.QUICK.kills


def test_a_registry_that_acknowledges_before_nats_does_is_noticed(tmp_path: Path) -> None:
    broken(history.run(history.EARLY_ACK, tmp_path), "stale: own writes not read")
