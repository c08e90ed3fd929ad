"""GradingService, built and run as a process: its answers, its limits, its log and its end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from demo_stubs import WAIT_S, App, StubSidecar, build_grading, running, wait_for

QUIZ_3 = {"Title": "Quiz 3", "Type": "Quiz", "Score": 87}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build_grading(tmp_path_factory.mktemp("grading"))


@pytest.fixture
def sidecar() -> Iterator[StubSidecar]:
    with StubSidecar() as stub:
        yield stub


@pytest.fixture
def grading(command: list[str], sidecar: StubSidecar) -> Iterator[App]:
    with running(command, sidecar.url) as app:
        yield app


def get(app: App, path: str) -> requests.Response:
    return requests.get(app.url + path, timeout=WAIT_S)


def post(app: App, grade: Any, path: str = "/students/1/grades") -> requests.Response:
    return requests.post(app.url + path, json=grade, timeout=WAIT_S)


def test_the_list_has_five_students_with_their_averages(grading: App) -> None:
    answer = get(grading, "/students")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.json() == [
        {"ID": 1, "FirstName": "Lisa", "LastName": "Vega", "Average": 89},
        {"ID": 2, "FirstName": "Omar", "LastName": "Haddad", "Average": 90},
        {"ID": 3, "FirstName": "Mei", "LastName": "Tanaka", "Average": 81},
        {"ID": 4, "FirstName": "Jonas", "LastName": "Lindqvist", "Average": 85},
        {"ID": 5, "FirstName": "Amara", "LastName": "Okafor", "Average": 84.5},
    ]


def test_a_student_is_shown_with_the_grades(grading: App) -> None:
    assert get(grading, "/students/1").json() == {
        "ID": 1,
        "FirstName": "Lisa",
        "LastName": "Vega",
        "Average": 89,
        "Grades": [
            {"Title": "Quiz 1", "Type": "Quiz", "Score": 85},
            {"Title": "Quiz 2", "Type": "Quiz", "Score": 92},
            {"Title": "Midterm", "Type": "Test", "Score": 88},
            {"Title": "Final", "Type": "Exam", "Score": 91},
        ],
    }


def test_an_added_grade_is_in_the_list_the_average_and_the_log(grading: App, sidecar: StubSidecar) -> None:
    answer = post(grading, {**QUIZ_3, "Title": "  Quiz 3 ", "Unknown": 1})
    assert (answer.status_code, answer.json()) == (201, QUIZ_3)
    student = get(grading, "/students/1").json()
    assert student["Grades"][-1] == QUIZ_3
    assert student["Average"] == 88.6
    sidecar.wait_for_message("grade added: Lisa Vega, Quiz 3, 87")
    assert sidecar.messages == [f"started: 5 students, port {grading.port}", "grade added: Lisa Vega, Quiz 3, 87"]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"Title": ""}, "Title", "Title must have 1 to 100 characters: this one has 0."),
        ({"Title": "x" * 101}, "Title", "Title must have 1 to 100 characters: this one has 101."),
        ({"Title": "a\nb"}, "Title", "Title must be one line without control characters."),
        ({"Title": 5}, "Title", "Title must be a text."),
        ({"Type": "Essay"}, "Type", "Type must be Quiz, Test or Exam."),
        ({"Score": 101}, "Score", "Score must be from 0 to 100: 101 is not."),
        ({"Score": -0.5}, "Score", "Score must be from 0 to 100: -0.5 is not."),
        ({"Score": "high"}, "Score", "Score must be a number from 0 to 100."),
        ({"Score": None}, "Score", "Score must be a number from 0 to 100."),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_added(grading: App, change: dict[str, Any], field: str, message: str) -> None:
    answer = post(grading, {**QUIZ_3, **change})
    assert (answer.status_code, answer.json()) == (400, {"Error": "bad_field", "Message": message, "Field": field})
    assert len(get(grading, "/students/1").json()["Grades"]) == 4


@pytest.mark.parametrize("grade", [{"Title": "é" * 100}, {"Score": 0}, {"Score": 100}, {"Type": "Exam"}])
def test_the_edges_of_what_is_valid_are_taken(grading: App, grade: dict[str, Any]) -> None:
    assert post(grading, {**QUIZ_3, **grade}).status_code == 201


@pytest.mark.parametrize("body", ["", "[]", '{"Title":', '{"Score":NaN}', "{} {}", "[" * 100_00])
def test_a_body_that_is_no_grade_is_refused_with_an_example(grading: App, body: str) -> None:
    answer = requests.post(
        grading.url + "/students/1/grades", data=body, headers={"Content-Type": "application/json; charset=utf-8"}, timeout=WAIT_S
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "Error": "bad_json",
        "Message": 'The body is not a grade such as {"Title":"Quiz 3","Type":"Quiz","Score":87}.',
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/students/6", 404, "no_student"),
        ("GET", "/students/0", 404, "no_student"),
        ("GET", "/students/x", 404, "no_student"),
        ("GET", "/students/99999999999999999999", 404, "no_student"),
        ("POST", "/students/6/grades", 404, "no_student"),
        ("GET", "/", 404, "no_such_path"),
        ("GET", "/students/", 404, "no_such_path"),
        ("POST", "/students", 405, "wrong_method"),
        ("DELETE", "/students/1", 405, "wrong_method"),
        ("GET", "/students/1/grades", 405, "wrong_method"),
    ],
)
def test_a_wrong_path_or_method_gets_its_reason(grading: App, method: str, path: str, status: int, code: str) -> None:
    answer = requests.request(method, grading.url + path, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["Error"]) == (status, code)
    assert answer.json()["Message"].endswith(".")
    assert answer.headers.get("Allow") == {405: "POST" if path.endswith("grades") else "GET"}.get(status)


def test_a_form_is_the_wrong_type(grading: App) -> None:
    answer = requests.post(grading.url + "/students/1/grades", data=QUIZ_3, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["Error"]) == (415, "wrong_type")


def test_a_body_over_64_kb_is_too_large(grading: App) -> None:
    answer = post(grading, {**QUIZ_3, "Title": "x" * 65_536})
    assert (answer.status_code, answer.json()["Error"]) == (413, "too_large")


def test_a_student_has_at_most_1000_grades(grading: App) -> None:
    with requests.Session() as session:
        for _ in range(996):
            assert session.post(grading.url + "/students/2/grades", json=QUIZ_3, timeout=WAIT_S).status_code == 201
    answer = post(grading, QUIZ_3, "/students/2/grades")
    assert (answer.status_code, answer.json()["Error"]) == (409, "too_many_grades")
    assert len(get(grading, "/students/2").json()["Grades"]) == 1000


def test_grades_added_at_the_same_time_are_all_there(grading: App) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: post(grading, QUIZ_3).status_code, range(200)))
    assert statuses == [201] * 200
    assert len(get(grading, "/students/1").json()["Grades"]) == 204


def test_a_bad_request_is_logged_on_one_line(grading: App, sidecar: StubSidecar) -> None:
    requests.get(grading.url + "/students/a%0Ab", timeout=WAIT_S)
    sidecar.wait_for_message('bad request: GET /students/a%0Ab: 404 There is no student "a\\nb": GET /students lists them.')


def test_messages_wait_for_a_sidecar_that_is_away(grading: App, sidecar: StubSidecar) -> None:
    sidecar.wait_for_message(f"started: 5 students, port {grading.port}")
    sidecar.log_status = 503
    started = time.monotonic()
    assert [post(grading, {**QUIZ_3, "Title": f"Quiz {i}"}).status_code for i in range(3)] == [201] * 3
    assert time.monotonic() - started < 1
    sidecar.log_status = 200
    sidecar.wait_for_message("grade added: Lisa Vega, Quiz 2, 87")
    assert sidecar.messages[1:] == [f"grade added: Lisa Vega, Quiz {i}, 87" for i in range(3)]


def test_the_oldest_messages_are_dropped_and_counted_when_the_sidecar_is_away_for_long(grading: App, sidecar: StubSidecar) -> None:
    sidecar.wait_for_message(f"started: 5 students, port {grading.port}")
    sidecar.log_status = 503
    for i in range(300):
        post(grading, {**QUIZ_3, "Title": f"Quiz {i}"})
    sidecar.log_status = 200
    sidecar.wait_for_message("grade added: Lisa Vega, Quiz 299, 87")
    # 256 in the queue and the one that the sender has in hand.
    assert "log messages dropped: 43, the sidecar was away" in sidecar.messages
    assert len(sidecar.messages) == 1 + 257 + 1


def test_the_service_works_without_any_sidecar(command: list[str]) -> None:
    with running(command, "http://127.0.0.1:9") as app:
        assert post(app, QUIZ_3).status_code == 201
        assert "grade added: Lisa Vega, Quiz 3, 87" in app.lines
        started = time.monotonic()
        assert app.terminate() == 0
        assert time.monotonic() - started < 2


def test_sigterm_finishes_the_request_in_flight_and_exits_0(grading: App, sidecar: StubSidecar) -> None:
    body = b'{"Title":"Quiz 3","Type":"Quiz","Score":87}'
    with socket.create_connection(("127.0.0.1", grading.port), timeout=WAIT_S) as connection:
        connection.sendall(
            b"POST /students/1/grades HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        time.sleep(0.2)  # let the service read the head
        ending = threading.Thread(target=lambda: results.append(grading.terminate()))
        results: list[int] = []
        ending.start()
        wait_for(lambda: refuses(grading.port), "the service stops accepting")
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 Created\r\n")
    ending.join(timeout=WAIT_S)
    assert results == [0]
    assert sidecar.messages[1:] == ["grade added: Lisa Vega, Quiz 3, 87", "stopped"]


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was still waiting to be accepted when the listener closed: the next one is refused
    return False


def test_healthcheck_is_0_while_it_serves_and_1_with_the_reason_after(command: list[str], grading: App) -> None:
    def healthcheck() -> subprocess.CompletedProcess[str]:
        environment = {"PORT": str(grading.port)}
        return subprocess.run([*command, "healthcheck"], env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)

    assert healthcheck().returncode == 0
    grading.terminate()
    after = healthcheck()
    assert after.returncode == 1
    assert "connection refused" in after.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "many"}, 'grading: PORT must be a number from 0 to 65535, not "many"\n'),
        ({"PILLION_URL": "sidecar"}, 'grading: PILLION_URL must be like http://127.0.0.1:7071, not "sidecar"\n'),
    ],
)
def test_a_bad_setting_is_named_and_exits_2(command: list[str], environment: dict[str, str], message: str) -> None:
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (ended.returncode, ended.stderr) == (2, message)
