"""The shared token: patches without it are refused, and a sidecar with a wrong one says so where an operator looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
from programs import Program, eventually, program
from sidecar_bench import ASK_S, app, free_port, sidecar

SECRET = "s3cret-s3cret-s3cret"
PATCH = json.dumps(
    {"Added": [{"Name": "Db", "URL": "http://127.0.0.1:5432"}], "Full": True, "Services": ["Db"], "Revision": 9**9, "Epoch": "x"}
)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    return path


def test_patches_need_the_token(tmp_path: Path, token: Path) -> None:
    words = ("--requires", "Db", "--check", "none", "--token-file", str(token))
    with sidecar("A", free_port(), "http://127.0.0.1:1", tmp_path / "a", *words) as beside:
        for authorization, status, error in (
            ("", 401, "token_missing"),
            ("Bearer wrong", 403, "token_wrong"),
            (f"Bearer {SECRET}", 200, ""),
        ):
            headers = {"Authorization": authorization} if authorization else {}
            answer = requests.post(f"{beside.peer}/services", PATCH, headers=headers, timeout=ASK_S)
            assert answer.status_code == status
            assert not error or answer.json()["Error"] == error
            assert beside.found("Db") == (["http://127.0.0.1:5432"] if status == 200 else [])
        assert SECRET not in "".join(beside.program.lines)


def test_with_the_same_token_everything_works(tmp_path: Path, token: Path) -> None:
    trust = ("--token-file", str(token))
    with program("registry", "--store", "memory:", *trust) as registry, app() as grading_app:
        with sidecar("GradingService", grading_app.port, registry.url, tmp_path / "g", *trust) as grading:
            more = ("--check", "none", "--requires", "GradingService", *trust)
            with sidecar("Portald", free_port(), registry.url, tmp_path / "p", *more) as portal:
                eventually(lambda: portal.found("GradingService") == [grading_app.url])
                grading_app.kill()
                eventually(lambda: portal.found("GradingService") == [], 1.0)
            assert grading.program.stop() == 0
        assert requests.get(f"{registry.url}/services", timeout=ASK_S).json()["Services"] == []


@pytest.mark.parametrize(("mine", "status", "code"), [("another-secret-token", 403, "token_wrong"), (None, 401, "token_missing")])
def test_a_wrong_token_is_told_clearly(tmp_path: Path, token: Path, mine: str | None, status: int, code: str) -> None:
    (tmp_path / "mine").write_text(mine or "")
    trust = ("--token-file", str(tmp_path / "mine")) if mine else ()
    with (
        program("registry", "--store", "memory:", "--token-file", str(token)) as registry,
        sidecar("A", free_port(), registry.url, tmp_path / "a", "--check", "none", *trust) as beside,
    ):
        [told] = eventually(lambda: beside.program.events("register_failed"))
        assert f"answered {status}" in told["message"]
        assert "PILLION_TOKEN_FILE" in told["message"]
        ready = beside.get("/readyz")
        assert ready.status_code == 503
        assert code in ready.json()["Checks"]["registered"]
        assert mine is None or mine not in "".join(beside.program.lines)


def test_without_a_token_the_sidecar_warns_once(tmp_path: Path) -> None:
    with sidecar("A", free_port(), "http://127.0.0.1:1", tmp_path, "--check", "none") as beside:
        assert [line["level"] for line in beside.program.events("no_token")] == ["warning"]


def test_an_unreadable_token_file_is_a_configuration_fault(tmp_path: Path) -> None:
    faulty = Program(("sidecar", "--name", "A", "--port", "1", "--state-dir", str(tmp_path), "--token-file", str(tmp_path / "none")), {})
    assert faulty.process.wait(10) == 2
    eventually(lambda: any("cannot be read" in line and "pillion token" in line for line in faulty.lines))
