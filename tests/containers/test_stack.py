"""The main job, end to end: two apps that know nothing of Pillion find each other and leave their lines in one place."""

from __future__ import annotations

import json
import time

import portal_page
import requests
from playwright.sync_api import Page
from programs import eventually
from stack import CALL_S, LOOK_UP, SEND_LINES, Stack

STUDENTS = ["Lisa Vega", "Omar Haddad", "Mei Tanaka", "Jonas Lindqvist", "Amara Okafor"]


def test_a_grade_added_in_a_browser_is_shown_and_both_apps_lines_are_in_one_place(whole: Stack, page: Page) -> None:
    portal_page.open_students(page, whole.portal_url)
    assert portal_page.student_names(page) == STUDENTS
    portal_page.open_student(page, whole.portal_url, "Mei Tanaka")
    portal_page.add_grade(page, "Compose quiz", "Quiz", "97")
    assert ["Compose quiz", "Quiz", "97"] in portal_page.grades(page)
    eventually(lambda: [e for e in whole.lines(service="GradingService") if "grade added: Mei Tanaka, Compose quiz" in e["Message"]])
    eventually(lambda: [e for e in whole.lines(service="Portald") if "grade added" in e["Message"]])
    assert {"GradingService", "Portald"} <= {entry["Service"] for entry in whole.lines()}


def test_a_killed_app_is_known_within_5_s_and_is_back_by_itself(whole: Stack, page: Page) -> None:
    portal_page.open_students(page, whole.portal_url)
    whole.container("grading").kill()
    killed = time.monotonic()
    eventually(lambda: not whole.portal_knows(), 5.0)
    print(f"known after {time.monotonic() - killed:.2f} s")
    page.reload()
    portal_page.expect_notice(page)
    assert whole.states()["GradingService"] == "down"
    whole.container("grading").start()
    portal_page.expect_back(page, "Students", timeout_ms=30_000)
    eventually(lambda: whole.states()["GradingService"] == "up", 30.0)


def test_an_app_that_crashes_and_is_restarted_by_its_policy_gets_its_sidecar_back(whole: Stack) -> None:
    before = whole.container("grading-sidecar").attrs["State"]["StartedAt"]
    whole.container("grading").restart(timeout=1)
    eventually(lambda: whole.container("grading-sidecar").attrs["State"]["StartedAt"] != before, 30.0)
    eventually(lambda: whole.states()["GradingService"] == "up" and whole.portal_knows(), 30.0)


def test_a_restarted_registry_withdraws_nothing_and_no_lookup_fails(whole: Stack) -> None:
    since = whole.in_portal("fetch('http://127.0.0.1:7071/providers').then(async r => console.log(await r.text()))")
    lookups = whole.start_in_portal(LOOK_UP.replace("SECONDS", "15"))
    whole.container("registry").kill()
    time.sleep(2)
    whole.container("registry").start()
    started = time.monotonic()
    eventually(lambda: _answers(whole) and set(whole.states().values()) == {"up"}, 10.0)
    print(f"all up {time.monotonic() - started:.2f} s after the start")
    outcome = json.loads(lookups.output())
    assert outcome["asked"] > 500
    assert outcome["failed"] == 0
    after = whole.in_portal("fetch('http://127.0.0.1:7071/providers').then(async r => console.log(await r.text()))")
    assert json.loads(after)["Providers"] == json.loads(since)["Providers"]


def test_lines_sent_while_the_log_service_is_gone_for_20_s_are_all_there_once(whole: Stack) -> None:
    mark = f"m{time.monotonic_ns()}"
    sending = whole.start_in_portal(SEND_LINES.replace("MARK", mark).replace("COUNT", "1000").replace("SECONDS", "24"))
    time.sleep(2)
    whole.container("log").kill()
    time.sleep(20)
    whole.container("log").start()
    assert json.loads(sending.output()) == {"taken": 1000}
    wanted = [f"{mark} line {n}" for n in range(1000)]
    eventually(lambda: _answers_log(whole) and len(whole.lines(q=mark, limit="10000")) >= 1000, 60.0)
    assert [entry["Message"] for entry in whole.lines(q=mark, limit="10000")] == wanted


def test_the_registrys_events_stand_between_the_lines_of_the_app_they_are_about(whole: Stack) -> None:
    mark = f"m{time.monotonic_ns()}"

    def timeline() -> list[str]:
        """Return what is told of Portald from this test's first line on: its own lines, and the registry's events about it."""
        found = whole.lines(**{"service": "Portald", "with": "events", "limit": "10000"})
        told = [entry["Event"] if entry["Service"] == "registry" else entry["Message"] for entry in found]
        return told[told.index(f"{mark} before") :] if f"{mark} before" in told else []

    say = "fetch('http://127.0.0.1:7071/log', {method: 'POST', body: 'MARK'}).then(r => console.log(r.status))"
    assert whole.in_portal(say.replace("MARK", f"{mark} before")) == "200"
    eventually(timeline)
    whole.container("portal").kill()
    eventually(lambda: "down" in timeline(), 30.0, lambda: f"{timeline()}")
    whole.start_all()
    assert whole.in_portal(say.replace("MARK", f"{mark} after")) == "200"
    eventually(lambda: f"{mark} after" in timeline(), 30.0, lambda: f"{timeline()}")
    told = timeline()
    assert told.index("down") < told.index("up") < told.index(f"{mark} after")


def test_every_container_is_hardened(whole: Stack) -> None:
    for container in whole.containers():
        settings = container.attrs["HostConfig"]
        assert container.attrs["Config"]["User"] == "10001:10001", container.name
        assert settings["ReadonlyRootfs"] is True, container.name
        assert settings["CapDrop"] == ["ALL"], container.name
        assert settings["SecurityOpt"] == ["no-new-privileges:true"], container.name
        assert 0 < settings["Memory"] <= 256 * 2**20, container.name
        assert settings["PidsLimit"] > 0, container.name
        for bindings in (settings["PortBindings"] or {}).values():
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], container.name


def test_the_shared_token_is_demanded_from_everybody_who_would_change_something(whole: Stack) -> None:
    assert requests.post(f"{whole.registry_url}/services", data="{}", timeout=CALL_S).status_code == 401
    assert requests.post(f"{whole.log_url}/log", data="[X] - forged", timeout=CALL_S).status_code == 401


def _answers(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.registry_url}/readyz", timeout=CALL_S).status_code == 200
    except requests.ConnectionError:
        return False


def _answers_log(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.log_url}/readyz", timeout=CALL_S).status_code == 200
    except requests.ConnectionError:
        return False
