"""Portald, run as a process beside a stub sidecar and a stub GradingService: its pages, its limits, its log and its end."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import requests
from demo_stubs import DEMO, LISA, LISA_GRADES, WAIT_S, App, StubGrading, StubSidecar, portal_command, running, wait_for

NOTICE = "GradingService is not available right now"
REFRESH = '<meta http-equiv="refresh" content="2">'
QUIZ_3 = {"Title": "Quiz 3", "Type": "Quiz", "Score": "87"}


@pytest.fixture
def grading() -> Iterator[StubGrading]:
    with StubGrading() as stub:
        yield stub


@pytest.fixture
def sidecar(grading: StubGrading) -> Iterator[StubSidecar]:
    with StubSidecar(grading.url) as stub:
        yield stub


@pytest.fixture
def portal(sidecar: StubSidecar) -> Iterator[App]:
    with running(portal_command(), sidecar.url) as app:
        yield app


def get(app: App, path: str) -> requests.Response:
    return requests.get(app.url + path, timeout=WAIT_S, allow_redirects=False)


def post(app: App, form: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> requests.Response:
    """Send the form of Lisa's page."""
    return requests.post(app.url + "/students/1/grades", data=form or QUIZ_3, headers=headers, timeout=WAIT_S, allow_redirects=False)


def text_of(page: str) -> str:
    """The page without its tags, its blanks run together."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_root_leads_to_the_students(portal: App) -> None:
    answer = get(portal, "/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/students")


def test_the_students_are_listed_with_average_and_the_instance_that_answered(portal: App, grading: StubGrading) -> None:
    answer = get(portal, "/students")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert '<a href="/students/1">Lisa Vega</a>' in answer.text
    assert "Student Average Lisa Vega 89.0" in text_of(answer.text)
    assert f"GradingService at {grading.url} , instance grading-1" in text_of(answer.text)


def test_a_student_is_shown_with_grades_and_a_form(portal: App, sidecar: StubSidecar) -> None:
    page = get(portal, "/students/1").text
    assert "Lisa Vega Average 89.0 Grades Title Type Score Quiz 1 Quiz 85 Final Exam 93 Add a grade" in text_of(page)
    assert '<form method="post" action="/students/1/grades" novalidate>' in page
    sidecar.wait_for_message("page shown: Lisa Vega")


def test_a_grade_is_sent_on_and_leads_back_to_the_student(portal: App, grading: StubGrading, sidecar: StubSidecar) -> None:
    answer = post(portal)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/students/1#newest")
    assert grading.posted == [{"Title": "Quiz 3", "Type": "Quiz", "Score": 87}]
    sidecar.wait_for_message("grade added: student 1, Quiz 3, 87")


@pytest.mark.parametrize(
    ("typed", "sent"), [("87.5", 87.5), (" 7 ", 7), ("-1", -1), ("1e1", "1e1"), ("0x10", "0x10"), ("high", "high"), ("", "")]
)
def test_a_score_is_a_number_only_if_it_was_typed_as_one(portal: App, grading: StubGrading, typed: str, sent: object) -> None:
    post(portal, {**QUIZ_3, "Score": typed})
    assert grading.posted == [{"Title": "Quiz 3", "Type": "Quiz", "Score": sent}]


def test_a_validation_error_stands_at_its_field_and_keeps_what_was_typed(portal: App, grading: StubGrading) -> None:
    message = "Score must be from 0 to 100: 187 is not."
    grading.answers["POST", "/students/1/grades"] = (400, {"Error": "bad_field", "Message": message, "Field": "Score"})
    answer = post(portal, {"Title": 'Quiz "3"', "Type": "Exam", "Score": "187"})
    assert answer.status_code == 400
    assert f'<p class="problem" id="Score-problem" role="alert">{message}</p>' in answer.text
    assert (
        'value="187" inputmode="decimal" autocomplete="off" required aria-invalid="true" aria-describedby="Score-problem" autofocus'
        in answer.text
    )
    assert 'name="Title" value="Quiz &quot;3&quot;"' in answer.text
    assert "<option selected>Exam</option>" in answer.text
    assert "<title>Error: Lisa Vega · Portald</title>" in answer.text


def test_an_error_of_no_field_stands_over_the_form(portal: App, grading: StubGrading) -> None:
    grading.answers["POST", "/students/1/grades"] = (409, {"Error": "too_many_grades", "Message": "No more can be added."})
    answer = post(portal)
    assert answer.status_code == 409
    assert '<p class="problem" role="alert">No more can be added.</p>' in answer.text


def test_a_missing_provider_is_a_503_with_the_sidecars_reason_that_refreshes_itself(portal: App, sidecar: StubSidecar) -> None:
    sidecar.provider_url = None
    answer = get(portal, "/students")
    assert answer.status_code == 503
    assert NOTICE in answer.text
    assert "No instance of GradingService is up: start one." in answer.text
    assert REFRESH in answer.text
    assert "No GradingService instance answered." in answer.text


def test_the_page_is_back_with_the_provider_and_the_log_has_each_change_once(
    portal: App, sidecar: StubSidecar, grading: StubGrading
) -> None:
    sidecar.provider_url = None
    assert [get(portal, "/students").status_code for _ in range(3)] == [503, 503, 503]
    sidecar.provider_url = grading.url
    assert [get(portal, "/students").status_code for _ in range(2)] == [200, 200]
    sidecar.wait_for_message(f"provider back: GradingService at {grading.url}")
    assert sidecar.messages == [
        f"started: port {portal.port}",
        "provider missing: GradingService: No instance of GradingService is up: start one.",
        f"provider back: GradingService at {grading.url}",
    ]


def test_a_provider_that_refuses_is_named_in_the_notice(portal: App, grading: StubGrading) -> None:
    grading.close()
    answer = get(portal, "/students/1")
    assert answer.status_code == 503
    assert f"GradingService at {grading.url} does not answer: the connection was refused." in answer.text
    assert "instance <code>grading-1</code>" in answer.text


def test_a_provider_that_hangs_is_given_up_after_3_s(portal: App, grading: StubGrading) -> None:
    grading.delay_s = 5
    started = time.monotonic()
    answer = get(portal, "/students")
    assert 2.9 < time.monotonic() - started < 4.5
    assert answer.status_code == 503
    assert "does not answer: no answer within 3 s." in answer.text


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, "<html>", "gave an answer that cannot be used (200)"),
        (200, '{"an":"object"}', "gave an answer that cannot be used (200)"),
        (500, "{}", "gave an answer that cannot be used (500)"),
        (200, f'["{"x" * 1_100_000}"]', "does not answer: the answer is larger than 1048576 bytes"),
    ],
)
def test_an_answer_that_cannot_be_used_is_a_notice(portal: App, grading: StubGrading, status: int, content: str, reason: str) -> None:
    grading.answers["GET", "/students"] = (status, content)
    answer = get(portal, "/students")
    assert answer.status_code == 503
    assert reason in answer.text


def test_a_sidecar_that_is_away_is_named_in_the_notice() -> None:
    with running(portal_command(), "http://127.0.0.1:9") as app:
        answer = get(app, "/students")
        assert answer.status_code == 503
        assert "The sidecar at http://127.0.0.1:9 does not answer: the connection was refused." in answer.text
        started = time.monotonic()
        assert app.terminate() == 0
        assert time.monotonic() - started < 2


def test_a_grade_that_could_not_be_sent_is_kept_in_a_form_that_does_not_refresh(portal: App, sidecar: StubSidecar) -> None:
    sidecar.provider_url = None
    answer = post(portal)
    assert answer.status_code == 503
    assert "The grade was not saved. It is still here: send it again." in answer.text
    assert 'name="Title" value="Quiz 3"' in answer.text
    assert "refresh" not in answer.text


def test_a_grade_that_may_have_arrived_is_not_called_lost(portal: App, grading: StubGrading) -> None:
    grading.delay_s = 5
    answer = post(portal)
    assert answer.status_code == 503
    assert "It is not known whether the grade was saved." in answer.text


def test_whatever_the_service_sends_is_escaped(portal: App, grading: StubGrading) -> None:
    evil = "<script>alert('1')</script>"
    grading.answers["GET", "/students"] = (200, [{**LISA, "ID": '"><b>', "FirstName": evil}])
    grading.answers["GET", "/students/1"] = (200, {**LISA_GRADES, "Grades": [{"Title": evil, "Type": evil, "Score": evil}]})
    for path in ("/students", "/students/1"):
        page = get(portal, path).text
        assert "<script" not in page
        assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in page
    assert 'href="/students/&quot;&gt;&lt;b&gt;"' in get(portal, "/students").text


@pytest.mark.parametrize("path", ["/students", "/students/1", "/style.css", "/favicon.svg", "/nothing"])
def test_every_page_has_strict_headers_and_no_inline_script_or_style(portal: App, path: str) -> None:
    answer = get(portal, path)
    assert answer.headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.headers["Content-Type"].startswith("text/html"):
        assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=", answer.text)


@pytest.mark.parametrize(
    "path", ["/nothing", "/students/", "/students/0", "/students/x", "/students/1/2", "/__proto__", "//x", "/students/77"]
)
def test_an_unknown_page_is_a_404(portal: App, path: str) -> None:
    answer = get(portal, path)
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text


def test_a_page_can_only_be_read(portal: App) -> None:
    answer = requests.delete(portal.url + "/students", timeout=WAIT_S)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_reloading_after_a_failed_post_shows_the_student(portal: App) -> None:
    answer = get(portal, "/students/1/grades")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/students/1")


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://other.example"}, {"Origin": "null"}])
def test_a_form_of_another_site_is_refused(portal: App, grading: StubGrading, headers: dict[str, str]) -> None:
    assert post(portal, headers=headers).status_code == 403
    assert grading.posted == []


def test_a_form_of_the_same_site_is_taken(portal: App) -> None:
    assert post(portal, headers={"Origin": portal.url}).status_code == 303
    assert post(portal, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_a_body_that_is_too_large_or_no_form_is_refused(portal: App) -> None:
    large = post(portal, {"Title": "x" * 20_000})
    assert (large.status_code, "A form must be smaller than 16384 bytes." in large.text) == (413, True)
    assert post(portal, headers={"Content-Type": "application/json"}).status_code == 415


def test_livez_needs_neither_sidecar_nor_service(portal: App, sidecar: StubSidecar) -> None:
    sidecar.close()
    answer = get(portal, "/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_log_messages_wait_for_a_sidecar_that_is_away(portal: App, sidecar: StubSidecar) -> None:
    sidecar.wait_for_message(f"started: port {portal.port}")
    sidecar.log_status = 503
    assert [post(portal, {**QUIZ_3, "Title": f"Quiz\n{i}"}).status_code for i in range(3)] == [303] * 3
    sidecar.log_status = 200
    sidecar.wait_for_message("grade added: student 1, Quiz 2, 87")
    assert sidecar.messages[1:] == [f"grade added: student 1, Quiz {i}, 87" for i in range(3)]


def test_sigterm_finishes_the_page_in_flight_and_exits_0(portal: App, grading: StubGrading, sidecar: StubSidecar) -> None:
    grading.delay_s = 1
    pages: list[requests.Response] = []
    reading = threading.Thread(target=lambda: pages.append(get(portal, "/students")))
    with requests.Session() as idle:  # a connection that waits for its next request must not hold the end up
        idle.get(portal.url + "/livez", timeout=WAIT_S)
        reading.start()
        time.sleep(0.3)  # the page is being made
        started = time.monotonic()
        assert portal.terminate() == 0
        assert time.monotonic() - started < 3
    reading.join(timeout=WAIT_S)
    assert pages[0].status_code == 200
    assert sidecar.messages[-1] == "stopped"


def test_sigterm_does_not_wait_for_a_client_that_never_ends_its_request(portal: App) -> None:
    with socket.create_connection(("127.0.0.1", portal.port), timeout=WAIT_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        time.sleep(0.2)
        started = time.monotonic()
        assert portal.terminate() == 0
        assert time.monotonic() - started < 7


def test_healthcheck_is_0_while_it_serves_and_1_with_the_reason_after(portal: App) -> None:
    def healthcheck() -> subprocess.CompletedProcess[str]:
        command = [portal_command()[0], str(DEMO / "portal" / "healthcheck.js")]
        return subprocess.run(command, env={"PORT": str(portal.port)}, capture_output=True, text=True, timeout=WAIT_S, check=False)

    assert healthcheck().returncode == 0
    portal.terminate()
    after = healthcheck()
    assert (after.returncode, after.stderr) == (1, "portald: the connection was refused\n")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "many"}, 'portald: PORT must be a number from 0 to 65535, not "many"\n'),
        ({"PILLION_URL": "sidecar"}, 'portald: PILLION_URL must be like http://127.0.0.1:7071, not "sidecar"\n'),
    ],
)
def test_a_bad_setting_is_named_and_exits_2(environment: dict[str, str], message: str) -> None:
    ended = subprocess.run(portal_command(), env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (ended.returncode, ended.stderr) == (2, message)


def test_a_port_that_is_taken_is_named_and_exits_1(portal: App) -> None:
    environment = {"PORT": str(portal.port), "HOST": "127.0.0.1"}
    ended = subprocess.run(portal_command(), env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("portald: cannot listen: ")
    wait_for(lambda: get(portal, "/livez").status_code == 200, "the first one still serves")
