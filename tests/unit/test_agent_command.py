"""`pillion agent`: its options, and the table it prints instead of registering."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import fake_engine

from pillion_common import command, config
from pillion_common.errors import ConfigError
from pillion_sidecar.agent.agent import rules_of
from pillion_sidecar.agent.settings import EngineAddress, Settings


def settings(*words: str) -> Settings:
    return config.load(Settings, "agent", words, {})


def test_nothing_needs_to_be_told() -> None:
    given = settings()
    assert given.docker == EngineAddress(path="/var/run/docker.sock")
    assert (given.publish, given.max_containers, given.resync, given.registrator) == ("container", 500, 30.0, True)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("unix:///run/podman.sock", EngineAddress(path="/run/podman.sock")),
        ("tcp://proxy:2375", EngineAddress(host="proxy", port=2375)),
        ("tcp://[::1]:2375/", EngineAddress(host="::1", port=2375)),
    ],
)
def test_where_the_engine_is(text: str, where: EngineAddress) -> None:
    assert settings("--docker", text).docker == where


@pytest.mark.parametrize(
    "text", ["", "/var/run/docker.sock", "unix://x", "tcp://", "tcp://proxy", "tcp://proxy:0", "http://proxy:2375", "tcp://a/b:1"]
)
def test_what_is_no_engine(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not an engine's address; write unix:///var/run/docker\.sock or tcp://HOST:PORT"):
        settings("--docker", text)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(ConfigError) as raised:
        settings("--publish", "port", "--only", "team", "--advertise", "a b", "--registry", "http://r:1/x", "--max-containers", "0")
    assert raised.value.faults == [
        "--registry: 'http://r:1/x' has a path; write http://HOST:PORT",
        "--publish: 'port' is not one of container, host",
        "--advertise: 'a b' is not a host name or an IP address",
        "--only: 'team' has 'team'; write LABEL=VALUE, e.g. com.docker.compose.project=shop",
        "--max-containers: '0' is not a whole number from 1 to 5000",
    ]


def test_what_all_instances_have_in_common_comes_from_the_agent() -> None:
    words = ("--registry", "http://a:1,https://[::1]:2", "--zone", "z1", "--check-interval", "2500ms", "--only", "a=b", "--network", "n")
    rules = rules_of(settings(*words))
    assert rules.fixed == {
        "registry": "http://a:1,https://[::1]:2",
        "listen": "0.0.0.0:7070",
        "check_interval": "2.500000s",
        "check_timeout": "1.000000s",
        "zone": "z1",
        "log_to": "",
    }
    assert (rules.network, rules.only) == ("n", (("a", "b"),))


def test_it_prints_what_it_would_register_and_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_engine(tmp_path) as engine:
        network = {"networks": {"n": "10.0.0.5"}}
        labels = {
            "pillion.dev/name": "Web",
            "pillion.dev/port": "80",
            "pillion.dev/check": "http:/health",
            "pillion.dev/requires": "Db,Log",
        }
        engine.run(1, "shop-web-1", labels=labels, **network)
        engine.run(2, "shop-api-1", labels={"pillion.dev/name": "Api"}, **network)
        engine.run(3, "old-1", environ={"SERVICE_NAME": "old"}, ports=("9/tcp",), health="starting", **network)
        words = ["agent", "--once", "--dry-run", "--docker", engine.address, "--registry", "http://127.0.0.1:1"]
        assert command.dispatch(words) == 0
        assert set(engine.asked) == {"/containers/json", *(f"/containers/{one}/json" for one in engine.containers)}
    assert capsys.readouterr().out.splitlines() == [
        "CONTAINER   SERVICE  URL                 CHECK  REQUIRES  REMARK",
        "old-1       old      http://10.0.0.5:9   tcp              its HEALTHCHECK has not passed yet",
        "shop-web-1  Web      http://10.0.0.5:80  http   Db,Log",
        "",
        "shop-api-1: pillion.dev/port is missing, and the container exposes none; set it to the port the service listens on",
    ]


def test_an_engine_that_is_not_there_ends_it_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch(["agent", "--dry-run", "--once", "--docker", f"unix://{tmp_path}/none"]) == 1
    assert "is not there: mount it, or name the engine's socket or proxy with PILLION_DOCKER" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "other"), [("--once", "--dry-run"), ("--dry-run", "--once")])
def test_each_of_the_two_words_needs_the_other(word: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch(["agent", word]) == 2
    assert f"{word} needs {other}: together they print a table and end" in capsys.readouterr().err
