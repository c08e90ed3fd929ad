"""Every option of the sidecar has a test that fails without it: those that stand nowhere else, and the list of all of them."""

from __future__ import annotations

import dataclasses
import re
import socket
from pathlib import Path

import dnslib
import pytest
import requests
from programs import Program, eventually, program
from sidecar_bench import ASK_S, app, free_port, sidecar, words_for

from pillion_sidecar.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

# option: the file below tests/, and the test that sets it to something else than its default and sees the difference.
SHOWN_BY = {
    "name": ("process/test_sidecar_registry.py", "test_an_app_is_registered_and_found_by_name"),
    "port": ("process/test_sidecar_registry.py", "test_an_app_is_registered_and_found_by_name"),
    "host": ("process/test_sidecar_options.py", "test_the_app_may_be_at_another_host"),
    "registry": ("process/test_sidecar_life.py", "test_registries_are_a_list_of_which_any_will_do"),
    "requires": ("process/test_sidecar_life.py", "test_readyz_waits_for_what_is_required"),
    "check": ("unit/test_app_check_rules.py", "test_a_sidecar_looks_by_a_command"),
    "check_status": ("unit/test_app_check_rules.py", "test_the_statuses_that_are_well_are_an_option"),
    "check_interval": ("unit/test_app_check.py", "test_an_app_that_dies_is_noticed_at_once_and_its_return_at_the_next_check"),
    "check_timeout": ("unit/test_app_check.py", "test_a_port_that_hangs_is_given_up_in_time"),
    "check_rise": ("unit/test_app_check_rules.py", "test_rise_is_how_many_must_pass_in_a_row"),
    "check_fall": ("unit/test_app_check_rules.py", "test_fall_is_how_many_must_fail_in_a_row"),
    "check_grace": ("unit/test_app_check_rules.py", "test_within_its_grace_an_app_is_starting_and_then_late"),
    "listen": ("process/test_sidecar_registry.py", "test_a_killed_app_is_known_within_a_second_and_back_by_itself"),
    "local": ("process/test_sidecar_registry.py", "test_a_port_that_is_taken_ends_the_sidecar_with_the_reason"),
    "advertise": ("unit/test_registrar.py", "test_the_advertised_host_goes_before_the_route"),
    "state_dir": ("process/test_sidecar_registry.py", "test_two_sidecars_cannot_share_a_state_folder"),
    "spool_size": ("process/test_sidecar_logs.py", "test_a_full_spool_drops_the_oldest_and_tells_how_many"),
    "project_dir": ("process/test_lookups_agree.py", "test_a_folder_that_is_not_there_is_warned_of_once"),
    "dns": ("process/test_lookups_agree.py", "test_file_http_and_dns_agree_while_providers_come_and_go"),
    "dns_zone": ("process/test_sidecar_options.py", "test_the_domain_of_dns_answers"),
    "spool_sync": ("process/test_log_sources.py", "test_when_the_spool_is_synced_is_an_option"),
    "log_to": ("process/test_sidecar_logs.py", "test_a_sidecar_that_forwards_nothing_still_answers"),
    "log_gzip": ("process/test_log_sources.py", "test_batches_are_packed_only_if_told_and_only_for_whom_takes_them"),
    "log_files": ("process/test_log_sources.py", "test_files_are_followed_over_both_rotations_and_a_kill"),
    "log_join": ("process/test_log_sources.py", "test_traces_in_a_file_become_one_entry_if_they_are_joined"),
    "log_output": ("process/test_log_sources.py", "test_the_output_of_a_command_is_shown_and_found_in_the_log_service"),
    "syslog": ("process/test_log_sources.py", "test_syslog_is_taken_over_both_protocols"),
    "pod": ("process/test_sidecar_logs.py", "test_the_lines_of_an_app_in_a_pod_tell_which"),
    "token_file": ("process/test_sidecar_token.py", "test_patches_need_the_token"),
    "version": ("unit/test_registrar.py", "test_it_registers_what_it_was_told"),
    "zone": ("unit/test_registrar.py", "test_it_registers_what_it_was_told"),
    "weight": ("unit/test_registrar.py", "test_it_registers_what_it_was_told"),
    "tags": ("unit/test_registrar.py", "test_it_registers_what_it_was_told"),
    "strategy": ("process/test_sidecar_life.py", "test_the_default_strategy_is_an_option"),
    "wait": ("process/test_sidecar_life.py", "test_readyz_waits_for_what_is_required"),
    "drain_timeout": ("process/test_sidecar_life.py", "test_a_drain_waits_no_longer_than_it_was_told"),
    "drain_grace": ("process/test_sidecar_options.py", "test_the_grace_of_a_drain_is_waited_for"),
    "outlive": ("process/test_sidecar_life.py", "test_a_sidecar_outlives_its_app_while_it_still_serves"),
    "end_with_app": ("process/test_sidecar_life.py", "test_a_sidecar_ends_with_its_app"),
    "log_level": ("process/test_sidecar_options.py", "test_the_least_level_of_its_log"),
}


def test_every_option_is_shown_by_a_test() -> None:
    assert list(SHOWN_BY) == [field.name for field in dataclasses.fields(Settings)]
    for name, (path, test) in SHOWN_BY.items():
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), f"{name}: {path} has no {test}"


def test_the_page_has_every_option_with_its_default() -> None:
    page = (ROOT / "docs" / "sidecar.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Settings):
        [row] = [line for line in page.splitlines() if f"`PILLION_{field.name.upper()}`" in line and line.startswith("| `--")]
        assert f"`{field.metadata['default']}`" in row or not field.metadata["default"]


def test_the_app_may_be_at_another_host(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.2", 0)) as listener,
        program("registry", "--listen", "127.0.0.1:0", "--store", "memory:") as registry,
    ):
        port = listener.getsockname()[1]
        with sidecar("Here", port, registry.url, tmp_path / "a", "--log-to", "") as here:
            eventually(lambda: "refused" in str(here.get("/status").json()["App"]["Reason"]))
        with sidecar("There", port, registry.url, tmp_path / "b", "--host", "127.0.0.2", "--log-to", "") as there:
            eventually(there.ready)


def test_the_grace_of_a_drain_is_waited_for(tmp_path: Path) -> None:
    with program("registry", "--listen", "127.0.0.1:0", "--store", "memory:") as registry, app() as beside:
        words = ("--log-to", "", "--requires", "Api", "--check", "none")
        with sidecar("Reader", 1, registry.url, tmp_path / "reader", *words) as reader:
            taken = {}
            for grace in ("0s", "700ms"):
                with sidecar("Api", beside.port, registry.url, tmp_path / f"api-{grace}", "--log-to", "", "--drain-grace", grace) as api:
                    eventually(lambda: reader.found("Api"))
                    api.program.stop()
                    [drained], [stopped] = api.program.events("drained"), api.program.events("stopped")
                    taken[grace] = _seconds(stopped["time"]) - _seconds(drained["time"])
                    eventually(lambda: not reader.found("Api"))
    assert taken["0s"] < 0.6 <= taken["700ms"]


def _seconds(time: str) -> float:
    hours, minutes, seconds = time[11:-1].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@pytest.mark.parametrize(("zone", "rcode"), [("pillion", "REFUSED"), ("svc.test", "NXDOMAIN")])
def test_the_domain_of_dns_answers(tmp_path: Path, zone: str, rcode: str) -> None:
    with program("registry", "--listen", "127.0.0.1:0", "--store", "memory:") as registry:
        words = ("--log-to", "", "--check", "none", "--dns", "127.0.0.1:0", "--dns-zone", zone)
        with sidecar("A", 1, registry.url, tmp_path, *words) as beside:
            eventually(beside.ready)
            host, _, port = beside.dns.removeprefix("dns://").rpartition(":")
            answer = dnslib.DNSRecord.parse(dnslib.DNSRecord.question("nobody.svc.test").send(host, int(port), timeout=5))
            assert dnslib.RCODE[answer.header.rcode] == rcode


@pytest.mark.parametrize(("level", "told"), [("debug", True), ("warning", False)])
def test_the_least_level_of_its_log(tmp_path: Path, level: str, told: bool) -> None:
    port = free_port()
    words = words_for("A", 1, "http://127.0.0.1:1", tmp_path, "--log-to", "", "--check", "none", "--log-level", level)
    running = Program(("sidecar", *words, "--listen", f"127.0.0.1:{port}"), {})
    eventually(lambda: answers(f"http://127.0.0.1:{port}/heartbeat"))
    assert running.stop() == 0
    assert bool(running.events("listening")) is told
    assert running.events("no_token"), "a warning is there at either level"


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=ASK_S).status_code == 200
    except requests.ConnectionError:
        return False
