"""After `helm install`: it works, a browser can use it, what the apps say is found under their pods' names; what it takes in memory."""

from __future__ import annotations

import time

import figures
import portal_page
import pytest
from caller import Caller
from cluster import RELEASE, Namespace, component, eventually, helm
from host import Host
from playwright.sync_api import Page

# Of one container, in MB: what a chart's limits are made for. The idle sidecar's budget is 18 MB on glibc's own accounting.
MOST_MB = {"pillion": 24, "registry": 40, "log": 40, "injector": 48, "grading": 24, "portal": 90}


def test_helm_test_is_green(release: Namespace) -> None:
    began = time.monotonic()
    said = helm("test", RELEASE, "--logs")
    figures.note("helm test", time.monotonic() - began, "s")
    for step in ("registers", "is found once its heartbeat was answered", "is told of LogService, GradingService, Portald",
                 "finds its log line again", "drains", "leaves"):  # fmt: skip
        assert f"ok   {step}" in said


def test_a_grade_is_added_in_a_browser_through_port_forward(release: Namespace, page: Page) -> None:
    with release.forwarded(f"service/{RELEASE}-portal", 5000) as url:
        portal_page.open_students(page, url)
        name = portal_page.student_names(page)[0]
        portal_page.open_student(page, url, name)
        before = portal_page.grades(page)
        portal_page.add_grade(page, "Pods", "Test", "97")
        assert portal_page.grades(page) == [*before, ["Pods", "Test", "97"]]


@pytest.mark.parametrize(("part", "service"), [("grading", "GradingService"), ("portal", "Portald")])
def test_the_log_service_has_an_apps_lines_with_its_pods_name(release: Namespace, caller: Caller, part: str, service: str) -> None:
    name = release.pod(component(part))["metadata"]["name"]
    lines = eventually(lambda: caller.lines(service=service), 10.0, f"lines of {service}")
    assert {line["Pod"] for line in lines} == {name}


def test_each_container_stays_within_its_memory(release: Namespace, caller: Caller, host: Host) -> None:
    found = host.resident_mb(release.pods(f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component!=test"))
    for name, size_mb in sorted(found.items()):
        part = name.split("/")[0].removeprefix(f"{RELEASE}-").split("-")[0]
        figures.note(f"resident memory of {part}/{name.split('/')[1]}", size_mb, "MB")
    assert {name.split("/")[1] for name in found} == set(MOST_MB)
    assert {name: size_mb for name, size_mb in found.items() if size_mb > MOST_MB[name.split("/")[1]]} == {}
