"""`pillion services|why|events|drain|hide|forget` against a real registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from classic import Classic
from programs import Program, eventually
from registry_lab import registry, states, wait_for

TOKEN = "s3cret-s3cret-s3cret-s3cret"


def run(*words: str, **env: str) -> tuple[int, str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILLION_")} | {"USER": "ann"}
    done = subprocess.run([sys.executable, "-m", "pillion_common", *words], env=kept | env, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def running() -> Iterator[Program]:
    with registry() as running:
        yield running


def register(running: Program, peer: Classic, name: str, *requires: str, **more: object) -> str:
    known = peer.register(running.url, name, list(requires), **more).json()["InstanceID"]
    wait_for(running, peer.url, "up")
    return str(known)


def test_services_are_listed_as_a_table_and_as_json(running: Program) -> None:
    with Classic() as one, Classic() as two:
        register(running, one, "Db", Zone="a")
        two.heartbeat, two.body = 503, b"the disk is \x1b[31mfull"
        two.register(running.url, "Api")
        eventually(lambda: "the disk" in run("services", "--registry", running.url)[1])
        code, out, err = run("services", "--registry", running.url)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].split() == ["SERVICE", "STATE", "URL", "SINCE", "REASON", "ID"]
        assert lines[1].split()[:3] == ["Api", "starting", two.url]
        assert "the disk is [31mfull" in lines[1]
        assert lines[2].split()[:3] == ["Db", "up", one.url]
        assert "\x1b" not in out
        code, out, _ = run("services", "Db", "--json", "--zone", "a", PILLION_REGISTRY=f"http://127.0.0.1:1,{running.url}")
        assert (code, [one["ServiceURL"] for one in json.loads(out)["Services"]]) == (0, [one.url])
        assert run("services", "Nobody", "--registry", running.url)[::2] == (
            1,
            "pillion services: no service named 'Nobody' was ever registered here; GET /services lists those that are\n",
        )


def test_who_was_there_at_a_moment_is_listed(running: Program) -> None:
    with Classic() as peer:
        register(running, peer, "Db")
        when = json.loads(run("events", "--json", "--name", "Db", "--registry", running.url)[1])["Events"][-1]["Time"]
        peer.deregister(running.url)
        code, out, _ = run("services", "Db", "--at", when, "--registry", running.url)
        assert (code, out.splitlines()[1].split()[:3]) == (0, ["Db", "up", peer.url])
        assert run("services", "--at", when, "--registry", running.url)[0] == 2
        assert run("services", "Db", "--at", "noon", "--registry", running.url)[0] == 2


def test_why_tells_the_likeliest_first_and_fails_unless_all_is_well(running: Program) -> None:
    with Classic() as one, Classic() as two:
        register(running, two, "Shop", "Db")
        code, out, _ = run("why", "Shop", "Db", "--registry", running.url)
        assert (code, out.splitlines()[0]) == (1, "1. No instance of Db was ever registered here.")
        register(running, one, "Db")
        eventually(lambda: run("why", "Shop", "Db", "--registry", running.url)[0] == 0)
        assert json.loads(run("why", "Shop", "Db", "--json", "--registry", running.url)[1])["Findings"][0]["Code"] == "fine"


def test_an_operator_drains_hides_and_forgets_and_the_events_name_who_did_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    with registry("--token-file", str(token), "--classic-networks", "127.0.0.0/8") as running, Classic() as peer:
        known = register(running, peer, "Db")
        told = ("--registry", running.url, "--token-file", str(token))
        assert run("drain", known, "--reason", "a new disk", *told)[:2] == (0, f"{known} is withdrawn; 0 dependents know\n")
        assert states(running) == {peer.url: "draining"}
        assert run("drain", known, "--undo", "--by", "bob", *told)[0] == 0
        wait_for(running, peer.url, "up")
        code, out, _ = run("hide", known, "60s", *told)
        assert code == 0
        assert out.startswith(f"{known} is hidden until 2")
        assert run("forget", known, *told)[:2] == (0, f"{known} is forgotten\n")
        assert run("forget", known, *told)[0] == 1
        code, out, _ = run("events", "--registry", running.url, "--name", "Db")
        assert code == 0
        rows = [line.split() for line in out.splitlines()]
        assert rows[0] == ["TIME", "EVENT", "SERVICE", "URL", "REASON", "BY"]
        assert [row[1] for row in rows[1:]] == ["registered", "up", "draining", "undrained", "up", "hidden", "forgotten"]
        assert ["ann at 127.0.0.1" in line for line in out.splitlines()[3:]] == [True, False, False, True, True]
        assert "bob at 127.0.0.1" in out


def test_a_wrong_token_is_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    with registry("--token-file", str(token)) as running:
        code, _, err = run("drain", "x", "--registry", running.url)
        assert code == 1
        assert "token" in err
        assert run("drain", "x", "--registry", running.url, "--token-file", str(tmp_path / "none"))[0] == 2


def test_events_are_followed(running: Program) -> None:
    words = [sys.executable, "-m", "pillion_common", "events", "-f", "--registry", running.url]
    with Classic() as peer, subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert "the registry: the registry started" in following.stdout.readline()
        register(running, peer, "Db")
        assert f"registered  Db at {peer.url}" in following.stdout.readline()
        assert f"up          Db at {peer.url}" in following.stdout.readline()
        following.kill()


def test_a_registry_that_is_not_there_is_told() -> None:
    code, out, err = run("services", "--registry", "http://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("pillion services: no registry answers at http://127.0.0.1:1: ")


def test_a_drain_without_an_id_means_the_app_beside_this_sidecar() -> None:
    code, _, err = run("drain", "--local", "127.0.0.1:1")
    assert (code, err.partition(":")[0]) == (1, "pillion drain")
    assert "no sidecar answers at 127.0.0.1:1" in err
